"""What a start may replace: nothing is lost or left behind by one that is refused, and no file of others by any."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.train_factory import CONTEXT, drawings, figures, recipe, wait_for
from vlkit.errors import VlkitError
from vlkit.spec.load import dump_yaml
from vlkit.spec.recipe import Recipe
from vlkit.training import steps
from vlkit.training.loop import train
from vlkit.training.run_folder import Run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data")


def refused(made: Recipe, **options: Any) -> str:
    with pytest.raises(VlkitError) as caught:
        train(made, **options)
    return str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WRONG: dict[str, dict[str, Any]] = {
    "a part that is not there": {"stages": [{"name": "s", "trainable": ["nose"], "steps": 2}]},
    "an objective without what it needs": {"objectives": [{"kind": "sigmoid"}]},
    "a warm start of encoders that train": {
        "stages": [{"name": "s", "trainable": ["image", "text_head"], "steps": 2, "warm_start": {}}]
    },
    "a teacher that is not there": {"objectives": [{"kind": "text_distillation", "teacher": "nobody"}]},
    "what the first step finds": {"objectives": [{"kind": "clip_distillation", "teacher": "tiny"}]},
}


@pytest.mark.parametrize("why", WRONG)
def test_a_start_that_is_refused_leaves_nothing_and_replaces_nothing(table: Path, tmp_path: Path, why: str) -> None:
    wrong, right = recipe(table, tmp_path / "run", **WRONG[why]), recipe(table, tmp_path / "run")
    refused(wrong)
    assert not (tmp_path / "run").exists()
    first = figures(train(right))
    before = contents(tmp_path / "run")
    refused(wrong, overwrite=True)
    assert contents(tmp_path / "run") == before
    assert figures(train(right, overwrite=True)) == first


def test_a_run_that_was_stopped_before_anything_was_kept_is_no_run(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(table, tmp_path / "run", loop={"log_every": 5})
    step = steps.Steps._step

    def failing(self: Any, *args: Any) -> Any:
        if self.place.step == 2:
            raise VlkitError("the third batch cannot be read")
        return step(self, *args)

    monkeypatch.setattr(steps.Steps, "_step", failing)
    assert refused(made) == "the third batch cannot be read"
    monkeypatch.undo()
    assert (tmp_path / "run" / "recipe.yaml").exists()
    corrected = recipe(table, tmp_path / "run", seed=3)
    assert train(corrected).recipe() == corrected
    assert "holds a run already" in refused(made)


@pytest.mark.parametrize(
    "name", ["recipe.yaml", "environment.json", "metrics.jsonl", "checkpoints/mine.txt", "model/mine.txt"]
)
def test_files_of_others_are_not_taken_for_a_run(table: Path, tmp_path: Path, name: str) -> None:
    made, path = recipe(table, tmp_path / "run"), tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        assert refused(made, **options) == (
            f"{tmp_path / 'run'} holds {name.partition('/')[0]}, which no run of vlkit's wrote and this one would "
            f"replace; choose another run.folder"
        )
    assert contents(tmp_path / "run") == {name: b"mine"}


def test_the_recipe_of_the_user_is_not_replaced_by_a_run_around_it(table: Path, tmp_path: Path) -> None:
    made = recipe(table, tmp_path)
    (tmp_path / "recipe.yaml").write_text(dump_yaml(made), encoding="utf-8")
    assert "holds recipe.yaml, which no run of vlkit's wrote" in refused(made, overwrite=True)


def test_what_lies_beside_a_run_stays_when_it_is_replaced(table: Path, tmp_path: Path) -> None:
    made = recipe(table, tmp_path / "run")
    run = train(made)
    for name in ("notes.txt", "checkpoints/step-best/weights", "results.json"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("mine")
    train(made, overwrite=True)
    after = contents(run.path)
    assert {name for name in after if after[name] == b"mine"} == {
        "notes.txt", "checkpoints/step-best/weights", "results.json",
    }  # fmt: skip
    (run.model_path / "my-scores.csv").write_text("mine")
    said = refused(made, overwrite=True)
    assert said.startswith(f"{run.model_path} holds a model and beside it my-scores.csv, which vlkit did not write")


@pytest.mark.parametrize("options", [{"overwrite": True}, {"resume": True}])
def test_a_run_never_replaces_the_model_it_starts_from(table: Path, tmp_path: Path, options: dict[str, bool]) -> None:
    run = train(recipe(table, tmp_path / "run"))
    before = contents(run.model_path)
    for key, more in (
        ("model", {"model": {"kind": "saved", "path": str(run.model_path)}}),
        ("teacher", {"objectives": [{"kind": "text_distillation", "teacher": str(run.model_path)}]}),
    ):
        made = recipe(table, run.path)
        made = Recipe.model_validate({**made.model_dump(), **more})
        assert refused(made, **options) == (
            f"{run.model_path} would be replaced and holds {run.model_path}, which is read here; choose another place"
        ), key
    assert contents(run.model_path) == before


def test_a_place_that_can_be_no_run_folder_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    nowhere = tmp_path / "no-such-table.jsonl"
    for name, said in (
        ("file", "is a file; choose a folder"),
        ("link", "is a link to gone, which is not there"),
        ("link/run", "is a link to gone, which is not there"),
        ("x" * 300, "File name too long; choose another place"),
    ):
        assert said in refused(recipe(nowhere, tmp_path / name))


def _train_slowly(made: Recipe) -> None:
    step = steps.Steps._advance

    def slowly(*args: Any, **kwargs: Any) -> None:
        import time

        time.sleep(0.05)
        step(*args, **kwargs)

    steps.Steps._advance = slowly  # type: ignore[method-assign]
    train(made)


def test_of_two_trainings_in_one_folder_the_second_is_refused_and_told_of_the_first(
    table: Path, tmp_path: Path
) -> None:
    made = recipe(table, tmp_path / "run", {"name": "long", "trainable": ["image_head"], "steps": 400})
    child = CONTEXT.Process(target=_train_slowly, args=(made,))
    child.start()
    try:
        wait_for(Run(tmp_path / "run"), 2, child)
        for options in ({}, {"overwrite": True}, {"resume": True}):
            said = refused(made, **options)
            assert said.startswith(f"{tmp_path / 'run'} is being written by process {child.pid} on "), said
    finally:
        child.kill()
        child.join()
    run = train(recipe(table, tmp_path / "run"), overwrite=True)
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints", "environment.json", "metrics.jsonl", "model", "recipe.yaml",
    ]  # fmt: skip


def _killed(made: Recipe, at: int) -> None:
    """Replaces a run, and is killed at one of its calls to the system; exit code 17 where it makes fewer."""
    calls, own, folder = [0], os.getpid(), str(made.run.folder)

    def count(event: str, given: tuple[object, ...]) -> None:
        if not given or os.getpid() != own or not event.startswith(("os.", "open", "shutil.", "tempfile.")):
            return
        inside_a_tree = event in ("os.remove", "os.rmdir") and given[-1] != -1  # named from an open folder
        if inside_a_tree or str(given[0]).startswith(folder):
            calls[0] += 1
            if calls[0] == at:
                os.kill(own, signal.SIGKILL)

    sys.addaudithook(count)
    train(made, overwrite=True)
    os._exit(17)


def test_replacing_a_run_goes_on_after_a_kill_at_any_call(table: Path, tmp_path: Path) -> None:
    made = recipe(table, tmp_path / "run", {"name": "heads", "trainable": ["image_head"], "steps": 4})
    made = made.model_copy(update={"loop": made.loop.model_copy(update={"checkpoint_every": 2})})
    whole = figures(train(made))
    at, kept = random.SystemRandom().randrange(1, 25), 0
    while True:
        child = CONTEXT.Process(target=_killed, args=(made, at))
        child.start()
        child.join()
        if child.exitcode == 17:
            break
        started = (tmp_path / "run" / "recipe.yaml").exists()
        kept += started
        run = train(made, resume=started) if at % 2 and started else train(made, overwrite=True)
        assert figures(run) == whole, f"killed at call {at}"
        assert [path.name for path in tmp_path.rglob(".*")] == [], f"killed at call {at}"
        assert run.model().spec == made.model
        at += 25
    assert at > 40 and kept
