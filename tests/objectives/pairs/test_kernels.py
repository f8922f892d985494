"""The Triton kernels: the numbers of tiles.py (in Triton's interpreter), and code for GPUs (none need be there)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vlkit.objectives.pairs.contrastive import kernels

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def _run(what: str, folder: Path, **environment: str) -> dict[str, dict[str, float]]:
    script = Path(__file__).parents[2] / "helpers" / "kernel_cases.py"
    done = subprocess.run(
        [sys.executable, str(script), what],
        env=os.environ | {"TRITON_CACHE_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: Any = json.loads(done.stdout)
    return found  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    return _run("numbers", tmp_path_factory.mktemp("triton"), TRITON_INTERPRET="1")


@pytest.mark.parametrize(
    ("dtype", "pulls"), [("float32", 1e-5), ("bfloat16", 2.0**-7), ("float16", 2.0**-10)], ids=lambda value: str(value)
)
def test_sums_and_gradients_are_those_of_tiles(errors: dict[str, dict[str, float]], dtype: str, pulls: float) -> None:
    """Sums are float32 whatever the inputs are; weights are rounded to the inputs' precision."""
    mine = {case: error for case, error in errors.items() if case.startswith(dtype)}
    assert len(mine) >= 15
    assert {case: error for case, error in mine.items() if not error["sums"] < 1e-6} == {}
    late = mine.pop(f"{dtype} whole loss late in training")
    assert late["pulls"] < max(
        pulls, 2.0**-7 if dtype != "float32" else 0.0
    )  # of float16, the result itself is rounded
    assert {case: error for case, error in mine.items() if not error["pulls"] < pulls} == {}


def test_kernels_translate_for_ampere_and_hopper_and_use_the_matrix_units(tmp_path: Path) -> None:
    made = _run("compile", tmp_path)
    assert len(made) == 4
    for case, counts in made.items():
        # Two-byte products run on matrix units; float32 ones are exact, on none.
        assert (counts["matrix"] > 0) == ("bf16" in case), case
        # Of the least that a multiprocessor of either kind has for one program.
        assert counts["shared"] <= 163 * 1024, case
        # One exponential a logit: a thread holds 64 logits of 128 x 128 (8 warps), 32 of 64 x 64 (4 warps).
        assert counts["exponentials"] == (64 if "bf16" in case else 32), case


def test_usable_refuses_what_the_kernels_do_not_take() -> None:
    assert not kernels.usable(torch.zeros(2, 3))
    assert not kernels.usable(torch.zeros(2, 3, dtype=torch.float64))
