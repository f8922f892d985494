"""A trained model goes on with images of another size: positions are interpolated as timm does, all else stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from tests.helpers.train_factory import drawings, figures
from tests.laws.test_law_vision_language import ALL, WARM, made
from vlkit.errors import VlkitError
from vlkit.models.folder import load, save
from vlkit.models.registry import build
from vlkit.spec.model import SavedSpec
from vlkit.spec.recipe import Recipe
from vlkit.training.loop import train


def test_positions_are_those_of_timm(tmp_path: Path) -> None:
    encoder = {"kind": "timm", "name": "test_vit", "pretrained": False, "image_size": 96}
    recipe = made(tmp_path, tmp_path, model={"encoder": encoder})
    model = build(recipe.model)
    save(model, tmp_path / "model")
    larger = build(SavedSpec(path=str(tmp_path / "model"), image_size=160))
    wanted = timm.create_model("test_vit", img_size=96, num_classes=0)
    wanted.load_state_dict(model.encoder.model.state_dict())
    wanted.set_input_size(img_size=160)
    assert larger.encoder.image_size == larger.spec.encoder.image_size == 160
    found = larger.encoder.model.state_dict()
    assert found["pos_embed"].shape != model.encoder.model.state_dict()["pos_embed"].shape
    for name, tensor in wanted.state_dict().items():
        torch.testing.assert_close(found[name], tensor, msg=name)
    save(larger, tmp_path / "larger")
    pixels = torch.randn(1, 3, 160, 160)
    torch.testing.assert_close(load(tmp_path / "larger").encoder.tokens(pixels), larger.eval().encoder.tokens(pixels))


def test_the_next_stage_of_training_has_another_size(tmp_path: Path) -> None:
    table = drawings(tmp_path / "data")
    encoder = {"kind": "timm", "name": "test_vit", "pretrained": False, "image_size": 96}
    first = train(made(table, tmp_path / "first", WARM, model={"encoder": encoder}))
    plain = made(table, tmp_path / "second", ALL).model_dump()
    plain["model"] = {"kind": "saved", "path": str(first.model_path), "image_size": 128}
    second = train(Recipe.model_validate(plain))
    assert len(figures(second)) == ALL["steps"] and second.model().encoder.image_size == 128


def test_another_librarys_model_keeps_its_size(tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match=r"^model\.image_size = 64: .* name a model folder of vlkit's"):
        build(SavedSpec(path="tiny", image_size=64))
