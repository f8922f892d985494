"""The vision-language benchmark: both sides are the same model, and what is measured is printed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from vlkit.bench import vlm, vlm_sides
from vlkit.bench.vlm_sides import Sides, VlmSetting, step_memory
from vlkit.cli.bench import app

SMALL: dict[str, Any] = {
    "batch": 3, "vocabulary": 500, "width": 64, "layers": 1, "image_width": 64, "image_layers": 1, "image_size": 28,
    "written": 4,
}  # fmt: skip


@pytest.mark.parametrize("architecture", ["bloom", "mt5", "llama"])
def test_both_sides_are_one_model(architecture: Any) -> None:
    sides = Sides(VlmSetting(architecture, **SMALL))
    found = sides.differences()
    assert found["logits_error"] < 1e-5 and found["gradient_error"] < 1e-5 and found["loss_error"] < 1e-4
    assert sides.write("vlkit") == sides.write("transformers")
    trained = [
        {name for name, one in model.named_parameters() if one.requires_grad} for model in (sides.ours, sides.peer)
    ]
    assert len(trained[0]) == len(trained[1]) > 10
    counts = [sum(one.numel() for one in model.parameters()) for model in (sides.ours, sides.peer)]
    assert counts[0] == counts[1]


def test_a_step_moves_what_trains_and_nothing_else() -> None:
    sides = Sides(VlmSetting("bloom", **SMALL))
    for name, model in (("vlkit", sides.ours), ("transformers", sides.peer), ("cached", sides.ours)):
        before = {key: one.detach().clone() for key, one in model.named_parameters()}
        sides.step(name)
        moved = {key for key, one in model.named_parameters() if not torch.equal(one, before[key])}
        assert moved and all(dict(model.named_parameters())[key].requires_grad for key in moved)


def test_other_weights_of_one_side_are_found() -> None:
    sides = Sides(VlmSetting("bloom", **SMALL))
    torch.nn.init.normal_(sides.peer.language_projection.weight, std=0.1)
    assert sides.differences()["logits_error"] > 1e-4


def test_figures_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(target: str, arguments: dict[str, Any], *, ranks: int) -> list[int]:
        assert target == f"{vlm_sides.__name__}:{step_memory.__name__}" and ranks == 1
        return [step_memory(**arguments) + 1]

    monkeypatch.setattr(vlm, "on_ranks", here)
    found = json.loads(vlm.bench_vlm(VlmSetting("bloom", **SMALL), repeats=1).to_json())
    ratios = ("step_time_ratio", "memory_ratio", "cached_step_time_ratio", "generate_time_ratio")
    assert all(found[name] > 0 for name in ratios)
    assert found["equal_answers"] == 1.0 and found["labelled_places"] < found["places"] <= found["padded_places"]
    monkeypatch.setattr(vlm, "bench_vlm", lambda *_, **__: vlm.Figures(**found))
    shown = CliRunner().invoke(app, ["vlm"])
    assert shown.exit_code == 0 and "transformers" in shown.output and "places are learned" in shown.output
    assert json.loads(CliRunner().invoke(app, ["vlm", "--json"]).output) == found
