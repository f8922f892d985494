"""`vlkit mteb`: from names of tasks and languages to a table, JSON and mteb's own files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.helpers.mteb_fakes import keep_data_set
from vlkit.cli.app import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["mteb", *map(str, arguments)])


@pytest.fixture
def wit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set of WITT2IRetrieval, in three languages."""
    datasets = pytest.importorskip("datasets")
    keep_data_set(tmp_path / "cache", "mteb/wit", ["ar", "ko", "tr"])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def test_table_json_and_files(wit: None) -> None:
    shown = run("tiny", "WITT2IRetrieval", "--languages", "ko,turkish", "--out", "out")
    assert shown.exit_code == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines() if line.startswith("WITT2IRetrieval")]
    assert [line[:5] for line in lines[:2]] == [
        ["WITT2IRetrieval", tag, tag, "test", "ndcg_at_10"] for tag in ("ko", "tr")
    ]
    assert lines[2][:4] == ["WITT2IRetrieval", "mean", "of", "2"]
    values = [float(line[-1]) for line in lines]
    assert values[2] == pytest.approx(sum(values[:2]) / 2, abs=0.11)
    assert shown.stderr.endswith("written to out/results\n")
    assert len(list(Path("out/results").rglob("WITT2IRetrieval.json"))) == 1

    taken = run("tiny", "WITT2IRetrieval", "--languages", "ko", "--out", "out")
    assert taken.exit_code == 2 and "out holds results of vlkit/tiny on WITT2IRetrieval; --resume" in taken.stderr
    again = run("tiny", "WITT2IRetrieval", "--languages", "ko,tr,ar", "--out", "out", "--resume", "--json")
    rows = {row["language"]: row for row in json.loads(again.stdout)}
    assert sorted(rows) == ["ar", "ko", "tr"]
    assert [f"{100 * rows[tag]['score']:.1f}" for tag in ("ko", "tr")] == [f"{value:.1f}" for value in values[:2]]
    assert rows["ar"]["metrics"]["recall_at_10"] == 1.0


def test_what_is_wrong_is_told_before_a_model_is_loaded() -> None:
    pytest.importorskip("mteb")
    for arguments, message in (
        (("none", "XM3600T2IRetrieval", "--languages", "xx"), "no language 'xx'"),
        (("none", "WITT2IRetrieval", "--languages", "sw"), "WITT2IRetrieval has no subset"),
        (("none", "WITT2IRetrieval", "--resume", "--overwrite"), "--resume and --overwrite exclude each other"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and message in result.stderr
    missing = run("tiny", "XM3600T2IRetrieval", "--languages", "sw")
    assert missing.exit_code == 2 and "task XM3600T2IRetrieval needs the data set mteb/xm3600" in missing.stderr
