"""Ctrl-C and SIGTERM at any moment of a command: exit code, one line on how to go on, and nothing left half-made."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from tests.helpers import encoder_factory
from tests.helpers.data_factory import wheel
from tests.helpers.font_factory import small_font
from tests.helpers.small_quickstart import small_quickstart
from tests.helpers.train_factory import HEADS, drawings, recipe
from vlkit.cli import interrupts
from vlkit.cli.app import app
from vlkit.data.build import builders
from vlkit.files import sha256
from vlkit.spec.load import dump_yaml

Command = tuple[list[str], Callable[[str], list[str]]]
"""Arguments, and those to go on with, given what was said."""
REGIONS = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AZ BA BB BD BE BF BG BH BI BJ BM BN BO BR BS BT BW BY BZ CA CD CF CG CH
CI CL CM CN CO CR CU CV CY CZ DE DJ DK DM DO DZ EC EE EG ER ES ET FI FJ FM FR GA GB GD GE GH GM GN GQ GR GT GY HN
"""
FLAGS = ["".join(chr(0x1F1E6 + ord(letter) - ord("A")) for letter in region) for region in REGIONS.split()]
_made: dict[str, Path] = {}
_patches: list[pytest.MonkeyPatch] = []
_whole: dict[str, tuple[int, int, dict[str, str]]] = {}
_calls = {"process": 0, "seen": 0, "at": 0, "signal": 0}


def _count(event: str, _: tuple[object, ...]) -> None:
    """Sends this process a signal at a call to the system, whichever; no audit hook can be taken away again."""
    if _calls["process"] == os.getpid() and event.startswith(("os.", "open", "shutil.", "tempfile.", "mmap.")):
        _calls["seen"] += 1
        if _calls["seen"] == _calls["at"]:
            os.kill(os.getpid(), _calls["signal"])


@pytest.fixture(scope="module", autouse=True)
def hooked() -> Iterator[None]:
    sys.addaudithook(_count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "fetch_wheel", lambda name: _made["wheel"])
        _patches[:] = [patch]
        yield


@pytest.fixture(autouse=True)
def _no_signal_after_a_test() -> Iterator[None]:
    yield
    _calls["process"] = 0


def run(arguments: list[str], *, number: int = 0, at: int = 0) -> tuple[int, list[str]]:
    """Exit code, and what was said on standard error; ``at`` so many calls it gets a signal."""
    there = psutil.Process().children()  # of other tests
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.raise_on_sigterm()
    _calls.update(process=os.getpid(), seen=0, at=at, signal=number)
    result = CliRunner().invoke(app, arguments)
    _calls["process"] = 0
    end = time.monotonic() + 10
    while left := [child for child in psutil.Process().children() if child not in there]:
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.02)
    return result.exit_code, result.stderr.splitlines()


def train(folder: Path) -> Command:
    made = recipe(
        drawings(folder / "data"), folder / "out" / "run", {"name": "heads", "trainable": HEADS, "steps": 5},
        loop={"num_workers": 1, "cache_features": False, "checkpoint_every": 2},
    )  # fmt: skip
    (folder / "recipe.yaml").write_text(dump_yaml(made), encoding="utf-8")
    arguments = ["train", str(folder / "recipe.yaml")]
    return arguments, lambda said: [*arguments, *(["--resume"] if "--resume" in said else [])]


def export(folder: Path) -> Command:
    source = encoder_factory.open_clip_folder(folder / "oc")
    arguments = ["export", str(source), "--format", "open_clip", "--out", str(folder / "out" / "m")]
    return arguments, lambda said: arguments


def evaluation(folder: Path) -> Command:
    table, suite = drawings(folder / "data"), folder / "suite.yaml"
    suite.write_text(
        f"languages: [en, de]\ntasks: [{{kind: retrieval, name: drawings, source: {{kind: folder, path: {table}}}}}]\n",
        encoding="utf-8",
    )
    arguments = ["eval", "tiny", str(suite), "--out", str(folder / "out" / "scores")]
    return arguments, lambda said: [*arguments, *(["--resume"] if (folder / "out" / "scores").exists() else [])]


def shard(folder: Path) -> Command:
    arguments = ["data", "shard", str(drawings(folder / "data", 40)), "--out", str(folder / "out" / "shards")]
    arguments += ["--per-shard", "5", "--workers", "2"]
    return arguments, lambda said: arguments


