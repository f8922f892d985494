"""A step that does not fit into memory says what to lower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.train_factory import ALL, HEADS, drawings, recipe
from vlkit.errors import VlkitError
from vlkit.objectives.weighted_sum import WeightedSum
from vlkit.training.loop import train
from vlkit.types import Loss


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data")


def greedy(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    """Makes the loss of the second step take more than there is; None asks the allocator itself."""
    call, steps = WeightedSum.__call__, [0]

    def taking(self: WeightedSum, model: Any, batch: Any) -> Loss:
        steps[0] += 1
        if steps[0] > 1:
            if error is not None:
                raise error
            torch.empty(2**60, dtype=torch.uint8)
        return call(self, model, batch)

    monkeypatch.setattr(WeightedSum, "__call__", taking)


def test_the_cpu_has_too_little(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy(monkeypatch, None)
    with pytest.raises(VlkitError) as error:
        train(recipe(table, tmp_path / "run"))
    told = str(error.value)
    assert told.startswith("a step does not fit into memory ([enforce fail at alloc_cpu.cpp")
    assert told.endswith(
        "); set loop.micro_batch to 3 (now 6 rows at a time; the loss stays the same), or set loop.grad_checkpointing "
        "to true, or set loop.precision to bf16, or train fewer parts, or an adapter instead of them"
    )


def test_what_is_set_already_is_not_advised(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy(monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nAnd much more."))
    loop = {"micro_batch": 1, "grad_checkpointing": True, "precision": "bf16"}
    with pytest.raises(VlkitError) as error:
        train(recipe(table, tmp_path / "run", {"name": "heads", "trainable": HEADS, "steps": 3}, loop=loop))
    assert str(error.value) == (
        "a step does not fit into memory (CUDA out of memory. Tried to allocate 20.00 MiB.); train fewer parts, or an "
        "adapter instead of them"
    )


def test_other_errors_stay_as_they_are(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"):
        train(recipe(table, tmp_path / "run", {"name": "towers", "trainable": ALL, "steps": 3}))
