"""A run that is killed and resumed is the run that was never interrupted, bit for bit."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import train_factory as factory
from tests.helpers.train_factory import ALL, HEADS, drawings, figures, recipe
from vlkit.errors import VlkitError
from vlkit.models.trainable import snapshot
from vlkit.spec.load import dump_yaml
from vlkit.spec.recipe import Recipe
from vlkit.training import checkpoints as checkpoints
from vlkit.training import frozen_features as frozen
from vlkit.training import steps
from vlkit.training.loop import train
from vlkit.training.run_folder import Run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data")


def elsewhere(made: Recipe, folder: Path) -> Recipe:
    return made.model_copy(update={"run": made.run.model_copy(update={"folder": str(folder)})})


HEADS_ONLY = ({"name": "heads", "trainable": HEADS, "steps": 60},)
TOWERS = ({"name": "towers", "trainable": ALL, "steps": 60},)
TOWERS_THEN_HEADS = ({"name": "t", "trainable": ALL, "steps": 12}, {"name": "h", "trainable": HEADS, "steps": 48})
HEADS_THEN_TOWERS = ({"name": "h", "trainable": HEADS, "steps": 12}, {"name": "t", "trainable": ALL, "steps": 48})
IMAGE_THEN_TEXT = (
    {"name": "i", "trainable": ("image", *HEADS), "steps": 12},
    {"name": "t", "trainable": ("text", *HEADS), "steps": 48},
)


@pytest.mark.parametrize(
    ("stages", "workers", "after"),
    [
        pytest.param(HEADS_ONLY, 0, (3, 19), id="cached-before-the-first-checkpoint"),
        pytest.param(HEADS_ONLY, 0, (21, 55), id="cached"),
        pytest.param(TOWERS, 0, (21, 55), id="pixels"),
        pytest.param(TOWERS, 2, (21, 55), id="pixels-two-workers"),
        pytest.param(TOWERS_THEN_HEADS, 0, (21, 55), id="towers-then-heads"),
        pytest.param(HEADS_THEN_TOWERS, 0, (21, 55), id="heads-then-towers"),
        pytest.param(IMAGE_THEN_TEXT, 0, (13, 19), id="just-into-the-second-stage"),
    ],
)
def test_killed_and_resumed_is_uninterrupted(
    table: Path, tmp_path: Path, stages: tuple[dict[str, Any], ...], workers: int, after: tuple[int, int]
) -> None:
    made = recipe(
        table,
        tmp_path / "killed",
        *stages,
        loop={"num_workers": workers},
        data={"augment": {"flip": 0.5, "color": 0.3}},
    )
    whole = train(elsewhere(made, tmp_path / "whole"))
    assert [line["step"] for line in figures(whole)] == list(range(1, 61))
    step = factory.killed(made, after=after)
    torch.rand(7)  # whatever else used the random numbers meanwhile
    resumed = train(made, resume=True)
    assert figures(resumed) == figures(whole), f"killed at step {step}"
    assert snapshot(resumed.model()) == snapshot(whole.model())


def test_resuming_twice_and_resuming_a_finished_run(table: Path, tmp_path: Path) -> None:
    made = recipe(table, tmp_path / "killed", *HEADS_ONLY, loop={"checkpoint_every": 7})
    whole = train(elsewhere(made, tmp_path / "whole"))
    factory.killed(made, after=(10, 20))
    assert [int(path.name[5:]) for path in Run(tmp_path / "killed").checkpoints.iterdir() if path.name[0] != "."]
    resumed = train(made, resume=True)
    assert figures(resumed) == figures(whole)
    before = snapshot(resumed.model())
    assert figures(train(made, resume=True)) == figures(whole)
    assert snapshot(resumed.model()) == before
    assert sorted(path.name for path in resumed.checkpoints.iterdir()) == ["step-56", "step-60"]


def test_resuming_just_before_the_end_of_a_stage(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The last steps of a cosine are too small to move a large float: the check is of the whole stage.
    long = ({"name": "heads", "trainable": HEADS, "steps": 40},)
    made = recipe(table, tmp_path / "run", *long, loop={"checkpoint_every": 39}, optim={"lr": 1e-5, "warmup_steps": 0})
    stop_after(monkeypatch, 39)
    with pytest.raises(RuntimeError, match="stopped by the test"):
        train(made)
    monkeypatch.undo()
    assert figures(train(made, resume=True)) == figures(train(elsewhere(made, tmp_path / "whole")))


def test_a_part_that_stood_still_is_found_after_resuming_too(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(table, tmp_path / "run", loop={"checkpoint_every": 4})
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args, **kwargs: None)
    for resume in (False, True, True):
        with pytest.raises(VlkitError, match=r"^image_head, text_head, scale should have trained and did not move"):
            train(made, resume=resume)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """An error in the middle of a run, right after step ``step`` was saved."""
    advance = steps.Steps._checkpoint

    def stopping(self: Any, *args: Any) -> None:
        advance(self, *args)
        if self.place.step >= step:
            raise RuntimeError("stopped by the test")

    monkeypatch.setattr(steps.Steps, "_checkpoint", stopping)


def stopped(made: Recipe, monkeypatch: pytest.MonkeyPatch, step: int) -> Run:
    with monkeypatch.context() as patch:
        stop_after(patch, step)
        with pytest.raises(RuntimeError, match="stopped by the test"):
            train(made)
    return Run(Path(str(made.run.folder)))


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "bytes", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    file: str,
    damage: str,
) -> None:
    made = recipe(table, tmp_path / "run", loop={"checkpoint_every": 2})
    run = stopped(made, monkeypatch, 4)
    hurt(run.checkpoints / "step-4" / file, damage)
    with caplog.at_level(logging.WARNING):
        resumed = train(made, resume=True)
    (warning,) = [record.message for record in caplog.records if "damaged" in record.message]
    assert re.match(rf"checkpoint {run.checkpoints}/step-4 is damaged \(.+\); trying the one before", warning)
    assert figures(resumed) == figures(train(elsewhere(made, tmp_path / "whole")))


def hurt(path: Path, how: str) -> None:
    raw = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[: len(raw) // 2] if how == "cut" else raw[:-9] + bytes(255 - byte for byte in raw[-9:]))


def test_all_checkpoints_damaged_is_an_error(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe(table, tmp_path / "run", loop={"checkpoint_every": 2})
    run = stopped(made, monkeypatch, 4)
    for path in run.checkpoints.iterdir():
        hurt(path / "state.safetensors", "cut")
    with pytest.raises(VlkitError) as error:
        train(made, resume=True)
    assert str(error.value) == (
        f"all 2 checkpoints in {run.checkpoints} are damaged; start anew with --overwrite or another run.folder"
    )


@pytest.mark.parametrize("full", ["disk", "tensors"])
def test_a_full_disk_leaves_the_older_checkpoints(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    made = recipe(table, tmp_path / "run", loop={"checkpoint_every": 2, "keep_checkpoints": 1})
    write, calls = checkpoints.save_file, []

    def failing(tensors: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) < 3:
            write(tensors, path)
        elif full == "disk":
            raise OSError(28, "No space left on device", str(path))
        else:
            raise checkpoints.SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", failing)
    with pytest.raises(VlkitError, match=r"^cannot write .*step-6: .*No space left on device.*; free some space"):
        train(made)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-4"]
    assert figures(train(made, resume=True)) == figures(train(elsewhere(made, tmp_path / "whole")))


def test_what_a_killed_write_left_is_cleared_away(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recipe(table, tmp_path / "run", loop={"checkpoint_every": 2})
    run = stopped(made, monkeypatch, 4)
    (run.checkpoints / ".step-6.vlkit-new-abcdefgh").mkdir()
    train(made, resume=True)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-4", "step-6"]


def test_resuming_another_recipe_names_what_differs(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(table, tmp_path / "run", loop={"checkpoint_every": 2})
    stopped(made, monkeypatch, 4)
    other = recipe(
        table, tmp_path / "run", seed=3, optim={"lr": 0.5}, data={"languages": ["en"]}, loop={"log_every": 4}
    )
    with pytest.raises(VlkitError) as error:
        train(other, resume=True)
    assert str(error.value) == (
        f"cannot resume {tmp_path / 'run'}: the recipe differs in seed (0 then, 3 now), data.languages (null then, "
        f'["en"] now), optim.lr (0.003 then, 0.5 now) from {tmp_path / "run" / "recipe.yaml"}; resume with the recipe '
        f"that the run was started with, or choose another run.folder"
    )
    longer = recipe(
        table, tmp_path / "run", *made.model_dump()["stages"], {"name": "b", "trainable": ["scale"], "steps": 1}
    )
    with pytest.raises(
        VlkitError, match=r'differs in stages\.1\.name \(not there then, "b" now\), stages\.1\.trainable'
    ):
        train(longer, resume=True)
    same = recipe(table, tmp_path / "run", loop={"checkpoint_every": 5, "num_workers": 2, "log_every": 2})
    assert [line["step"] for line in train(same, resume=True).metrics()] == [1, 2, 3, 4, 6]


def test_checkpoints_of_another_recipe_are_refused(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(table, tmp_path / "run", loop={"checkpoint_every": 2})
    run = stopped(made, monkeypatch, 4)
    other = recipe(table, tmp_path / "run", seed=3)
    (run.path / "recipe.yaml").write_text(dump_yaml(other), encoding="utf-8")
    with pytest.raises(VlkitError, match=r"^the checkpoints in .*checkpoints are of another recipe; use --overwrite$"):
        train(other, resume=True)


def test_a_run_is_not_replaced_unasked(table: Path, tmp_path: Path) -> None:
    made = recipe(table, tmp_path / "run")
    with pytest.raises(VlkitError) as error:
        train(made, resume=True)
    assert str(error.value) == (
        f"nothing to resume: {tmp_path / 'run'} holds no run; leave --resume out, or check run.folder"
    )
    first = figures(train(made))
    with pytest.raises(VlkitError) as error:
        train(made)
    assert str(error.value) == (
        f"{tmp_path / 'run'} holds a run already; go on with --resume, replace it with --overwrite, or choose another "
        f"place with run.folder=..."
    )
    assert figures(Run(tmp_path / "run")) == first
    shorter = recipe(table, tmp_path / "run", {"name": "heads", "trainable": HEADS, "steps": 3})
    again = train(shorter, overwrite=True)
    assert len(again.metrics()) == 3 and again.recipe() == shorter
    assert [path.name for path in again.checkpoints.iterdir()] == ["step-3"]


def test_augmentation_that_does_not_happen_is_said(
    table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = {"sources": [{"kind": "folder", "path": str(table)}], "augment": {"flip": 0.5}}
    train(recipe(table, tmp_path / "views", data=data, loop={"views": 2}))
    assert "does nothing here" not in caplog.text
    train(recipe(table, tmp_path / "still", data=data))
    assert "data.augment does nothing here: loop.views = 1" in caplog.text


def test_a_refused_recipe_leaves_everything_as_it_was(table: Path, tmp_path: Path) -> None:
    too_big = recipe(table, tmp_path / "run", loop={"batch_size": 1000})
    with pytest.raises(VlkitError, match="batch_size = 1000"):
        train(too_big)
    assert not (tmp_path / "run").exists()
    first = figures(train(recipe(table, tmp_path / "run")))
    with pytest.raises(VlkitError, match="batch_size = 1000"):
        train(too_big, overwrite=True)
    run = Run(tmp_path / "run")
    assert figures(run) == first and run.recipe() == recipe(table, tmp_path / "run")
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-6"]


def test_a_signal_saves_the_run_and_says_how_to_go_on(table: Path, tmp_path: Path) -> None:
    made = recipe(table, tmp_path / "run", {"name": "heads", "trainable": HEADS, "steps": 20000})
    (tmp_path / "recipe.yaml").write_text(dump_yaml(made), encoding="utf-8")
    command = [sys.executable, "-m", "vlkit", "train", str(tmp_path / "recipe.yaml")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    run = Run(tmp_path / "run")
    try:
        factory.wait_for(run, 3, child)
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    step = len(run.metrics())
    assert child.returncode == 143, err
    assert err.endswith(f"stopped after step {step}; {run.path} keeps it, go on with --resume\n")
    assert "stage 1 of 1: heads, 20000 steps" in out and "image_head" in out
    state = json.loads((run.checkpoints / f"step-{step}" / "state.json").read_text())
    assert state["place"]["step"] == step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_stopped_by_a_signal_goes_on_as_if_nothing_was(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    stages = ({"name": "a", "trainable": HEADS, "steps": 3}, {"name": "b", "trainable": HEADS, "steps": 3})
    made = recipe(table, tmp_path / "run", *stages)
    step = steps.Steps._step
    for at in (2, 3, 6):  # inside the first stage, in its last step, in the very last step

        def signalled(self: Any, *args: Any, at: int = at, **kwargs: Any) -> Any:
            if self.place.step + 1 == at:
                os.kill(os.getpid(), number)
            return step(self, *args, **kwargs)

        monkeypatch.setattr(steps.Steps, "_step", signalled)
        before = signal.getsignal(number)
        said = (
            rf"stopped after step {at}; .*, go on with --resume" if at < 6 else "stopped; the run is done, .* keeps it"
        )
        with pytest.raises(KeyboardInterrupt, match=f"^{said}") as caught:
            train(made, resume=at > 2)
        assert caught.value.number == number  # type: ignore[attr-defined]
        assert Run(tmp_path / "run").model_path.exists() == (at == 6)
        assert signal.getsignal(number) is before
    monkeypatch.undo()
    assert figures(Run(tmp_path / "run")) == figures(train(elsewhere(made, tmp_path / "whole")))


def test_ctrl_c_while_features_are_computed_acts_at_once_and_keeps_them(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(table, tmp_path / "run")
    monkeypatch.setattr(frozen, "TextTable", lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(made)
    home = Path(os.environ["VLKIT_HOME"])
    assert len(list((home / "features").glob("*/*.safetensors"))) == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
