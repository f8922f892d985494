"""What README and docs show exists: every command parses, every recipe resolves, the Python examples run."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import vlkit
from vlkit.cli.app import app
from vlkit.evaluation.suite import read_suite
from vlkit.spec.describe import explain
from vlkit.spec.load import load_recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(vlkit [a-z][^`]*)`")


def blocks(*languages: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, (language, text) in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8")))
        if language in languages
    ]


def commands() -> list[str]:
    """Commands within the text; those in blocks are in ``tests/docs``."""
    texts = [_BLOCK.sub("", page.read_text(encoding="utf-8")) for page in PAGES]
    return sorted({inline for text in texts for inline in _INLINE.findall(text) if "..." not in inline})


def parse(command: str) -> tuple[str, dict[str, Any]]:
    """The command's name and what its arguments are; wrong options raise."""
    words = shlex.split(command, comments=True)[1:]
    group: Any = typer.main.get_command(app)
    name, found, rest = group.resolve_command(group.make_context("vlkit", words, resilient_parsing=True), words)
    while hasattr(found, "resolve_command"):
        below, found, rest = found.resolve_command(found.make_context(name, list(rest), resilient_parsing=True), rest)
        name = f"{name} {below}"
    # commands are named in the text without their arguments; their options are checked all the same
    return name, found.make_context(name, list(rest), resilient_parsing=not rest).params


def test_there_are_commands_to_check() -> None:
    assert {"quickstart", "train", "show", "classify", "data info", "list", "doctor"} <= {
        parse(command)[0] for command in commands()
    }


@pytest.mark.parametrize("command", commands())
def test_commands_exist_with_their_options(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, given = parse(command)
    named = given.get("recipe")
    if name in ("train", "show") and named and named != "RECIPE" and not named.endswith(".yaml"):
        load_recipe(named, given["overrides"] or ())
    if name == "explain":
        assert explain(given["key"])
    if name == "list":
        assert hasattr(importlib.import_module("vlkit.cli.list"), given["kind"])


def test_a_wrong_option_would_be_seen() -> None:
    with pytest.raises(Exception, match="--labelz"):
        parse("vlkit classify cat.jpg --labelz cat")


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipes_resolve(text: str, tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(text, encoding="utf-8")
    if re.search(r"^tasks:", text, re.MULTILINE):
        assert read_suite(str(path)).tasks
    else:
        assert load_recipe(str(path)).stages


@pytest.mark.parametrize("text", blocks("python"))
def test_python_names_exist(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vlkit":
            assert getattr(vlkit, node.attr)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert getattr(importlib.import_module(node.module or ""), alias.name)


@pytest.mark.parametrize("text", [block for block in blocks("python") if "ZeroShotClassifier" in block.values[0]])
def test_classifier_examples_run(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    vlkit.save(vlkit.load("tiny"), "runs/quickstart/model")
    for name in ("cat.jpg", "rocket.jpg"):
        Image.new("RGB", (40, 30), "red").save(name)
    exec(compile(text, "README", "exec"), {})
    assert re.search("Katze|Hund|Rakete", capsys.readouterr().out)


@pytest.mark.parametrize("text", [block for block in blocks("json") if '"image' in block.values[0]])
def test_tables_shown_are_read(text: str, tmp_path: Path) -> None:
    from vlkit.data.sources.open import open_path

    table = tmp_path / "pairs.jsonl"
    table.write_text(text, encoding="utf-8")
    for name in ("cat.jpg", "coffee.png", "rocket.jpg"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"")
    assert len(open_path(str(table))) == len(text.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    made_later = {"docs/images/quickstart.png"}
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert target in made_later or (page.parent / target).exists(), target
