"""The quickstart with tiny encoders on a few drawings: the same code, in about a second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.train_factory import HEADS, drawings, read_rows, write_rows
from vlkit import quickstart as module
from vlkit.spec.load import load_recipe

_UNSEEN = 6  # of the drawings

_SMALL: dict[str, Any] = {
    "model.image": {"kind": "tiny", "image_size": 16, "width": 16, "depth": 1},
    "model.text": {"kind": "tiny", "width": 16, "depth": 1},
    "model.embed_dim": 12,
    "model.image_head": {"kind": "mlp", "hidden": 16, "dropout": 0.3},
    "model.text_head": {"kind": "mlp", "hidden": 16, "dropout": 0.3, "center": True},
    "objectives": [{"kind": "contrastive"}],
    "stages": [{"name": "align", "warm_start": {}, "trainable": HEADS, "steps": 6}],
    "loop.batch_size": 6,
    "loop.checkpoint_every": 2,
}


def small_quickstart(monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> None:
    """Lets ``vlkit.quickstart`` train small models, on drawings that are made in ``folder``; ``more``: KEY=VALUE."""
    table = drawings(folder, variants=1)
    write_rows(table, [
        {**row, "split": "test" if number < _UNSEEN else "train"} for number, row in enumerate(read_rows(table))
    ])  # fmt: skip
    settings = {**_SMALL, "data.sources": [{"kind": "folder", "path": str(table)}]}
    small = [f"{key}={json.dumps(value)}" for key, value in settings.items()]

    def load(name: str, overrides: Sequence[str] = ()) -> Any:
        return load_recipe(name, [*small, *more, *overrides])

    monkeypatch.setattr(module, "load_recipe", load)
