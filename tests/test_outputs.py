"""What a command may write to: nothing of others is replaced, nothing that it reads; one process writes at a time."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlkit.errors import VlkitError
from vlkit.outputs import check_folder, check_replaceable, locked, refuse_inputs

SPAWN = multiprocessing.get_context("spawn")


def replaceable(target: Path, **options: Any) -> bool:
    def made(folder: Path) -> bool:
        return (folder / "mark").is_file()

    return check_replaceable(target, what="a model", made=made, names=("mark", "part-*.bin"), **options)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(VlkitError) as caught:
        act()
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_what_vlkit_wrote_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "m"
    assert not replaceable(target)
    target.mkdir()
    (target / ".DS_Store").touch()
    assert not replaceable(target)
    (target / "part-1.bin").touch()
    assert refused(lambda: replaceable(target)) == (
        f"{target} holds something else than a model (part-1.bin), and all of it would be replaced; choose a new folder"
    )
    (target / "mark").touch()
    assert replaceable(target)
    for name in ("notes.txt", ".git", "photos", "part-x.csv"):
        (target / name).mkdir()
    assert refused(lambda: replaceable(target)) == (
        f"{target} holds a model and beside it .git, notes.txt, part-x.csv and 1 more, which vlkit did not write and "
        f"would delete; move that away, or choose a new folder"
    )


@pytest.mark.parametrize("written", ["{}", "hf:{}", "{}/part", "{}/../m"])
def test_an_input_is_never_replaced(tmp_path: Path, written: str) -> None:
    target = tmp_path / "m"
    (target / "part").mkdir(parents=True)
    (target / "mark").touch()
    given = written.format(target)
    assert refused(lambda: replaceable(target, inputs=["tiny", "", "\0", "~nobody/x", "x" * 5000, given])) == (
        f"{target} would be replaced and holds {given}, which is read here; choose another place"
    )
    (tmp_path / "link").symlink_to(target)
    assert "which is read here" in refused(lambda: refuse_inputs(target, [tmp_path / "link"]))
    assert "which is read here" in refused(lambda: refuse_inputs(tmp_path / "link", [target]))
    refuse_inputs(target, [tmp_path, tmp_path / "model", "m"])  # around it, beside it, of a like name


def test_a_place_that_can_be_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    file, link = tmp_path / "file", tmp_path / "link"
    assert refused(lambda: check_folder(file)) == f"{file} is a file; choose a folder"
    assert refused(lambda: check_folder(file / "deep" / "run")) == f"{file} is a file; choose a folder"
    broken = (
        f"{link} is a link to {tmp_path / 'gone'}, which is not there; remove the link, or make the folder that it "
        f"leads to"
    )
    assert refused(lambda: check_folder(link)) == broken == refused(lambda: check_folder(link / "run"))
    long = tmp_path / ("x" * 300)
    assert refused(lambda: check_folder(long)) == f"cannot write {long}: File name too long; choose another place"
    (tmp_path / "gone").mkdir()
    for fine in (link, link / "run", tmp_path / ("ü" * 120), tmp_path / "a" / "b"):
        check_folder(fine)
    assert names(tmp_path) == ["file", "gone", "link"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o555)
    assert "cannot be written to" in refused(lambda: check_folder(tmp_path / "a" / "b"))


def _hold(folder: Path, ready: Any, end: Any) -> None:
    sys.argv = ["vlkit", "train", "mine"]
    with locked(folder):
        ready.set()
        end.wait(60)


def test_another_process_is_named_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    target, ready, end = tmp_path / "run", SPAWN.Event(), SPAWN.Event()
    child = SPAWN.Process(target=_hold, args=(target, ready, end))
    child.start()
    ready.wait(60)

    def enter() -> None:
        with locked(target):
            pass

    said = refused(enter)
    assert said.startswith(f"{target} is being written by process {child.pid} on {socket.gethostname()} since 20")
    assert said.endswith("(vlkit train mine); wait until it ends, stop it, or choose another place")
    child.kill()
    child.join()
    assert names(target) == [".lock"]
    with locked(target):
        (target / "metrics").touch()
    assert names(target) == ["metrics"]


def test_a_place_that_no_folder_can_be_made_in_is_told_and_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "mkdir", gone)  # as in /proc, or on a disk that has gone
    said = "cannot write /x/run: no folder can be made there; choose another place"
    assert refused(lambda: locked(Path("/x/run")).__enter__()) == said


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong recipe"), locked(tmp_path / "run"):
        raise ValueError("wrong recipe")
    assert names(tmp_path) == []
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        assert names(tmp_path / "run") == [".lock"]
    assert names(tmp_path) == ["run"]


def test_a_thread_may_lock_twice_and_another_one_may_not(tmp_path: Path) -> None:
    told: list[str] = []

    def other() -> None:
        told.append(refused(lambda: locked(tmp_path / "run").__enter__()))

    with locked(tmp_path / "run"), locked(tmp_path / "x" / ".." / "run"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert told == [
        f"{tmp_path / 'run'} is being written by another part of this process; wait until it ends, stop it, or choose "
        f"another place"
    ]
