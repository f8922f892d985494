"""What README and docs show can be pasted: commands run in a scratch folder, and print what the page says they print.

A comment above a block says what it needs that a test has not (``<!-- needs: hub -->``); its commands are then checked
without being run: shells leave them as they are, options and values are those the command takes, recipes and suites
resolve, languages and published tables are there; test_dry_runs makes those that have it with ``--dry-run``.
``<!-- file: own.yaml -->`` says where a reader saves a block.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import vlkit
from tests.docs.pages import NEEDS, PAGES, ROOT, Block, blocks, unquoted_signs, words
from vlkit.cli.app import app
from vlkit.cli.help import EXAMPLES
from vlkit.evaluation.compare.reference import reference
from vlkit.evaluation.suite import read_suite
from vlkit.languages import normalize
from vlkit.spec.load import load_recipe, shipped_recipes, shipped_suites

SHELLS = [shell for shell in ("bash", "zsh") if shutil.which(shell)]
BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [block for block in BLOCKS if block.language in ("bash", "console")]
PLACEHOLDERS = ("MODEL", "SUITE", "RECIPE", "ID", "ONE", "OTHER")


def named(block: Block) -> str:
    return block.name


def test_pages_say_what_blocks_need_in_known_words() -> None:
    assert set().union(*(block.needs for block in BLOCKS)) <= NEEDS
    marked = sum(page.read_text(encoding="utf-8").count("<!-- needs:") for page in PAGES)
    assert marked == sum(bool(block.needs) for block in BLOCKS)  # each stands right above its block
    assert len(COMMANDS) > 30 and sum(not block.needs for block in COMMANDS) > 3
    assert {block.language for block in BLOCKS} <= {
        "bash",
        "console",
        "python",
        "yaml",
        "json",
        "csv",
        "text",
        "bibtex",
        "",
    }


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that print their words instead of doing anything, before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("vlkit", "torchrun", "make", "pip"):
        script = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(['{name}', *sys.argv[1:]]))\n"
        (folder / name).write_text(script, encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def as_shells_read(command: str) -> list[str]:
    """The words of a command as bash and, where it is there, zsh give them to the program."""
    read = []
    for shell in SHELLS:
        ran = subprocess.run([shell, "-c", command], capture_output=True, text=True, check=False)
        assert ran.returncode == 0 and ran.stderr == "", (shell, command, ran.stderr)
        read.append(json.loads(ran.stdout))
    assert all(one == read[0] for one in read)
    found: list[str] = read[0]
    return found


def parse(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The command's name and what its arguments are; wrong options raise."""
    group: Any = typer.main.get_command(app)
    name, found, rest = group.resolve_command(group.make_context("vlkit", arguments, resilient_parsing=True), arguments)
    while hasattr(found, "resolve_command"):
        below, found, rest = found.resolve_command(found.make_context(name, list(rest), resilient_parsing=True), rest)
        name = f"{name} {below}"
    return name, found.make_context(name, list(rest)).params


def check(arguments: list[str]) -> None:
    """Options and values of a command, without running it."""
    name, given = parse(arguments)
    recipe, suite = given.get("recipe"), given.get("suite")
    if recipe is not None and name in ("train", "show") and recipe in shipped_recipes():
        assert load_recipe(recipe, given["overrides"] or ()).stages
    elif recipe is not None and not recipe.endswith(".yaml"):
        assert recipe in PLACEHOLDERS, recipe
    if suite is not None and suite in shipped_suites():
        assert read_suite(suite, given["overrides"] or ()).tasks
    elif suite is not None and not suite.endswith(".yaml"):
        assert suite in PLACEHOLDERS, suite
    texts = {key: value for key, value in given.items() if isinstance(value, str)}
    for code in ",".join(texts.get(key, "") for key in ("language", "languages", "pivot")).split(","):
        assert not code or normalize(code)
    for scores in (texts.get("one", ""), texts.get("other", "")):
        if scores.startswith("reference:"):
            table, _, model = scores.removeprefix("reference:").partition("/")
            assert reference(table).of(model) if model else reference(table)


