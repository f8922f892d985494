"""The plot of scores has every language and model, the best language on top."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from vlkit.errors import VlkitError
from vlkit.evaluation.report.plots import render, score_dots
from vlkit.evaluation.results.results_file import ResultRow, Results
from vlkit.evaluation.tasks.zero_shot_task import MEASURES


def row(variant: str, language: str, value: float) -> ResultRow:
    values = {"acc1": value, "ci_low": value - 0.05, "ci_high": value + 0.05, "chance": 0.1}
    return ResultRow("things", variant, language, values, MEASURES)


def test_scores_are_dots_with_their_intervals() -> None:
    results = Results({}, (row("one", "de", 0.25), row("one", "zh", 0.5), row("two", "de", 0.375)))
    figure = score_dots(results)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Chinese (zh)", "German (de)"]
    dots = {line.get_label(): list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"}
    assert dots == {"one": [50.0, 25.0], "two": [37.5]}
    spans = sorted(tuple(line.get_xdata()) for line in axes.lines if line.get_label().startswith("_"))
    assert spans == [pytest.approx(one) for one in ((20.0, 30.0), (32.5, 42.5), (45.0, 55.0))]
    assert "chance" in axes.get_legend_handles_labels()[1]
    assert ElementTree.fromstring(render(figure)).tag.endswith("svg")


def test_of_several_tasks_one_is_named() -> None:
    both = Results({}, (row("one", "de", 0.25), ResultRow("more", "one", "de", {"acc1": 0.5}, MEASURES)))
    with pytest.raises(VlkitError, match="hold 2 tasks; name one"):
        score_dots(both)
    assert len(score_dots(both, task="more").axes) == 1
