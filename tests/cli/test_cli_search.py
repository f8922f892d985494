"""`vlkit index` and `vlkit search` as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.helpers.evaluate_fakes import picture
from vlkit.cli.app import app


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(3):
        picture(number).save(f"photos/{number}.png")
    Path("photos/bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    return lambda *arguments: CliRunner().invoke(app, [*arguments])


def test_a_folder_is_indexed_and_found_in(run: Callable[..., Any], tmp_path: Path) -> None:
    made = run("index", "photos", "--out", "ix", "--model", "tiny")
    assert made.exit_code == 0, made.stderr
    assert "ix: 3 images (3 embedded now, 0 known)" in made.stderr and made.stdout == ""
    assert "left out: cannot read image" in made.stderr and "bad.png" in made.stderr
    again = json.loads(run("index", "photos", "--out", "ix", "--model", "tiny", "--json").stdout)
    assert (again["images"], again["embedded"], again["known"], list(again["unreadable"])) == (3, 0, 3, ["bad.png"])
    found = run("search", "قارچ", "a cat", "--index", "ix", "-k", "2", "--out", "found.html")
    assert found.exit_code == 0, found.stderr
    lines = [line.split() for line in found.stdout.splitlines() if line.strip()]
    assert lines[0] == ["قارچ"] and lines[1] == ["rank", "cosine", "image"] and len(lines) == 8
    assert [line[0] for line in lines if line[0].isdigit()] == ["1", "2", "1", "2"]
    assert "page: found.html" in found.stderr and "data:image/jpeg" in Path("found.html").read_text(encoding="utf-8")
    plain = json.loads(run("search", "--image", "photos/1.png", "--index", "ix", "-k", "1", "--json").stdout)
    assert plain["queries"] == [{"query": "photos/1.png", "images": [{"rank": 1, "image": "1.png", "score": 1.0}]}]


def test_all_that_is_wrong_is_told_before_a_model_is_loaded(run: Callable[..., Any]) -> None:
    wrong = run("index", "gone", "--out", "ix")
    assert wrong.exit_code == 2
    assert (
        "gone: no such file or folder" in wrong.stderr and "there is no model in runs/quickstart/model" in wrong.stderr
    )
    wrong = run("search", "--index", "nowhere", "--language", "xx-none", "--out", "page.pdf")
    assert wrong.exit_code == 2
    for said in ("nothing to look for", "no language 'xx-none'", "name that ends in .html", "nowhere is no index"):
        assert said in wrong.stderr
