"""A disk that is really full, at whichever write: one message that says what to do; all goes on once there is room."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vlkit
from tests.helpers import encoder_factory
from tests.helpers.small_quickstart import small_quickstart
from tests.helpers.train_factory import drawings, figures, recipe
from vlkit.errors import VlkitError
from vlkit.quickstart import quickstart

WHAT = re.compile(r"cannot write .*: No space left on device; free some space or choose (a|another) place")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a disk of its own, 64 kB large."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=True)


def resize(disk: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], capture_output=True, check=True)


def tried(disk: Path, sizes: Iterable[int], act: Callable[[], Any]) -> tuple[Any, int]:
    """What a call gives on the first disk that is large enough, and how many smaller ones refused it."""
    for number, size in enumerate(sizes):
        resize(disk, size)
        try:
            return act(), number
        except VlkitError as error:
            assert WHAT.match(str(error)), error
    raise AssertionError(f"no disk of {sizes} was large enough")


def leftovers(disk: Path) -> list[str]:
    return [str(path) for path in disk.rglob(".*")]


def test_training_goes_on_where_the_disk_was_full(disk: Path, tmp_path: Path) -> None:
    made = recipe(drawings(tmp_path / "data"), disk / "run", loop={"checkpoint_every": 2})

    def act() -> Any:
        return vlkit.train(made, resume=(disk / "run" / "recipe.yaml").exists())

    run, refused = tried(disk, range(4, 1500, 40), act)
    assert refused >= 3 and leftovers(disk) == []
    whole = vlkit.train(recipe(tmp_path / "data" / "table.jsonl", tmp_path / "whole", loop={"checkpoint_every": 2}))
    assert figures(run) == figures(whole)


@pytest.mark.parametrize(("format", "step"), [("open_clip", 1500), ("transformers", 25)])
def test_an_export_is_refused_and_the_old_one_stays(disk: Path, tmp_path: Path, format: Any, step: int) -> None:
    made = encoder_factory.open_clip_folder if format == "open_clip" else encoder_factory.clip
    model = vlkit.load(made(tmp_path / "source"))
    (disk / "m").mkdir()
    exported, refused = tried(
        disk, range(8, 30_000, step), lambda: vlkit.export(model, disk / "m", format=format, overwrite=True)
    )
    assert refused >= 2 and exported.folder == disk / "m"
    before = {path.name: path.read_bytes() for path in (disk / "m").iterdir()}
    with pytest.raises(VlkitError, match=WHAT):  # there is no room for two
        vlkit.export(model, disk / "m", format=format, overwrite=True)
    assert {path.name: path.read_bytes() for path in (disk / "m").iterdir()} == before and leftovers(disk) == []


def test_a_model_that_is_saved_is_whole_or_not_there(disk: Path) -> None:
    model = vlkit.load("tiny")
    _, refused = tried(disk, range(4, 2000, 40), lambda: vlkit.save(model, disk / "m"))
    assert refused >= 2 and leftovers(disk) == [] and vlkit.load(disk / "m").spec == model.spec


def test_a_quickstart_goes_on_where_the_disk_was_full(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_quickstart(monkeypatch, tmp_path / "data")

    def act() -> Any:
        return quickstart(disk / "q", resume=True)

    done, refused = tried(disk, (4, 24, 60, 100, 150, 200, 250, 300, 6000), act)
    assert refused >= 4 and leftovers(disk) == []
    assert done.results.rows == (whole := quickstart(tmp_path / "whole")).results.rows
    resize(disk, (shutil.disk_usage(disk).used >> 10) + 8)
    with pytest.raises(VlkitError, match=WHAT):
        quickstart(disk / "q", overwrite=True)
    assert vlkit.load(disk / "q" / "model") and leftovers(disk) == []
    resize(disk, 6000)
    assert quickstart(disk / "q", resume=True).results.rows == whole.results.rows
