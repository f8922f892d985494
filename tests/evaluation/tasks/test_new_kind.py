"""A kind of task in a file of its own: evaluated, stopped and gone on with, reported, compared, shared."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.test_suite import Stops, images, retrieval, zero_shot
from tests.helpers.evaluate_fakes import CountingModel
from tests.helpers.ranks import on_ranks
from tests.helpers.toy_task import NearnessSpec
from vlkit.distributed.collectives import Ranks
from vlkit.evaluation.compare.comparison import compare
from vlkit.evaluation.compare.score_tables import read_scores
from vlkit.evaluation.results.clip_benchmark import clip_benchmark_rows
from vlkit.evaluation.results.results_file import Results
from vlkit.evaluation.results.terminal_table import task_table
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import TASKS
from vlkit.spec.evaluation import TASK_KINDS, SuiteSpec


def _register() -> None:
    TASKS.add("nearness", "tests.helpers.toy_task:open_nearness")
    TASK_KINDS.add(NearnessSpec)


@pytest.fixture(autouse=True)
def kind() -> Iterator[None]:
    _register()
    yield
    del TASKS._entries["nearness"], TASK_KINDS.specs["nearness"]
    SuiteSpec.model_rebuild(force=True)


def _suite(tmp: Path, *more: Any) -> SuiteSpec:
    if not (tmp / "images").exists():
        images(tmp / "images")
    task = {"kind": "nearness", "name": "near", "source": retrieval(tmp)["source"], "languages": ["en", "de"]}
    return SuiteSpec.model_validate({"tasks": [task, *more]})


def test_it_is_evaluated_and_reported_as_any_other(tmp_path: Path) -> None:
    model, out = CountingModel(), tmp_path / "out"
    results = evaluate(model, _suite(tmp_path), name="mine", folder=out, quiet=True)
    assert model.images_seen == 12  # once for both languages
    assert [(row.language, row["n_images"]) for row in results.rows] == [("en", 12), ("de", 12)]
    row = results.rows[0]
    assert row.headline == (row["nearer"], row["nearer"] / 2, 1.0) == row.metrics["nearer"]
    loaded = Results.load(out / "results.json")  # says itself what leads and what a share is
    assert loaded.rows[0].measures == row.measures and loaded.rows[0].metrics.keys() == {"nearer", "gap"}
    lines = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert list(lines[0]) == ["task", "variant", "language", "n_images", "nearer", "least", "most", "gap"]
    assert float(lines[1]["gap"]) == pytest.approx(results.rows[1]["gap"], abs=5e-7)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"<td>{100 * row['nearer']:.1f} ({50 * row['nearer']:.1f}–100.0)</td>" in page and 'class="bars' in page
    assert f"| English (en) | 12 | {100 * row['nearer']:.1f} | {row['gap']:g} |" in (out / "results.md").read_text()
    assert task_table(results).row_count == 2
    assert clip_benchmark_rows(results) == []  # it has no such task


def test_it_goes_on_after_a_stop_and_shares_its_work(tmp_path: Path) -> None:
    spec = _suite(tmp_path)
    whole = evaluate(CountingModel(), spec, folder=tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Stops("de"), spec, folder=tmp_path / "out", quiet=True)
    model = CountingModel()
    assert evaluate(model, spec, folder=tmp_path / "out", resume=True, quiet=True).rows == whole.rows
    assert model.images_seen == 0 and "cat, 0" in model.texts_seen and "cat 0" not in model.texts_seen
    assert on_ranks(2, _rows_here, spec.model_dump(mode="json")) == [[row.flat() for row in whole.rows]] * 2


def _rows_here(plain: dict[str, Any]) -> list[Any]:
    _register()
    spec = SuiteSpec.model_validate(plain)
    return [row.flat() for row in evaluate(CountingModel(), spec, ranks=Ranks.world(), quiet=True).rows]


def test_two_models_are_compared_on_it(tmp_path: Path) -> None:
    spec = _suite(tmp_path, zero_shot(tmp_path))
    for seed in (0, 1):
        evaluate(CountingModel(seed=seed), spec, name=f"m{seed}", folder=tmp_path / str(seed), quiet=True)
    found = [row for row in compare(tmp_path / "0", tmp_path / "1").rows if row.task == "near"]
    scores = [read_scores(tmp_path / str(seed), task="near").scores for seed in (0, 1)]
    assert {(row.metric, row.n_images, row.num_classes) for row in found} == {("nearer", 12, 0)}
    for row in found:
        assert row.difference == scores[0]["m0", row.language] - scores[1]["m1", row.language]
    names = ("results.csv", "report-near.html", "report-pets.html")
    assert all((tmp_path / "0" / name).exists() for name in names)


def test_without_its_code_its_results_are_read(tmp_path: Path) -> None:
    evaluate(CountingModel(), _suite(tmp_path), folder=tmp_path / "out", quiet=True)
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["tasks"]["near"]["metrics"]["gap"] == {"title": "gap", "share": False}
    del TASKS._entries["nearness"]
    assert all(row.difference == 0 for row in compare(tmp_path / "out", tmp_path / "out").rows)
    _register()
