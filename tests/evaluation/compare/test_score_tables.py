"""Tables of scores correlated, and published scores as one side of a comparison."""

from __future__ import annotations

import csv
import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.results.test_results import row
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.compare.comparison import compare
from vlkit.evaluation.compare.model_scores import open_scores
from vlkit.evaluation.compare.reference import reference
from vlkit.evaluation.compare.score_tables import LOG_CLASSES, ScoreTable, cells, correlate_tables, read_scores
from vlkit.evaluation.results.clip_benchmark import clip_benchmark_rows, save_clip_benchmark
from vlkit.evaluation.results.results_file import ResultRow, Results
from vlkit.evaluation.tasks.retrieval_task import MEASURES as RETRIEVAL


def _by(findings: Any) -> dict[tuple[str, bool, str], Any]:
    return {(one.points, one.english, one.given): one.correlation for one in findings}


def test_the_pooled_values_of_the_published_tables_are_found_again() -> None:
    tables = read_scores("reference:babel_imagenet"), read_scores("reference:xm3600")
    found = _by(correlate_tables(*tables, given=LOG_CLASSES, replicates=0))
    pooled = found["all", True, ""]
    assert pooled.n == 408
    assert (pooled.pearson.value, pooled.spearman.value) == (
        pytest.approx(0.649, abs=0.001),
        pytest.approx(0.640, abs=0.001),
    )
    assert found["models", True, ""].n == 12 and found["models", True, ""].pearson.value == pytest.approx(
        0.62, abs=0.01
    )
    assert found["AltCLIP", True, ""].pearson.value == pytest.approx(0.938, abs=0.005)
    assert found["all", False, ""].n == 396 == 12 * 33
    # with the number of classes fixed, models of the NLLB kind do not go against retrieval any more
    assert found["NLLBS-l", False, ""].pearson.value < -0.2 < 0.1 < found["NLLBS-l", False, LOG_CLASSES].pearson.value
    headers, rows = cells(correlate_tables(*tables, replicates=0))
    assert len(headers) == 7 and rows[0][:4] == ("all", "with", "", "408") and rows[0][4] == "0.649"


def test_single_models_are_correlated_whatever_they_are_called() -> None:
    scores = {("mine", tag): n / 10 for n, tag in enumerate(("en", "de", "sw", "fr"))}
    one = ScoreTable("a", "top-1", scores, {})
    other = ScoreTable("b", "top-1", {("theirs", tag): 0.5 - 0.1 * value for (_, tag), value in scores.items()}, {})
    found = _by(correlate_tables(one, other, replicates=0))
    assert list(found) == [("mine", True, ""), ("mine", False, "")]
    assert found["mine", True, ""].pearson.value == pytest.approx(-1) and found["mine", False, ""].n == 3


def test_means_of_models_are_over_the_languages_that_all_have() -> None:
    scores = {(model, tag): 0.1 * n for n, model in enumerate(("a", "b", "c")) for tag in ("de", "fr")}
    other = {key: value**2 for key, value in scores.items()} | {("c", "sw"): 0.9}
    found = _by(
        correlate_tables(
            ScoreTable("x", "", scores | {("c", "sw"): 0.0}, {}), ScoreTable("y", "", other, {}), replicates=0
        )
    )
    assert found["models", True, ""].n == 3
    assert found["models", True, ""].spearman.value == pytest.approx(1)  # Swahili, of one model, would turn it
    assert ("models", False, "") not in found  # no English to leave out


def test_what_cannot_be_correlated(tmp_path: Path) -> None:
    babel, retrieval = read_scores("reference:babel_imagenet"), read_scores("reference:xm3600/OC-B32")
    other = ScoreTable("mine", "top-1", {("OC-H14", "de"): 0.1}, {})
    with pytest.raises(DataError, match="have 0 points in common, a correlation needs 3; models: OC-B32, and"):
        correlate_tables(retrieval, ScoreTable("mine", "top-1", {("x", "xx"): 0.1}, {}))
    with pytest.raises(DataError, match="have 1 points in common"):
        correlate_tables(babel, other)
    with pytest.raises(DataError, match="neither xm3600 nor xm3600 says how many classes"):
        correlate_tables(retrieval, retrieval, given=LOG_CLASSES)
    with pytest.raises(VlkitError, match="given = 'n'; allowed: log-classes"):
        correlate_tables(retrieval, retrieval, given="n")
    path = Results({}, (row("m", "de", 0.1), row("m", "de", 0.1, task="other"))).save(tmp_path / "results.json")
    with pytest.raises(VlkitError, match="holds 2 tasks; name one with --task: things, other"):
        read_scores(path)
    with pytest.raises(UnknownName, match="no task 'thing'; did you mean 'things'"):
        read_scores(path, task="thing")
    assert read_scores(tmp_path, task="other").scores == {("m", "de"): 0.1}


