"""Pages of many languages, of several kinds of languages, and of two models: what they show, and that it is true."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from tests.evaluation.report.test_report import Elements
from tests.evaluation.results.test_results import row
from tests.evaluation.test_suite import images, labels, suite, zero_shot
from tests.helpers.evaluate_fakes import CountingModel
from vlkit import languages as language_table
from vlkit.evaluation.compare.comparison import compare
from vlkit.evaluation.compare.comparison_page import write_comparison
from vlkit.evaluation.compare.reference import reference
from vlkit.evaluation.report.breakdown import Breakdown, GroupMean, breakdowns, by_tier_and_script, few_groups, means_of
from vlkit.evaluation.report.charts import BarRow, Cell, Point, bars, nice_ceiling, scatter, strips
from vlkit.evaluation.report.markdown import markdown_table, results_markdown
from vlkit.evaluation.report.page import write_report
from vlkit.evaluation.results.class_scores import ClassScore, ClassTable
from vlkit.evaluation.results.results_file import Results
from vlkit.evaluation.run import evaluate

EVIL = "<script>alert('x')</script>|\n&{{ 7 * 7 }}"


def hundred() -> Results:
    table = reference("babel_imagenet")
    rows = []
    for tag, score in table.of("NLLBS-l").items():
        n = table.classes_of(tag)
        changes = {"task": "babel", "num_classes": n, "n_images": 50 * n, "chance": 1 / n, "acc1_en_subset": 0.5}
        rows.append(row("NLLBS-l", tag, score, **changes, ci_low=max(0, score - 0.04)))
    return Results({"note": EVIL, "suite": {"tasks": [EVIL]}}, tuple(rows))


def page(results: Results, tmp_path: Path, **more: object) -> str:
    return write_report(tmp_path / "r.html", results=results, **more).read_text(encoding="utf-8")  # type: ignore[arg-type]


class TestGroups:
    def test_means_by_tier_are_of_the_tiers_languages(self) -> None:
        results = hundred()
        tier = breakdowns(results.rows)[0]
        assert [(group.group, len(group.languages)) for group in tier.groups] == [
            ("high", 16),
            ("mid", 35),
            ("low", 49),
        ]
        assert tier.groups[0].mean == pytest.approx(0.3975, abs=2e-4)  # published: the same languages as group high
        shown = {group.group for one in breakdowns(results.rows) for group in one.groups}
        assert {"Latin", "Cyrillic", "very-low", "super-low"} <= shown
        assert not any("en" in group.languages for one in breakdowns(results.rows) for group in one.groups)

    def test_class_counts_are_no_groups_where_they_are_the_same(self) -> None:
        rows = [row("m", tag, 0.1) for tag in ("en", "de", "zh", "fr")]
        assert [one.title for one in breakdowns(rows)] == ["lexicon tier", "script"]

    def test_groups_of_one_language_are_put_together_where_they_are_many(self) -> None:
        values = {tag: n / 100 for n, tag in enumerate(("de", "fr", "th", "ka", "hy", "el", "he", "ta", "te", "ko"))}
        script = by_tier_and_script(values)[1]
        few = few_groups(script, values)
        assert [(group.group, len(group.languages)) for group in few.groups] == [("Latin", 2), ("others, one each", 8)]
        assert few.groups[1].mean == pytest.approx(sum(range(2, 10)) / 800)
        assert few_groups(few, values) == few

    def test_english_of_any_country_is_in_no_group(self) -> None:
        assert means_of({"en": 0.9, "de": 0.1}, lambda tag: "all")[0].mean == 0.1


class TestCharts:
    def test_bars_are_in_proportion_and_the_axis_holds_all(self) -> None:
        rows = [BarRow("de", [Cell(0.3, 0.2, 0.35, 0.7, 0.01), None], 5), BarRow("fr", [Cell(0.1), Cell(0.6)], 9)]
        chart = bars("x", ["a", "b"], rows)
        assert chart["ticks"][-1]["label"] == "80"  # English reaches 70
        assert [line["language"].tag for line in chart["rows"]] == ["fr", "de"]  # by the best of its bars
        cell = chart["rows"][1]["cells"][0]
        assert (cell["width"], cell["low"], cell["span"], cell["english"]) == pytest.approx((37.5, 25, 18.75, 87.5))
        assert chart["rows"][1]["places"] == {"value": 1, "name": 1, "classes": 1, "gap": 0}
        assert chart["rows"][0]["places"] == {"value": 0, "name": 0, "classes": 0, "gap": 1}

    def test_all_languages_have_a_filter_of_their_script(self) -> None:
        chart = bars("x", ["a"], [BarRow(tag, [Cell(0.1)]) for tag in reference("babel_imagenet").scores])
        assert len(chart["scripts"]) == 8 and "other" in chart["scripts"]
        assert all(line["script"] in chart["scripts"] for line in chart["rows"])

    def test_dots_stand_where_their_values_are(self) -> None:
        group = GroupMean("low", ("de", "fr"), 0.1, -0.1, 0.3)
        chart = strips([("x", Breakdown("tier", (group,)), {"de": -0.2, "fr": 0.4})], low=-0.4, high=0.4)
        (one,) = chart["rows"][0]["series"]
        assert [dot["left"] for dot in one["dots"]] == pytest.approx([25, 100])
        assert (one["left"], one["low"], one["span"], chart["zero"]) == pytest.approx((62.5, 37.5, 50, 50))

    def test_a_logarithmic_axis_has_equal_steps_for_equal_ratios(self) -> None:
        points = [Point(x, 0.5, str(x), "") for x in (10, 100, 1000)]
        chart = scatter(points, x_label="", y_label="", log_x=True, labels=[0, 1, 2], curve=[(10, 0.1), (1000, 0.001)])
        left = [point["left"] for point in chart["points"]]
        assert left[1] - left[0] == pytest.approx(left[2] - left[1]) and 0 < left[0] < left[2] < 100
        at = {tick["label"]: tick["at"] for tick in chart["x_ticks"]}
        assert at["100"] == pytest.approx(left[1])
        assert [point["label"] for point in chart["points"]] == ["10", "100", "1000"]
        assert chart["points"][2]["flip"] and not chart["points"][0]["flip"]  # the last would leave the plot

    def test_labels_never_lie_on_each_other(self) -> None:
        points = [Point(0.5 + 0.001 * n, 0.5, f"language {n}", "") for n in range(5)]
        chart = scatter(points, x_label="", y_label="", labels=range(5))
        shown = {point["label"]: point["flip"] for point in chart["points"] if point["label"]}
        assert shown == {"language 0": True, "language 2": False}  # one on each side

    def test_labels_lie_on_no_point_and_a_phone_shows_those_that_have_room_there(self) -> None:
        points = [Point(0.5, 0.5, "here", ""), Point(0.54, 0.5, "", "")]
        assert scatter(points, x_label="", y_label="", square=True, labels=[0])["points"][0]["flip"]
        points.append(Point(0.46, 0.5, "", ""))  # on the other side as well
        assert scatter(points, x_label="", y_label="", square=True, labels=[0])["points"][0]["label"] == ""
        apart = [Point(0.1, 0.5, "a" * 20, ""), Point(0.33, 0.5, "b", "")]
        (one, other) = scatter(apart, x_label="", y_label="", square=True, labels=[1, 0])["points"]
        assert (one["label"], one["minor"], other["minor"]) == ("a" * 20, True, False)

    @pytest.mark.parametrize("value", [0.0, 0.001, 0.04, 0.13, 0.4, 0.41, 0.6, 0.99, 1.0])
    def test_the_axis_ends_at_a_round_number_above(self, value: float) -> None:
        top = nice_ceiling(value)
        assert value <= top <= 1 and (25 * top) == pytest.approx(round(25 * top))


class TestReport:
    def test_hundreds_of_languages_are_one_page_without_a_script(self, tmp_path: Path) -> None:
        tags = [one.tag for one in language_table.all_languages()][:229]
        rows = [row("m", tag, 0.001 * n, num_classes=150 + n % 90, ci_low=0.0) for n, tag in enumerate(tags)]
        text = page(Results({}, tuple(rows)), tmp_path)
        elements = Elements(text)
        assert elements.open == [] and "script" not in {tag for tag, _ in elements.found}
        lines = [a for tag, a in elements.found if (a.get("class") or "").startswith("row tier-")]
        assert len(lines) == 229
        inputs = {a["value"] for tag, a in elements.found if tag == "input"}
        assert {"value", "name", "classes", "tier-low", "script-0"} <= inputs
        assert len(text) < 600_000

    def test_every_control_has_its_rule(self, tmp_path: Path) -> None:
        text = page(hundred(), tmp_path)
        inputs = [a for tag, a in Elements(text).found if tag == "input"]
        for one in inputs:
            if one["value"] != "value":  # the order that rows are written in
                assert f'.bars:has(input[value="{one["value"]}"]' in text

    def test_english_of_the_same_classes_and_chance_are_marked(self, tmp_path: Path) -> None:
        text = page(hundred(), tmp_path)
        assert text.count('class="en" style') == 100 and text.count('class="ring"') == 100
        assert "Accuracy and number of classes" in text and "<polyline" in text
        plain = page(Results({}, (row("m", "de", 0.1), row("m", "fr", 0.2))), tmp_path)
        assert 'class="en" style' not in plain and "number of classes" not in plain and "<polyline" not in plain

    def test_the_table_says_what_is_known(self, tmp_path: Path) -> None:
        extra = {"num_classes": 18, "acc1_subset": 0.456, "subset_size": 9, "median_rank": 2.5, "n_tied": 3}
        text = page(Results({}, (row("m", "om", 0.3, **extra), row("m", "de", 0.2))), tmp_path)
        for wanted in ("<th>among 9</th>", "<td>45.6</td>", "<td>2.5</td>", "<td>Latin</td>", "<th>tied</th>"):
            assert wanted in text or wanted.replace("<td>", '<td class="soft">') in text
        assert "<th>ambiguous</th>" not in text

    def test_worst_classes_without_a_title_are_shown_by_number(self, tmp_path: Path) -> None:
        scores = {n: ClassScore(n, "", ("de",), 1, n / 10, 0.1, 5 - n, "", 1.0) for n in range(3)}
        rows = (row("m", "de", 0.1),)
        text = page(Results({}, rows), tmp_path, classes=ClassTable("things", "m", {"de": scores}))
        assert "by number" in text and "1 of 3 classes are never right" in text
        named = {n: ClassScore(n, EVIL, ("de",), 1, n / 10, 0.1) for n in range(3)}
        text = page(Results({}, rows), tmp_path, classes=ClassTable("things", "m", {"de": named}))
        assert "by number" not in text and "<script" not in text and text.count("&lt;script&gt;alert") == 3

    def test_nested_provenance_is_folded_away_and_escaped(self, tmp_path: Path) -> None:
        text = page(hundred(), tmp_path)
        assert re.search(r"<dt>suite</dt><dd><details><summary>show</summary><pre>\{", text)
        assert "<script" not in text


class TestMarkdown:
    def test_the_table_is_sorted_and_english_is_not_in_the_mean(self) -> None:
        text = results_markdown(hundred())
        lines = [line for line in text.splitlines() if line.startswith("| ")]
        assert lines[2].startswith("| Odia (or) | low | Odia | 71 | 3550 | 70.6 [66.6-75.6] |")
        assert "Mean of 100 languages, English left out: 42.1." in text
        for name, group in (("v1", "| low | 49 |"), ("v2", "| very-low | 17 |"), ("all", "| super-low | 1 |")):
            part = text.split(f"definition {name} ")[1]
            assert group in part
        assert "+" in lines[2] and "20.6" in lines[2]  # the gap to English
        assert "ambiguous" not in text and "tied" not in text

    def test_text_cannot_leave_its_cell(self) -> None:
        (_, _, line) = markdown_table(["a", "b"], [[EVIL, "x"]])
        assert line.count("|") == 4 and "\\|" in line and "<" not in line and "\n" not in line
        assert "<script" not in results_markdown(Results({}, (row(EVIL, "de", 0.1),)))


class TestComparisonPage:
    @pytest.fixture
    def text(self, tmp_path: Path) -> str:
        names = tuple(f"c{n:02}" for n in range(12))
        folder = images(tmp_path / "many", names, each=2)
        named = {tag: [f"{tag} {n}" for n in range(12)] for tag in ("en", "de", "sw", "zh")}
        path = labels(tmp_path / "many.json", named)
        plain = zero_shot(tmp_path, images={"kind": "folder", "path": str(folder)})
        spec = suite({**plain, "labels": {"kind": "files", "paths": [str(path)]}})
        for seed, name in ((0, "one"), (1, EVIL)):
            evaluate(CountingModel(seed=seed), spec, name=name, folder=tmp_path / str(seed), quiet=True)
        self.found = compare(tmp_path / "0", tmp_path / "1")
        return write_comparison(tmp_path / "c.html", self.found).read_text(encoding="utf-8")

    def test_it_is_whole_and_escaped(self, text: str) -> None:
        elements = Elements(text)
        assert elements.open == [] and "script" not in {tag for tag, _ in elements.found}
        assert "<script" not in text and not re.search(r"https?://", text)

    def test_dots_and_intervals_stand_where_the_differences_are(self, text: str) -> None:
        limit = nice_ceiling(
            max(abs(value) for one in self.found.rows for value in (one.low, one.high, one.difference))
        )
        for one in self.found.rows:
            left = f"{round(50 + 50 * one.difference / limit, 2)}%"
            assert f'<span class="spot" style="left: {left}">' in text
            low = round(50 + 50 * one.low / limit, 2)
            assert f'<span class="meanspan" style="left: {low}%; width:' in text
        assert text.count('class="spot"') == 4 and text.count('class="point') == 4

    def test_the_diagonal_is_where_both_are_equal(self) -> None:
        chart = scatter([Point(0.3, 0.3, "", "")], x_label="", y_label="", curve=[(0, 0), (1, 1)], square=True)
        (start, end) = (tuple(map(float, pair.split(","))) for pair in chart["curve"].split())
        assert start == (0, 100) and end == (100, 0)
        assert chart["points"][0]["left"] == pytest.approx(100 - chart["points"][0]["top"])

    def test_one_language_without_an_interval(self, tmp_path: Path) -> None:
        for n in (1, 2):
            Results({}, (row(f"m{n}", "de", 0.1 * n),)).save(tmp_path / f"{n}.json")
        found = compare(tmp_path / "1.json", tmp_path / "2.json")
        assert math.isnan(found.rows[0].low)
        text = write_comparison(tmp_path / "c.html", found).read_text(encoding="utf-8")
        assert "of one language" in text and "-10.0" in text and "nan" not in text.lower().replace("nano", "")
        assert "mean difference by lexicon tier" in found.markdown()
