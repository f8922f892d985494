"""`vlkit export`: writes, compares, and says what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.helpers import encoder_factory as factory
from tests.helpers import whole_models
from vlkit.cli.app import app
from vlkit.models.folder import load

RUNNER = CliRunner()


def run(*arguments: object) -> Result:
    return RUNNER.invoke(app, ["export", *map(str, arguments)])


def test_export_writes_and_compares(tmp_path: Path) -> None:
    folder, target = factory.coca_folder(tmp_path / "oc"), tmp_path / "out"
    result = run(folder, "--format", "open_clip", "--out", target)
    assert result.exit_code == 0, result.output
    assert "text embeddings of equal strings" in result.stdout and "largest difference" in result.stdout
    assert result.stdout.endswith(f"\nthe model is in {target}\n")
    assert result.stderr == "note: the caption decoder of CoCa is no part of the two towers and is left out\n"
    assert load(target).embed_dim == 12
    again = run(folder, "--format", "open_clip", "--out", target)
    assert again.exit_code == 2 and "replace it with --overwrite" in again.stderr
    assert run(folder, "--format", "open_clip", "--out", target, "--overwrite").exit_code == 0


def test_a_vision_language_model_has_its_own_formats(tmp_path: Path) -> None:
    whole_models.llava(tmp_path / "llava")
    result = run(tmp_path / "llava", "--format", "llava", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "logits of equal ids and pixels" in result.stdout and "compared after loading it as llava" in result.stdout
    wrong = run(tmp_path / "llava", "--format", "open_clip", "--out", tmp_path / "else")
    assert wrong.exit_code == 2 and wrong.stderr == "error: no format 'open_clip'; there are: blip2, llava\n"


def test_what_does_not_fit_is_one_message(tmp_path: Path) -> None:
    result = run("tiny", "--format", "open_clip", "--out", tmp_path / "out")
    assert result.exit_code == 2 and result.stderr.startswith("error: image_head is a mlp head")
    result = run("tiny", "--format", "ggml", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "there are: onnx, open_clip, transformers" in result.stderr
    assert not (tmp_path / "out").exists()


def test_onnx_is_written_and_compared(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    result = run("tiny", "--format", "onnx", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "text embeddings of equal token ids" in result.stdout and "equal to 0.0001" in result.stdout
    said = "note: the tokenizer of a TinyTextEncoder has no files of its own: make ids and mask with model.tokenize\n"
    assert result.stderr == said