class TestPublished:
    @pytest.fixture
    def mine(self, tmp_path: Path) -> Path:
        table = reference("babel_imagenet")
        rows = [
            row("mine", tag, table.of("OC-B32")[tag] + 0.1, task="my-babel", num_classes=table.classes_of(tag),
                prompt="translated")
            for tag in ("en", "de", "sw", "or")
        ]  # fmt: skip
        return Results({}, (*rows, row("mine", "fi", 0.2, task="my-babel", num_classes=7))).save(tmp_path / "r.json")

    def test_a_published_table_is_the_other_side(self, mine: Path) -> None:
        found = compare(mine, "reference:babel_imagenet/OC-B32")
        assert (found.one, found.other) == ("mine", "OC-B32")
        assert {one.language for one in found.rows} == {"en", "de", "sw", "or"} and {
            one.task for one in found.rows
        } == {"my-babel"}
        assert all(
            one.difference == pytest.approx(0.1) and not one.paired and one.n_images == 300 for one in found.rows
        )
        assert "my-babel fi: 7 and 973 classes, 300 and 0 images; left out" in found.notes
        assert "acc1" in found.provenance["OC-B32"]["published"]
        back = compare("reference:babel_imagenet", mine, models=("OC-B32", "mine"))
        assert [one.difference for one in back.rows] == pytest.approx([-0.1] * 4)

    def test_two_published_models(self) -> None:
        found = compare("reference:xm3600/OC-B32", "reference:xm3600/AltCLIP")
        assert len(found.rows) == 36 and {one.metric for one in found.rows} == {"image_retrieval_recall@1"}
        tier = next(one for one in found.by_kind("xm3600") if one.title == "lexicon tier")
        high = next(group for group in tier.groups if group.group == "high")
        assert "en" not in high.languages
        by_tag = {one.language: one.difference for one in found.rows}
        assert high.mean == pytest.approx(sum(by_tag[tag] for tag in high.languages) / len(high.languages))

    @pytest.mark.parametrize(("prompt", "expected"), [("translated", [0.3, 0.2]), ("label", [0.1, 0.2])])
    def test_a_released_file_with_several_prompts(self, tmp_path: Path, prompt: str, expected: list[float]) -> None:
        entries = [
            {"lang": "DE", "prompt": "label", "num_classes": 738, "accuracy": 10.0},
            {"lang": "DE", "prompt": "openai_en", "num_classes": 738, "accuracy": 20.0},
            {"lang": "DE", "prompt": "nllb_dist13b_prompts", "num_classes": 738, "accuracy": 30.0},
            {"lang": "FY", "prompt": "label", "num_classes": 155, "accuracy": 20.0},
        ]
        (tmp_path / "theirs.json").write_text(json.dumps({"meta": {}, "results": entries}))
        mine = [
            row("mine", "de", 0.5, num_classes=738, prompt=prompt),
            row("mine", "fy", 0.5, num_classes=155, prompt=prompt),
        ]
        path = Results({}, tuple(mine)).save(tmp_path / "results.json")
        found = {one.language: one.other for one in compare(path, tmp_path / "theirs.json").rows}
        assert [found["de"], found["fy"]] == pytest.approx(expected)

    def test_what_is_wrong_is_said(self, mine: Path, tmp_path: Path) -> None:
        with pytest.raises(UnknownName, match="no reference table 'babel'"):
            open_scores("reference:babel/OC-B32")
        with pytest.raises(UnknownName, match="no model in the table babel_imagenet 'OC-B16'"):
            open_scores("reference:babel_imagenet/OC-B16")
        with pytest.raises(VlkitError, match=r"holds 12 models; name one: reference:babel_imagenet/OC-B32"):
            open_scores("reference:babel_imagenet")
        with pytest.raises(DataError, match="published scores of retrieval, but mine has no such task"):
            compare(mine, "reference:xm3600/OC-B32")
        loaded = Results.load(mine)
        both = Results({}, (*loaded.rows, row("mine", "de", 0.1, task="other"))).save(tmp_path / "both.json")
        with pytest.raises(VlkitError, match=r"2 tasks that babel_imagenet could stand for; name one: --task my-babel"):
            compare(both, "reference:babel_imagenet/OC-B32")
        assert len(compare(both, "reference:babel_imagenet/OC-B32", task="my-babel").rows) == 4
        with pytest.raises(UnknownName, match="no task of mine 'my-label'; did you mean 'my-babel'"):
            compare(both, "reference:babel_imagenet/OC-B32", task="my-label")


def test_our_rows_in_the_form_of_clip_benchmark(tmp_path: Path) -> None:
    few = row("my model/1", "sw", 0.5, num_classes=4, mean_per_class_recall=0.4)
    recalls = {"captions": "all", "image_retrieval_recall@1": 0.25, "text_retrieval_recall@1": math.nan,
               "mean_recall": 0.2}  # fmt: skip
    retrieval = ResultRow("captions", "my model/1", "de", recalls, RETRIEVAL)
    results = Results({"models": {"my model/1": "abc"}}, (row("my model/1", "de", 0.1), few, retrieval))
    first, second, third = clip_benchmark_rows(results)
    assert first == {
        "dataset": "things", "model": "my model/1", "pretrained": "abc", "task": "zeroshot_classification",
        "metrics": {"acc1": 0.1, "acc5": 0.2, "mean_per_class_recall": None}, "language": "de",
    }  # fmt: skip
    assert second["metrics"] == {"acc1": 0.5, "acc5": None, "mean_per_class_recall": 0.4}  # fewer than five classes
    assert third["task"] == "zeroshot_retrieval"
    assert third["metrics"] == {"image_retrieval_recall@1": 0.25, "text_retrieval_recall@1": None}
    paths = save_clip_benchmark(results, tmp_path)
    assert len({path.name for path in paths}) == 3 and all(path.parent == tmp_path for path in paths)
    assert json.loads(paths[0].read_text()) == first


def test_clip_benchmark_itself_reads_them(tmp_path: Path) -> None:
    cli = pytest.importorskip("clip_benchmark.cli")
    results = Results({"models": {"m": "abc"}}, (row("m", "de", 0.1), row("m", "sw", 0.2)))
    save_clip_benchmark(results, tmp_path / "rows")
    cli.main_build(Namespace(files=[str(tmp_path / "rows")], output=str(tmp_path / "all.csv")))
    lines = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert sorted((line["language"], line["acc1"], line["model_fullname"]) for line in lines) == [
        ("de", "0.1", "m abc"),
        ("sw", "0.2", "m abc"),
    ]
