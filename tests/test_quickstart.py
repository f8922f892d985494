"""The quickstart replaces nothing unasked; what it gives is tested by `make quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.small_quickstart import small_quickstart
from vlkit import quickstart as module
from vlkit.errors import Stopped, VlkitError
from vlkit.outputs import locked
from vlkit.quickstart import BASELINE, quickstart
from vlkit.spec.load import dump_yaml, load_recipe
from vlkit.training.loop import train


class _TrainingError(Exception):
    """The training would begin."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``train`` is called with, once; then the quickstart ends."""
    seen: list[dict[str, Any]] = []

    def record(recipe: Any, **options: Any) -> None:
        seen.append({"folder": recipe.run.folder, **options})
        raise _TrainingError

    monkeypatch.setattr(module, "train", record)
    return seen


def begun(folder: Path) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump_yaml(load_recipe("quickstart/multilingual")), encoding="utf-8")
    for name in ("environment.json", "metrics.jsonl", "results.json"):
        (folder / name).write_text('{"vlkit": "0.4.0"}')
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("part", [".", BASELINE])
def test_a_second_one_is_refused_unasked(tmp_path: Path, calls: list[dict[str, Any]], part: str) -> None:
    folder = tmp_path / "q"
    before = begun(folder / part)
    with pytest.raises(VlkitError) as caught:
        quickstart(folder)
    assert str(caught.value) == (
        f"{folder} holds a run already; go on with it with --resume, replace it with --overwrite, or choose another "
        f"place with --out"
    )
    assert not calls and {path.name: path.read_bytes() for path in (folder / part).iterdir()} == before


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}])
def test_it_goes_on_or_replaces_where_that_is_asked_for(
    tmp_path: Path, calls: list[dict[str, Any]], options: dict[str, bool]
) -> None:
    folder = tmp_path / "a [x]: b"
    begun(folder)
    with pytest.raises(_TrainingError):
        quickstart(folder, **options)
    wanted = {"resume": False, "overwrite": False, **options}
    assert calls == [{"folder": str(folder), "show": None, **wanted}]


def test_a_stopped_one_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(recipe: Any, **options: Any) -> None:
        raise Stopped("stopped after step 7; go on somehow", number=15)

    monkeypatch.setattr(module, "train", stopped)
    with pytest.raises(Stopped) as caught:
        quickstart(tmp_path / "q")
    assert str(caught.value) == f"stopped; {tmp_path / 'q'} keeps what was done, go on with --resume"
    assert caught.value.number == 15


def test_in_a_new_place_both_ways_begin(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(_TrainingError):
            quickstart(tmp_path / "q", **options)
    assert [call["resume"] for call in calls] == [False] * 3 and not (tmp_path / "q").exists()


@pytest.mark.parametrize("name", ["results.json", "report.html", "results-classes.csv"])
def test_files_of_others_are_not_replaced(tmp_path: Path, calls: list[dict[str, Any]], name: str) -> None:
    (tmp_path / name).write_text("mine")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(VlkitError, match=f"holds {name}, which no quickstart wrote and this one would replace"):
            quickstart(tmp_path, **options)
    assert not calls and [path.name for path in tmp_path.iterdir()] == [name]


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    import threading

    told: list[str] = []

    def second() -> None:
        try:
            quickstart(tmp_path / "q")
        except VlkitError as error:
            told.append(str(error))

    with locked(tmp_path / "q"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert not calls and told[0].startswith(f"{tmp_path / 'q'} is being written by ")


def test_one_that_was_being_replaced_goes_on_without_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "q"
    small_quickstart(monkeypatch, tmp_path / "data", "seed=1")
    quickstart(folder)
    small_quickstart(monkeypatch, tmp_path / "data")
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(module, "train", lambda recipe, **options: (train(recipe, **options), interrupt()))
        quickstart(folder, overwrite=True)
    done = quickstart(folder, resume=True)
    whole = quickstart(tmp_path / "whole")
    assert done.results.rows == whole.results.rows
    assert done.results.meta["models"] == whole.results.meta["models"]


def interrupt() -> None:
    raise KeyboardInterrupt
