"""What watches a run: an evaluator on concepts held back, trackers; and neither changes what is learned."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.train_factory import ALL, TIMES, drawings, figures, recipe
from vlkit.data.sources.open import open_sources
from vlkit.errors import UnknownName, VlkitError
from vlkit.evaluation.held_back import HeldBack
from vlkit.models.trainable import snapshot
from vlkit.spec.recipe import Recipe
from vlkit.training.loop import train
from vlkit.training.trackers import scalars
from vlkit.types import as_module

STAGES = ({"name": "h", "trainable": ALL, "steps": 6},)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data", 40)


def watched(table: Path, folder: Path, **more: Any) -> Recipe:
    return recipe(table, folder, *STAGES, data={"holdout_concepts": 5}, model={"text_head": {"dropout": 0.3}}, **more)


def test_held_back_concepts_are_measured_and_nothing_else_changes(table: Path, tmp_path: Path) -> None:
    plain = train(watched(table, tmp_path / "plain"))
    run = train(watched(table, tmp_path / "watched", validation={"every": 2}))
    lines = [line for line in figures(run) if "validation" not in line]
    assert lines == figures(plain)
    assert snapshot(as_module(run.model())) == snapshot(as_module(plain.model()))
    measured = [line for line in run.metrics() if "validation" in line]
    assert [line["step"] for line in measured] == [2, 4, 6]
    last = measured[-1]["validation"]
    assert set(last["acc1"]) == {"de", "en", "fr"} and 0 <= last["mean_acc1"] <= 1
    assert run.summary().endswith(f"mean_acc1 {last['mean_acc1']:.3f} on what was held back")
    assert HeldBack(run.recipe())(run.model()) == last  # the finished model is what was measured last


def test_only_what_was_held_back_is_measured_and_every_image_counts(table: Path, tmp_path: Path) -> None:
    made = watched(table, tmp_path / "run", validation={"languages": ["de"]})
    task = HeldBack(made).task
    trained = {open_sources(made.data)[n].concept for n in range(len(open_sources(made.data)))}
    assert len(task.samples) == 10 and len(set(task.targets)) == 5  # two images of each concept
    assert not trained & {sample.concept for sample in task.samples}
    assert list(task.names) == ["de"] and all(task.names["de"])


def test_a_language_with_one_concept_held_back_is_in_no_mean(
    table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = watched(table, tmp_path / "run", validation={"languages": ["de", "en"]})
    kept = HeldBack(made).task.samples
    lines = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if any(sample.key == line["image"] and sample.concept != kept[0].concept for sample in kept):
            line["captions"].pop("de", None)
    table.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert list(HeldBack(made).task.names) == ["en"]
    assert "validation: de left out: one class is named" in caplog.text


def test_a_killed_run_measures_the_same(table: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"validation": {"every": 2}, "loop": {"checkpoint_every": 3}}
    whole = train(watched(table, tmp_path / "whole", **more))
    run = train(watched(table, tmp_path / "run", **more))
    (run.path / "model").rename(tmp_path / "gone")
    for late in run.checkpoints.glob("step-6"):
        late.rename(tmp_path / "late")
    again = train(watched(table, tmp_path / "run", **more), resume=True)
    assert figures(again) == figures(whole)


def test_what_cannot_be_measured_is_told_before_anything_is_written(table: Path, tmp_path: Path) -> None:
    made = recipe(table, tmp_path / "run", *STAGES, validation={})
    with pytest.raises(VlkitError, match=r"keeps back, and that is 0; set data.holdout_concepts=100, say"):
        train(made)
    assert not (tmp_path / "run").exists()


def test_trackers_are_told_every_line(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    library = types.ModuleType("trackio")
    library.init = lambda **settings: told.append(settings)  # type: ignore[attr-defined]
    library.log = lambda values, step: told.append((step, values))  # type: ignore[attr-defined]
    library.finish = lambda: told.append("finished")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", library)
    run = train(watched(table, tmp_path / "run", run={"trackers": ["trackio"]}, validation={"every": 3}))
    settings, *lines, end = told
    assert settings["name"] == "test" and settings["config"]["optim"]["lr"] == 3e-3 and end == "finished"
    assert [step for step, _ in lines] == [line["step"] for line in run.metrics()]
    for (_, values), line in zip(lines, run.metrics(), strict=True):
        assert values == scalars(line)
        assert all(isinstance(value, float) for value in values.values())
    assert "validation/acc1/de" in lines[-1][1] and "loss" in lines[0][1] and set(TIMES) <= lines[0][1].keys()


def test_a_tracker_that_is_not_there_is_named_with_the_fix(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(VlkitError, match=r"run.trackers = wandb needs .* pip install 'wandb"):
        train(watched(table, tmp_path / "run", run={"trackers": ["wandb"]}))
    with pytest.raises(UnknownName, match=r"no tracker 'wanbd'; did you mean 'wandb'\?"):
        train(watched(table, tmp_path / "run", run={"trackers": ["wanbd"]}))
    assert not (tmp_path / "run").exists()  # nothing was written
