"""The kind of model that trains an image tokenizer: it learns, resumes, saves, loads, and other models use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import vlkit
from tests.helpers.train_factory import drawings, figures, losses
from vlkit.errors import AssetError, VlkitError
from vlkit.models.image_tokenizer.batch import ImageBatch
from vlkit.models.inspection import inspect_folder
from vlkit.models.registry import build, build_meta
from vlkit.objectives.codes.reconstruction import Reconstruction
from vlkit.parts.image_tokenizers import build_image_tokenizer
from vlkit.spec.image_tokenizers import ConvTokenizerSpec
from vlkit.spec.load import load_recipe
from vlkit.spec.model import ImageTokenizerModelSpec
from vlkit.training.loop import train
from vlkit.types import Batch, ImageTokenizer, Model

SIZES = ConvTokenizerSpec(image_size=16, patch=2, widths=(8, 16), blocks=1, levels=(5, 3))
SPEC = ImageTokenizerModelSpec(tokenizer=SIZES)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return build(SPEC).eval()


def recipe(folder: Path, run: str, *more: str) -> Any:
    table = drawings(folder / "data", 24)
    overrides = [
        f"data.sources=[{{kind: folder, path: {table}}}]", "data.holdout_concepts=0", "stages.0.steps=6",
        "loop.batch_size=8", "loop.log_every=1", "loop.checkpoint_every=2", f"run.folder={folder / run}",
        "model.tokenizer.image_size=16",
    ]  # fmt: skip
    return load_recipe("t2i/tokenizer_tiny", [*overrides, *more])


def test_it_is_a_model_whose_spec_builds_it_again(model: Any, tmp_path: Path) -> None:
    assert isinstance(model, Model) and isinstance(model.tokenizer, ImageTokenizer) and model.spec == SPEC
    vlkit.save(model, tmp_path / "saved")
    again: Any = vlkit.load(tmp_path / "saved").eval()
    pixels = torch.stack([model.transform(Image.effect_noise((20, 20), 90).convert("RGB")) for _ in range(2)])
    codes = model.encode(pixels)
    assert torch.equal(again.encode(pixels), codes) and torch.equal(again.decode(codes), model.decode(codes))
    assert {name: p.shape for name, p in build_meta(SPEC).named_parameters()} == {
        name: p.shape for name, p in model.named_parameters()
    }
    told = inspect_folder(str(tmp_path / "saved")).facts
    assert told == {"codes": 15, "code grid": "4x4", "codes per image": 16, "bits per image": 63}  # 16 * log2(15)
    assert "tokenizer: {kind: conv, weights:" in (tmp_path / "saved" / "README.md").read_text()


def test_another_model_takes_the_trained_tokenizer(model: Any, tmp_path: Path) -> None:
    vlkit.save(model, tmp_path / "saved")
    taken: Any = build_image_tokenizer(ConvTokenizerSpec(weights=str(tmp_path / "saved")))
    assert taken.spec == SPEC.tokenizer.model_copy(update={"weights": str(tmp_path / "saved")})
    for name, one in model.tokenizer.state_dict().items():
        assert torch.equal(taken.state_dict()[name], one)
    named = load_recipe("t2i/openmoji", [f"model.tokenizer.weights={tmp_path / 'saved'}"]).model
    assert build_image_tokenizer(named.tokenizer).codebook_size == 15  # a recipe that names the folder alone
    kept = build_image_tokenizer(taken.spec, saved=tmp_path)  # a saved model holds the weights itself
    assert kept.spec == taken.spec
    with pytest.raises(VlkitError, match=r"has image_size = 16 \(here 32\), levels = \(5, 3\) \(here"):
        build_image_tokenizer(ConvTokenizerSpec(image_size=32, levels=(8, 5, 5), weights=str(tmp_path / "saved")))
    with pytest.raises(AssetError, match=r"no model folder \(it has no spec.yaml\); train one with: vlkit"):
        build_image_tokenizer(ConvTokenizerSpec(weights=str(tmp_path / "none")))


def test_weights_that_are_not_those_of_their_spec_are_refused(model: Any, tmp_path: Path) -> None:
    vlkit.save(model, tmp_path / "saved")
    path = tmp_path / "saved" / "spec.yaml"
    path.write_text(path.read_text().replace("blocks: 1", "blocks: 2"))
    with pytest.raises(VlkitError, match=r"its weights are not those of its spec.yaml \(\d+ tensors, such as tok"):
        build_image_tokenizer(ConvTokenizerSpec(weights=str(tmp_path / "saved")))


def test_a_batch_is_pixels_and_says_nothing_of_languages() -> None:
    batch = ImageBatch(torch.rand(3, 3, 4, 4), sources=("a", "b", "c"))
    assert isinstance(batch, Batch) and len(batch) == 3 and batch.languages == ()
    picked = batch.rows(torch.tensor([2, 0]))
    assert torch.equal(picked.pixels_BCHW, batch.pixels_BCHW[[2, 0]]) and picked.sources == ("c", "a")


def test_it_learns_and_an_interrupted_run_ends_as_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(recipe(tmp_path, "whole", "loop.micro_batch=3"))
    values = losses(whole)
    assert len(values) == 6 and values[-1] < values[0]
    assert {"l1", "l2", "edges", "psnr"} <= whole.metrics()[0].keys()
    spec, called = recipe(tmp_path, "killed", "loop.micro_batch=3"), []
    loss = Reconstruction.__call__

    def fails(self: Any, model: Any, batch: Any) -> Any:
        called.append(1)
        if len(called) > 9:  # in the fourth step
            raise KeyboardInterrupt
        return loss(self, model, batch)

    monkeypatch.setattr(Reconstruction, "__call__", fails)
    with pytest.raises(KeyboardInterrupt):
        train(spec)
    monkeypatch.undo()
    killed = train(spec, resume=True)
    assert figures(killed) == figures(whole)
    after, before = (run.model().state_dict() for run in (killed, whole))
    assert all(torch.equal(after[name], one) for name, one in before.items())
