"""Laws of language models in several processes: in pieces they learn what one process learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.train_factory import drawings, losses
from tests.helpers.vision_language import spec
from tests.laws.test_law_distributed import run_on, weights
from vlkit.spec.recipe import Recipe


def _made(table: Path, folder: Path, architecture: str, **loop: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "run": {"folder": str(folder), "name": "test"},
            "model": spec("mlp", architecture).model_dump(),
            "data": {"sources": [{"kind": "folder", "path": str(table)}]},
            "objectives": [{"kind": "answers"}],
            "stages": [{"name": "all", "trainable": ["bridge", "language_model"], "steps": 2}],
            "optim": {"warmup_steps": 1, "lr": 1e-3},
            "loop": {"batch_size": 8, "num_workers": 0, "log_every": 1, "checkpoint_every": 20, **loop},
        }
    )


@pytest.mark.parametrize(
    ("architecture", "loop"),
    [
        ("gemma3", {"parallel": "fsdp", "grad_checkpointing": True}),
        ("joined", {"parallel": "fsdp", "micro_batch": 2}),
    ],
)
def test_pieces_learn_as_one(architecture: str, loop: dict[str, Any], tmp_path: Path) -> None:
    table = drawings(tmp_path / "data")
    whole = run_on(1, _made(table, tmp_path / "whole", architecture))
    shared = run_on(2, _made(table, tmp_path / "shared", architecture, **loop))
    assert losses(shared) == pytest.approx(losses(whole), rel=1e-4)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(shared)[name], tensor, atol=5e-4, rtol=1e-3, msg=name)
