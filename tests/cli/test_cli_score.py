"""`vlkit score`: tables and JSON by language, what is wrong is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlkit.cli.app import app

PROMPTS = '{"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a dog"}\n'
FOUND = [{"prompt": 0, "language": "en", "objects": [{"class": "dog", "score": 0.9, "box": [0, 0, 9, 9]}]},
         {"prompt": 0, "language": "hi", "objects": []}]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text(PROMPTS, encoding="utf-8")
    for row in FOUND:
        Path(f"{row['language']}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return tmp_path


def test_geneval_of_several_files(folder: Path) -> None:
    asked = ["score", "geneval", "prompts.jsonl", "en.jsonl", "hi.jsonl"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0 and "GenEval: 50.0 ± 70.7 over 2 languages" in shown.stdout
    assert "single_object" in shown.stdout and "hi" in shown.stdout
    told = CliRunner().invoke(app, [*asked, "--json", "--out", "all.json"])
    assert json.loads(told.stdout)["mean"] == 0.5 == json.loads((folder / "all.json").read_text())["mean"]


def test_dpg_with_and_without_the_quirks(folder: Path) -> None:
    rows = "item_id,proposition_id,dependency,category_broad,category_detailed\na,1,0,entity,whole\na,2,1,other,text\n"
    Path("dpg.csv").write_text(rows, encoding="utf-8")
    Path("said.jsonl").write_text('{"item": "a", "language": "fa", "answers": {"1": "no", "2": "yes"}}\n')
    plain = json.loads(CliRunner().invoke(app, ["score", "dpg", "dpg.csv", "said.jsonl", "--json"]).stdout)
    assert plain["mean"] == 0 and plain["std"] is None and plain["parts"]["other - text"] == 1
    quirky = json.loads(CliRunner().invoke(app, ["score", "dpg", "dpg.csv", "said.jsonl", "--json", "--compat"]).stdout)
    assert quirky["mean"] == 1  # the first question is skipped, and the second hangs on nothing that is known


def test_what_is_wrong_is_told(folder: Path) -> None:
    missing = CliRunner().invoke(app, ["score", "geneval", "prompts.jsonl", "none.jsonl"])
    assert missing.exit_code == 2 and "none.jsonl" in missing.stderr
