"""Laws of training text-to-image models: killed == uninterrupted, sharded == single, less memory changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import train_factory as factory
from tests.helpers.train_factory import drawings, figures, losses
from tests.laws.test_law_distributed import run_on
from vlkit.errors import VlkitError
from vlkit.models.trainable import snapshot
from vlkit.spec.recipe import Recipe
from vlkit.training.loop import train

MODEL: dict[str, Any] = {
    "kind": "text_to_image",
    "language_model": {"kind": "tiny", "architecture": "qwen3"},
    "tokenizer": {"kind": "conv", "image_size": 16, "patch": 4, "widths": (8,), "blocks": 1, "levels": (5, 3, 3)},
    "body": {"kind": "tower", "width": 32, "layers": 2, "heads": 2, "ffn": 64},
}
BODY = ("head", "body")
WHOLE = ("head", "language_model")
WAYS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "tower": ({}, BODY),
    "own_layers": ({"body": {"kind": "own_layers"}}, BODY),
    "frozen": (
        {
            "body": {"kind": "language_model", "text": "frozen"},
            "adapters": {"language_model": {"kind": "lora", "rank": 2, "targets": "all"}},
        },
        ("head", "language_model_adapter"),
    ),
    "adapted": ({"body": {"kind": "language_model"}}, WHOLE),
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data")


def made(table: Path, folder: Path, way: str, *, steps: int = 4, **loop: Any) -> Recipe:
    model, trained = WAYS[way]
    return factory.recipe(
        table, folder, {"name": "codes", "trainable": trained, "steps": steps}, model={**MODEL, **model},
        data={"code_switch": 0.3}, loop={"batch_size": 8, "checkpoint_every": 3, **loop},
        objectives=[{"kind": "masked_codes", "consistency": 0.2}],
    )  # fmt: skip


def test_killed_at_any_step_and_resumed_is_uninterrupted(table: Path, tmp_path: Path) -> None:
    whole = train(made(table, tmp_path / "whole", "adapted", steps=30))
    recipe = made(table, tmp_path / "killed", "adapted", steps=30)
    step = factory.killed(recipe, after=(1, 28))
    torch.rand(5)
    resumed = train(recipe, resume=True)
    assert figures(resumed) == figures(whole), f"killed at step {step}"
    assert snapshot(resumed.model()) == snapshot(whole.model())  # type: ignore[arg-type]


@pytest.mark.parametrize(("way", "parallel"), [("tower", "ddp"), ("own_layers", "fsdp"), ("adapted", "fsdp")])
def test_sharded_and_in_pieces_equals_single(table: Path, tmp_path: Path, way: str, parallel: str) -> None:
    whole = run_on(1, made(table, tmp_path / "whole", way))
    shared = run_on(2, made(table, tmp_path / "shared", way, parallel=parallel, micro_batch=3))
    assert losses(shared) == pytest.approx(losses(whole), rel=1e-4)
    for one, two in zip(figures(shared), figures(whole), strict=True):
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)
        assert one["languages"] == two["languages"]


@pytest.mark.parametrize("way", ["tower", "adapted"])
def test_saving_activations_changes_nothing(table: Path, tmp_path: Path, way: str) -> None:
    runs = [train(made(table, tmp_path / str(on), way, grad_checkpointing=on)) for on in (False, True)]
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-5)


def test_layers_behind_a_kept_text_need_their_activations(table: Path, tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match=r"body \(OwnLayersBody\) cannot do without its activations"):
        train(made(table, tmp_path / "own", "own_layers", grad_checkpointing=True))
    with pytest.raises(VlkitError, match=r"cannot see what is kept of a text; set it to false"):
        train(made(table, tmp_path / "frozen", "frozen", grad_checkpointing=True))