def build(folder: Path) -> Command:
    _made["wheel"] = wheel(folder / "drawings.whl", FLAGS)
    arguments = ["data", "build", "flags", "--out", str(folder / "out" / "flags"), "--image-size", "16"]
    return arguments, lambda said: arguments


def written(folder: Path) -> list[str]:
    """A font, and words to draw with it."""
    small_font(folder / "fonts" / "small.ttf", "".join(map(chr, range(0x20, 0x7F))))
    (folder / "texts").mkdir()
    words = "ant bear cat dog eel fox gnu hen ibis jay kiwi lynx".replace(" ", "\n")
    (folder / "texts" / "en.txt").write_text(words + "\n", encoding="utf-8")
    return ["--languages", "en", "--fonts", str(folder / "fonts")]


def plots(folder: Path) -> Command:
    arguments = ["data", "build", "smpqa", *written(folder), "--words", str(folder / "texts"), "--count", "4"]
    arguments += ["--out", str(folder / "out" / "plots")]
    return arguments, lambda said: arguments


def pages(folder: Path) -> Command:
    arguments = ["data", "build", "ocr", *written(folder), "--texts", str(folder / "texts"), "--count", "6"]
    arguments += ["--image-size", "128", "--characters", "30", "--out", str(folder / "out" / "pages")]
    return arguments, lambda said: arguments


def quickstart(folder: Path) -> Command:
    small_quickstart(_patches[0], folder / "data")
    arguments = ["quickstart", "--out", str(folder / "out" / "q")]
    return arguments, lambda said: [*arguments, *(["--resume"] if "--resume" in said else [])]


COMMANDS: dict[str, Callable[[Path], Command]] = {
    "train": train, "export": export, "eval": evaluation, "shard": shard, "build": build, "quickstart": quickstart,
    "plots": plots, "pages": pages,
}  # fmt: skip
REPLACING = {"export": ["--overwrite"], "shard": ["--overwrite"], "build": [], "plots": [], "pages": ["--overwrite"]}
PARTS = {
    "quickstart": (0, 3, 4, 7),
    "plots": (2, 5, 7),
    "pages": (2, 5, 7),
}  # of eight, in which a signal comes; by default all


def weights(folder: Path) -> dict[str, str]:
    """Digests of the models that a command wrote."""
    out = folder / "out"
    return {str(path.relative_to(out)): sha256(path) for path in out.rglob("model*.safetensors")}


def measured(name: str, folders: pytest.TempPathFactory) -> tuple[int, int, dict[str, str]]:
    """How many calls a command makes before it is chosen, how many from its start to its end, and its models."""
    folder = folders.mktemp("whole")
    arguments, _ = COMMANDS[name](folder)
    assert run(arguments)[0] == 0
    arguments, _ = COMMANDS[name](folders.mktemp("again"))  # with everything imported
    code, said = run(arguments)
    assert code == 0 and _calls["seen"] > 30, said
    calls = _calls["seen"]
    run(["no such command"])
    return _calls["seen"] + 1, calls, weights(folder)


@pytest.mark.parametrize(("name", "part"), [(name, part) for name in COMMANDS for part in PARTS.get(name, range(8))])
def test_a_signal_ends_a_command_that_then_goes_on(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str, part: int
) -> None:
    if name not in _whole:
        _whole[name] = measured(name, tmp_path_factory)
    first, calls, models = _whole[name]
    arguments, again = COMMANDS[name](tmp_path)
    number = (signal.SIGINT, signal.SIGTERM)[part % 2]
    at = random.SystemRandom().randrange(first + (calls - first) * part // 8, first + (calls - first) * (part + 1) // 8)
    code, said = run(arguments, number=number, at=at)
    where = f"signal {number.name} at call {at} of {calls}: exit code {code}, {said[-4:]}"
    if code == 0:  # its work was done: the last step of a training, a table that was being printed
        further = [*arguments, *REPLACING[name]] if name in REPLACING else again("--resume")
        assert part >= 5 and run(further)[0] == 0, where
        return
    assert code == 128 + number, where
    assert said[-1].startswith("stopped") and ("same command again" in said[-1] or "--resume" in said[-1]), where
    code, after = run(again(said[-1]))
    assert code == 0 and weights(tmp_path) == models, (where, after)
    assert sorted(path.name for path in (tmp_path / "out").rglob(".*")) == [], where
