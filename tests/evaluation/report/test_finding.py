"""The first sentence of a page: who leads where, by how much, and what is at chance."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.results.test_results import row
from tests.evaluation.test_suite import retrieval, suite, zero_shot
from tests.helpers.evaluate_fakes import CountingModel
from vlkit.errors import DataError
from vlkit.evaluation.compare.comparison import compare
from vlkit.evaluation.compare.comparison_page import write_comparison
from vlkit.evaluation.metrics.intervals import bootstrap_mean
from vlkit.evaluation.report.charts import BarRow, Cell, bars
from vlkit.evaluation.report.finding import finding, lead_sentence
from vlkit.evaluation.report.page import write_report
from vlkit.evaluation.results.class_scores import ClassTable
from vlkit.evaluation.results.results_file import ResultRow, Results
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import open_suite


def _row(variant: str, language: str, acc1: float, half: float = 0.02, **more: Any) -> ResultRow:
    return row(variant, language, acc1, ci_low=acc1 - half, ci_high=acc1 + half, **more)


def _page(results: Results, tmp_path: Path, **more: Any) -> str:
    return write_report(tmp_path / "r.html", results=results, **more).read_text(encoding="utf-8")


def test_two_models_side_by_side() -> None:
    scores = {"en": (0.24, 0.25), "de": (0.20, 0.06), "fr": (0.21, 0.07), "it": (0.19, 0.08), "sw": (0.16, 0.06)}
    rows = [_row(name, tag, pair[n]) for n, name in enumerate(("many", "one")) for tag, pair in scores.items()]
    gaps = [a - b for a, b in scores.values()]
    low, high = bootstrap_mean(gaps)
    expected = (
        f"many leads one by {100 * sum(gaps) / 5:.1f} points [{100 * low:.1f}, {100 * high:.1f}] in top-1, the mean of "
        f"5 languages; it is ahead in 4 of 5 languages, and English is level."
    )
    assert finding(Results({}, tuple(rows))) == expected
    assert finding(Results({}, tuple(reversed(rows)))).startswith("many leads one by ")


def test_one_model_alone_and_what_is_at_chance() -> None:
    rows = [_row("m", "de", 0.5, chance=0.1), _row("m", "fr", 0.3, chance=0.1), _row("m", "sw", 0.11, chance=0.1)]
    assert finding(Results({}, tuple(rows))) == (
        "m has 30.3 % top-1, the mean of 3 languages: 50.0 % in the best, German, and 11.0 % in the lowest, Swahili. "
        "m is at chance in Swahili: the interval holds what guessing gives."
    )
    lost = [_row("m", tag, 0.11, chance=0.1) for tag in ("de", "fr", "sw")]
    assert finding(Results({}, tuple(lost))) == (
        "m has 11.0 % top-1 in each of 3 languages. "
        "m is at chance in every language: the interval holds what guessing gives."
    )
    assert finding(Results({}, (_row("m", "de", 0.5, chance=0.1),))) == "m has 50.0 % top-1 in German."
    unknown = Results({}, (row("m", "de", 0.1, chance=0.1, ci_low=math.nan, ci_high=math.nan),))
    assert "chance" not in finding(unknown)


@pytest.mark.parametrize(
    ("value", "low", "high", "states", "said"),
    [
        (-0.1, -0.12, -0.08, {"de": -1, "fr": -1}, "b leads a by 10.0 points [8.0, 12.0] in x, the mean of 2 "
         "languages; it is ahead in German and French."),
        (0.01, -0.02, 0.03, {"de": 1, "fr": 0, "it": -1, "sw": 0}, "a and b are level in x, the mean of 4 languages: "
         "1.0 points [-2.0, 3.0] apart; a is ahead in German, b is ahead in Italian, "
         "and French and Swahili are level."),
        (0.1, 0.05, 0.15, {"de": 1}, "a leads b by 10.0 points [5.0, 15.0] in x, German."),
    ],
)  # fmt: skip
def test_who_leads(value: float, low: float, high: float, states: dict[str, int], said: str) -> None:
    assert lead_sentence(("a", "b"), value, low, high, states, what="x", sure=True) == said


def test_every_page_begins_with_it(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        spec = suite(zero_shot(tmp_path), retrieval(tmp_path))
        evaluate(CountingModel(seed=seed), spec, name=name, folder=tmp_path / name, quiet=True)
    results = Results.load(tmp_path / "one" / "results.json")
    for task in ("pets", "captions"):
        said = finding(results.only(task))
        assert f'<p class="finding">{said}</p>' in (tmp_path / "one" / f"report-{task}.html").read_text("utf-8")
        assert f"{said}\n" in (tmp_path / "one" / "results.md").read_text("utf-8")
    found = compare(tmp_path / "one", tmp_path / "two")
    text = write_comparison(tmp_path / "c.html", found).read_text("utf-8")
    strongest = min(found.means, key=lambda mean: (mean.low <= 0 <= mean.high, -abs(mean.value)))
    first = re.search(r'<p class="finding">(.*?)</p>', text)
    assert first is not None and f"{100 * abs(strongest.value):.1f} points" in first[1]
    assert f" on {strongest.task}, the mean of " in first[1]
    assert re.findall(r"<h2>(pets|captions)</h2>", text)[0] == strongest.task


def test_english_of_the_same_classes_is_one_line(tmp_path: Path) -> None:
    cells = {"de": 0.5, "fr": 0.5, "sw": 0.5}
    rows = [BarRow(tag, [Cell(0.2, english=english)], 10) for tag, english in cells.items()]
    chart = bars("x", ["m"], [*rows, BarRow("en", [Cell(0.5)], 10)], unit="top-1 in %")
    assert [(line["series"], line["value"], line["left"]) for line in chart["english_lines"]] == [(0, 0.5, 50 / 0.6)]
    other = [*rows, BarRow("it", [Cell(0.2, english=0.4)], 10)]
    assert bars("x", ["m"], other)["english_lines"] == []
    assert bars("x", ["m"], [*rows, BarRow("it", [Cell(0.2, english=0.5)], 9)])["english_lines"] == []
    results = Results({}, tuple(row("m", tag, 0.2, acc1_en_subset=0.5) for tag in cells))
    text = _page(results, tmp_path)
    assert text.count('class="enline"') == 3 and 'class="en" style' not in text
    assert '<div class="unit">top-1 accuracy in %</div>' in text


@pytest.mark.parametrize("count", [19, 20])
def test_few_languages_need_no_filter(tmp_path: Path, count: int) -> None:
    tags = ["de", "fr", "it", "es", "pt", "nl", "sv", "da", "fi", "pl", "cs", "ru", "uk", "bg", "el", "tr", "ar", "fa"]
    tags = [*tags, "hi", "ko"][:count]
    text = _page(Results({}, tuple(row("m", tag, 0.01 * n) for n, tag in enumerate(tags))), tmp_path)
    assert (len(re.findall("<input", text)) > 0) == (count == 20)
    if count == 20:
        assert 'class="picker one"' in text and text.count('class="picker some"') == 2
        assert 'type="radio"' in text and 'type="checkbox"' in text


def test_worst_classes_have_counts(tmp_path: Path) -> None:
    spec = zero_shot(tmp_path)
    results = evaluate(CountingModel(), suite(spec), folder=tmp_path / "out", quiet=True)
    task = open_suite(suite(spec)).tasks[0]
    table = ClassTable.read(tmp_path / "out", "pets", results.languages, titles=task.titles)
    assert table is not None
    for one in table.overall():
        each = [table.by_language[tag][one.class_id] for tag in one.languages]
        assert (one.answers, one.right) == (4 * len(each), sum(round(4 * score.accuracy) for score in each))
        taken = [score for score in each if score.confused_with == one.confused_with]
        assert one.confused == sum(
            round(4 * score.confused_share) for score in taken if score.confused_with is not None
        )
        cells = f"<td>{one.right} of {one.answers}</td><td>{100 * one.accuracy:.1f}</td>"
        assert cells in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_a_retrieval_shows_what_was_found(tmp_path: Path) -> None:
    zero_shot(tmp_path)
    evaluate(CountingModel(), suite(retrieval(tmp_path)), folder=tmp_path / "out", quiet=True)
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "R@k, for k of 1, 5, 10: queries with a right answer among the best k" in text
    found = {tag: json.loads((tmp_path / "out" / f"examples/captions/{tag}.json").read_text()) for tag in ("en", "de")}
    for examples in found.values():
        assert len(examples) == 4 and all(len(set(one["best"])) == 5 for one in examples)
        for one in examples:  # its own image is the one of its name, at the place its rank says
            name, number = re.sub(r"^a ", "", one["text"]).replace(",", "").rsplit(" ", 1)
            assert one["image"] == 3 * ["cat", "dog", "polar_bear", "teacup"].index(name) + int(number)
            assert (one["rank"] <= 5) == (one["image"] in one["best"])
            if one["rank"] <= 5:
                assert one["best"][one["rank"] - 1] == one["image"]
            assert f">{one['text']}</span>" in text
    own = sum(one["rank"] <= 5 for examples in found.values() for one in examples)
    assert text.count('class="own"') == own and text.count("data:image/jpeg;base64,") == 2 * 4 * 5
    before = text.partition("How this was made")[0]
    (tmp_path / "out" / "report.html").unlink()
    evaluate(CountingModel(), suite(retrieval(tmp_path)), folder=tmp_path / "out", resume=True, quiet=True)
    assert (tmp_path / "out" / "report.html").read_text("utf-8").partition("How this was made")[0] == before
    (tmp_path / "out" / "examples/captions/de.json").write_text("[{}]")
    with pytest.raises(DataError, match=r"de.json is no file of examples: .*; evaluate again"):
        evaluate(CountingModel(), suite(retrieval(tmp_path)), folder=tmp_path / "out", resume=True, quiet=True)


def test_pages_name_fonts_for_scripts(tmp_path: Path) -> None:
    text = _page(Results({}, (row("m", "hi", 0.1), row("m", "am", 0.2))), tmp_path)
    assert 'lang="hi" dir="ltr" data-script="Deva"' in text
    assert '[data-script="Deva"] { font-family: var(--sans), "Nirmala UI", "Noto Sans Devanagari"; }' in text
    assert "Your system lacks a font for that script" in text