@pytest.mark.parametrize("block", COMMANDS, ids=named)
def test_shells_and_commands_take_what_is_shown(
    block: Block, bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert block.commands
    for command, _ in block.commands:
        assert unquoted_signs(command) == [], command
        if re.match(r"(vlkit|torchrun) [^|>]*$", command):
            arguments = as_shells_read(command)
            assert arguments == words(command) if arguments[0] == "vlkit" else arguments[0] == "torchrun"
            check(words(command)[1:])
        elif words(command):
            check(words(command.partition(">")[0])[1:])


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_of_the_help_can_be_pasted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example in EXAMPLES[name]:
        assert unquoted_signs(example) == [] and words(example)
        check(words(example)[1:])
    assert any(parse(words(example)[1:])[0].startswith(name) for example in EXAMPLES[name])


def test_a_wrong_option_or_an_open_bracket_would_be_seen() -> None:
    with pytest.raises(Exception, match="--labelz"):
        check(words("vlkit classify cat.jpg --labelz cat")[1:])
    with pytest.raises(vlkit.VlkitError, match="lrr"):
        check(words("vlkit train contrastive/tiny optim.lrr=1")[1:])
    assert unquoted_signs("vlkit train x data.languages=[en,de]") == ["[", "]"]
    assert unquoted_signs("vlkit list recipes  # all of them") == ["#"]
    assert unquoted_signs("""vlkit data info 'shards/{0..9}.tar' "a [b]" c#d""") == []


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the pictures that pages speak of."""
    folder = tmp_path / "scratch"
    for place in ("", "images", "own/images", "photos/cat", "photos/dog"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(("cat.jpg", "coffee.png", "rocket.jpg")):
            Image.new("RGB", (40, 30), (80 * number, 100, 50)).save(folder / place / name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    yield folder


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if not block.needs and (block.file or block in COMMANDS)]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block in COMMANDS for block in runnable(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_commands_run_as_pasted(page: Path, scratch: Path, bin_folder: Path) -> None:
    for block in runnable(page):
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
            continue
        for command, output in block.commands:
            ran = CliRunner().invoke(app, as_shells_read(command)[1:])
            wanted = 2 if output.startswith("error:") else 0
            assert ran.exit_code == wanted, f"{block.name}: {command}\n{ran.output}\n{ran.exception!r}"
            if output:
                same_output(ran.output, output)


def same_output(found: str, shown: str) -> None:
    """Texts are equal line by line (but for ``...``), figures but for the last digit; bars are not compared."""
    number = re.compile(r"-?\d+\.\d+")
    left, right = (
        [re.sub(r"[\u2580-\u259f]+", "", line).split() for line in text.splitlines() if line.strip()]
        for text in (found, shown)
    )
    for wanted in right:
        if wanted == ["..."]:
            continue
        texts = [number.sub("N", word) for word in wanted]
        if right[max(0, right.index(wanted) - 1)] == ["..."]:
            while left and [number.sub("N", word) for word in left[0]] != texts:
                left.pop(0)
        assert left, f"not printed: {' '.join(wanted)}"
        ours = left.pop(0)
        assert [number.sub("N", word) for word in ours] == texts
        for one, other in zip(number.findall(" ".join(ours)), number.findall(" ".join(wanted)), strict=True):
            assert abs(float(one) - float(other)) <= 2.1 * 10.0 ** -len(other.partition(".")[2]), (ours, wanted)
    assert not left or right[-1] == ["..."], f"not shown: {left}"


def test_other_outputs_would_be_seen() -> None:
    same_output("a  \u2588\u258c 52.6 %", "a 52.5 %\n")
    for other in ("a 53.0 %", "b 52.6 %", "a 52.6 %\nb"):
        with pytest.raises(AssertionError):
            same_output("a 52.6 %", other)


QUICKSTART = ROOT / "runs/quickstart"
SHOWN = [
    (block, after)
    for page in PAGES
    for block, after in zip_longest(blocks(page), blocks(page)[1:])
    if block.needs == {"quickstart"}
    and (block.language == "console" or (block.language == "python" and after is not None))
]


@pytest.mark.skipif(not (QUICKSTART / "model").is_dir(), reason="needs the model of make quickstart in runs/")
@pytest.mark.parametrize(("block", "after"), SHOWN, ids=lambda one: one.name if isinstance(one, Block) else "")
def test_answers_shown_are_those_of_the_quickstart(
    block: Block,
    after: Block | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = pytest.importorskip("skimage.data")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/quickstart").symlink_to(QUICKSTART)
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "coffee", "rocket"):
        Image.fromarray(getattr(data, name)()).save(f"{name}.jpg")
    if block.language == "console":
        for command, output in block.commands:
            ran = CliRunner().invoke(app, words(command)[1:])
            assert ran.exit_code == 0, ran.output
            same_output(ran.stdout, output)
    else:
        exec(compile(block.text, block.name, "exec"), {})
        printed = capsys.readouterr().out
        if after is not None and after.language == "text":
            same_output(printed, after.text)
