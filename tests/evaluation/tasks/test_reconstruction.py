"""The task that measures image tokenizers: figures by definition, one row, pages, and models that cannot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import vlkit
from tests.helpers.train_factory import drawings
from vlkit.errors import VlkitError
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.metrics.image_likeness import psnr, ssim
from vlkit.evaluation.results.terminal_table import task_table
from vlkit.evaluation.tasks.reconstruction_task import ReconstructionTask, code_use, open_reconstruction
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.models.registry import build
from vlkit.spec.evaluation import ReconstructionSpec
from vlkit.spec.image_tokenizers import ConvTokenizerSpec
from vlkit.spec.model import ImageTokenizerModelSpec


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    tokenizer = ConvTokenizerSpec(image_size=16, patch=2, widths=(8,), blocks=1, levels=(5, 3))
    return build(ImageTokenizerModelSpec(tokenizer=tokenizer)).eval()


def opened(folder: Path, **fields: Any) -> ReconstructionTask:
    source = {"kind": "folder", "path": str(drawings(folder / "data", 6))}
    (task,) = open_reconstruction(ReconstructionSpec(name="back", source=source, **fields), None)
    return task


def test_figures_are_those_of_their_definitions(model: Any, tmp_path: Path) -> None:
    task = opened(tmp_path)
    assert task.choose(None) == ("en",) and task.choose(["fr", "de"]) == ("fr",)
    (row,) = evaluate_task(model, task, encoding=Encoding(batch_size=4))
    pixels = torch.stack([model.transform(sample.image()) for sample in task.samples])
    codes = torch.cat([model.encode(pixels[:4]), model.encode(pixels[4:])])
    back = model.decode(codes)
    noise, alike = psnr(back, (pixels + 1) / 2), ssim(back, (pixels + 1) / 2)
    assert row["psnr"] == pytest.approx(noise.mean().item(), abs=1e-4)
    assert row["ssim"] == pytest.approx(alike.mean().item(), abs=1e-5)
    assert row["psnr_low"] <= row["psnr"] <= row["psnr_high"] and row["ssim_low"] <= row["ssim"] <= row["ssim_high"]
    squares = ((back - (pixels + 1) / 2) ** 2).mean().item()
    assert row["pooled_psnr"] == pytest.approx(-10 * math.log10(squares), abs=1e-4)
    assert row["stable"] == pytest.approx((model.encode(back * 2 - 1) == codes).double().mean().item())
    assert row["codes_used"] == len(codes.unique()) / 15 and row["codes_per_image"] == 64
    assert row["perplexity"] == pytest.approx(2 ** row["code_bits"])
    assert evaluate_task(model, task, encoding=Encoding(batch_size=1))[0]["psnr"] == pytest.approx(row["psnr"])


def test_bits_and_use_of_codes() -> None:
    assert code_use(torch.tensor([[0, 1], [2, 3]]), codebook_size=8) == (2.0, 0.5)
    assert code_use(torch.tensor([[5, 5]]), codebook_size=8) == (0.0, 0.125)


def test_a_suite_of_it_makes_a_report_with_the_best_and_worst_images(model: Any, tmp_path: Path) -> None:
    drawings(tmp_path / "data", 6)
    suite = tmp_path / "suite.yaml"
    source = f"{{kind: folder, path: {tmp_path / 'data' / 'table.jsonl'}}}"
    suite.write_text(f"tasks: [{{kind: reconstruction, name: back, source: {source}}}]")
    results = vlkit.evaluate(model, str(suite), folder=tmp_path / "out", quiet=True)
    title = str(task_table(results).title)
    assert title.startswith("back: PSNR [95 % interval], SSIM % [95 % interval]")  # decibels are no share
    page = (tmp_path / "out" / "report.html").read_text()
    assert "PSNR in dB" in page and "codes in use" in page and " dB</span>" in page
    assert (tmp_path / "out" / "results-reconstruction.csv").is_file()


def test_a_model_that_cannot_is_told(tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match="does not turn images into codes and back, as task 'back' needs"):
        evaluate_task(vlkit.load("tiny"), opened(tmp_path))
