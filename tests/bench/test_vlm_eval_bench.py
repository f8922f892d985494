"""The benchmark of evaluation: both sides answer the same questions alike, and what is measured is printed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.bench.test_vlm_bench import SMALL
from vlkit.bench import vlm_eval
from vlkit.bench.vlm_eval import EvalSetting, EvalSides, bench_vlm_eval
from vlkit.bench.vlm_sides import VlmSetting
from vlkit.cli.bench import app


def setting(**more: Any) -> EvalSetting:
    return EvalSetting(images=3, languages=2, batch_size=4, written=4, model=VlmSetting("bloom", **SMALL), **more)


def test_both_sides_say_the_same_of_each_image_in_each_language() -> None:
    sides = EvalSides(setting())
    ours, theirs = sides.run("vlkit"), sides.run("peer")
    assert ours == theirs and len(ours) == 6 and len(set(ours.values())) > 2
    torch.nn.init.normal_(sides.sides.peer.language_projection.weight, std=1.0)
    assert sides.run("peer") != ours


def test_figures_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(bench_vlm_eval(setting(), repeats=1).to_json())
    assert found["agreement"] == 1.0 and found["n_answers"] == 6 and found["time_ratio"] > 0
    assert found["time_ratio"] == pytest.approx(found["ours_s"] / found["peer_s"], rel=1e-3)
    monkeypatch.setattr(vlm_eval, "bench_vlm_eval", lambda *_, **__: vlm_eval.Figures(**found))
    shown = CliRunner().invoke(app, ["vlm-eval"])
    assert (
        shown.exit_code == 0 and "one call a sample" in shown.output and "equal answers 100.00 % of 6" in shown.output
    )
    assert json.loads(CliRunner().invoke(app, ["vlm-eval", "--json"]).output) == found
