"""Commands of README and docs that need what a test has not: those that have ``--dry-run`` are made with it.

A dry run of training builds the model that would train, one of evaluation opens the suite. Recipes that name parts of
the hub are given small ones in their place. Of data that the reader brings, a dry run may say that it is not there, and
nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vlkit
from tests.docs.pages import PAGES, Block, blocks, words
from tests.helpers import encoder_factory as factory
from tests.helpers.vision_language import tiny as tiny_vlm
from vlkit.cli.app import app
from vlkit.models.registry import build
from vlkit.spec.image_tokenizers import ConvTokenizerSpec
from vlkit.spec.model import ImageTokenizerModelSpec

AGAIN = {"--resume", "--overwrite", "--dry-run"}
HUB: dict[str, Callable[[Path], Path]] = {
    "contrastive/lit": factory.xlm_roberta,
    "contrastive/nllb_clip": factory.nllb,
}
"""Recipes whose text part comes from the hub: what makes one of its kind."""
STANDS_FOR = {"RECIPE": "contrastive/tiny", "MODEL": "tiny", "SUITE": "openmoji"}


def rehearsals(block: Block) -> list[list[str]]:
    """The arguments of the commands of a block that have ``--dry-run``, each once."""
    found = []
    for command, _ in block.commands:
        arguments = [word for word in words(command.partition(">")[0])[1:] if word not in AGAIN]
        if arguments[:1] in (["train"], ["eval"]) and arguments not in found:
            found.append(arguments)
    return found


MARKED = [
    pytest.param(block, marks=[pytest.mark.assets] * bool(block.needs & {"parts", "quickstart"}), id=block.name)
    for page in PAGES
    for block in blocks(page)
    if block.needs and block.language in ("bash", "console") and rehearsals(block)
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small text parts, by the recipe that they are for."""
    folder = tmp_path_factory.mktemp("hub")
    for recipe, make in HUB.items():
        make(folder / recipe)
    return folder


@pytest.fixture
def world(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small models where commands leave theirs, and a text part where a page puts one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nllb").symlink_to(hub / "contrastive/nllb_clip")
    for name in ("model", "english_only/model"):
        vlkit.save(vlkit.load("tiny"), tmp_path / "runs/quickstart" / name)
    for name in ("pictures", "pictures-english"):
        vlkit.save(tiny_vlm(), tmp_path / "runs" / name / "model")
    spec = ImageTokenizerModelSpec(tokenizer=ConvTokenizerSpec(image_size=16, widths=(8,), levels=(5, 3)))
    vlkit.save(build(spec), tmp_path / "runs/tokenizer_tiny/model")
    return tmp_path


@pytest.mark.parametrize("block", MARKED)
def test_dry_runs_of_what_needs_more(block: Block, world: Path, hub: Path) -> None:
    for other in blocks(block.page):
        if other.file:
            (world / other.file).parent.mkdir(exist_ok=True)
            (world / other.file).write_text(other.text, encoding="utf-8")
    before = sorted(world.rglob("*"))
    for given in rehearsals(block):
        arguments = [STANDS_FOR.get(word, word) for word in given]
        if arguments[1] in HUB and not any(word.startswith("model.text.name=") for word in arguments):
            arguments.append(f"model.text.name={hub / arguments[1]}")
        ran = CliRunner().invoke(app, [*arguments, "--dry-run"])
        if arguments[0] == "eval" and ran.exit_code == 2:
            told = ran.stderr.removeprefix("error: ").splitlines()
            assert told and all(is_missing(line, arguments) for line in told), ran.stderr
        else:
            assert ran.exit_code == 0, f"{arguments}\n{ran.output}\n{ran.exception!r}"
            assert re.search(r"dry run: nothing was \w+ and nothing was written\n$", ran.stdout)
    assert sorted(world.rglob("*")) == before


def is_missing(line: str, arguments: list[str]) -> bool:
    """Whether a line says of something that a command names that it is not there."""
    named = re.findall(r"[\w./*-]{4,}", " ".join(word.partition("=")[2] or word for word in arguments[1:]))
    return bool(re.search("no such|no shard matches", line)) and any(name in line for name in named)


def test_other_faults_are_not_taken_for_missing_data() -> None:
    given = ["eval", "tiny", "retrieval", "tasks.0.source.path=pairs.csv", "languages=[en,qq]"]
    assert is_missing("pairs.csv: no such table", given)
    for line in (
        "captions.csv: no such table",
        "no language 'qq'. See vlkit list languages.",
        "pairs.csv:2: no caption",
    ):
        assert not is_missing(line, given)
