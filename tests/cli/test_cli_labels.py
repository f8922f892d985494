"""`vlkit labels build omw` and `vlkit labels check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlkit.cli.app import app

ROWS = [("01440764", "Schleie"), ("01443537", "Goldfisch"), ("01484850", "Hai"), ("01491361", "Hai")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    lines = ["# Net\tdeu\thttp://x\tCC BY", *(f"{offset}-n\tdeu:lemma\t{form}" for offset, form in ROWS)]
    (tmp_path / "wn-data-deu.tab").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def test_build_then_check(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "labels.json"
    made = CliRunner().invoke(
        app, ["labels", "build", "omw", "--source", str(source), "--out", str(target), "--min-classes", "4"]
    )
    assert made.exit_code == 0, made.output
    assert f"2 languages, 1,004 class names, written to {target}" in made.stderr
    checked = CliRunner().invoke(app, ["labels", "check", str(target), "--json"])
    found = json.loads(checked.stdout)["languages"]["de"]
    assert (found["n_classes"], found["n_ambiguous"], found["scripts"]) == (4, 2, {"LATIN": 4})
    table = CliRunner().invoke(app, ["labels", "check", str(target)])
    assert table.exit_code == 0 and "ambiguous" in table.stdout and "Latin" in table.stdout


def test_what_is_wrong_is_said_and_nothing_written(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "labels.json"
    made = CliRunner().invoke(app, ["labels", "build", "omw", "--source", str(source), "--out", str(target)])
    assert made.exit_code == 2 and "names 10 ImageNet classes; lower min_classes" in made.stderr
    assert not target.exists()
    other = CliRunner().invoke(app, ["labels", "build", "wordnet", "--source", str(source)])
    assert other.exit_code == 2 and "no label source 'wordnet'" in other.stderr
    missing = CliRunner().invoke(app, ["labels", "check", str(target)])
    assert missing.exit_code == 2 and "no such file" in missing.stderr
