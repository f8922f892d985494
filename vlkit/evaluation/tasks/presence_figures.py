"""Accuracy, precision, recall, F1 and share of yes of questions whether something is in an image, with intervals.

Definitions are POPE's (arXiv 2305.10355, section 4), but that an answer that is neither yes nor no is wrong and no yes;
POPE takes it for a yes. N images, K columns of sums, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlkit.evaluation.metrics.intervals import Interval, percentiles, resampled_sums, wilson_interval
from vlkit.evaluation.metrics.yes_no import Verdict
from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.results.results_file import Value
from vlkit.evaluation.tasks.controls import CONTROLS, control_measures
from vlkit.evaluation.tasks.things import EVERY
from vlkit.spec.evaluation import Negatives

Floats = npt.NDArray[np.float64]
_TITLES = {
    "accuracy": ("accuracy", "accuracy"),
    "f1": ("F1", "F1"),
    "precision": ("precision", ""),
    "recall": ("recall", ""),
    "yes_share": ("share of yes", "yes"),
    "neither": ("neither yes nor no", "neither"),
    "wrong_language": ("wrong language", ""),
}
_OF_KINDS = ("accuracy", "f1", "precision", "recall", "yes_share")
_COMPARED = ("accuracy", "f1", "yes_share")


def _measures() -> Measures:
    metrics: dict[str, Measure] = {}
    for name, (title, short) in _TITLES.items():
        metrics[name] = Measure(title, short, low=f"{name}_ci_low", high=f"{name}_ci_high")
    for kind in EVERY:
        for name in _OF_KINDS:
            of = f"{name}_{kind}"
            title = f"{_TITLES[name][0]}, {kind}" if name in ("accuracy", "f1") else ""
            metrics[of] = Measure(title, low=f"{of}_ci_low", high=f"{of}_ci_high")
    metrics |= control_measures({name: _TITLES[name][0] for name in _COMPARED}, lead="accuracy")
    return Measures(
        kind="presence",
        headline="accuracy",
        metrics=metrics,
        bars=("accuracy", "f1", "yes_share"),
        chance="chance",
        gain="accuracy_over_no_image",
        alike={"n_images": "images", "n_questions": "questions"},
        table="presence",
        explained="Images are asked for things: half of the questions are of what is there, half of what is not, "
        "chosen at random, by how many images show it (popular), or by how easily it is taken for what is there "
        "(adversarial). Figures without one of these are of all together. Accuracy is 50 % for whoever always says "
        "yes; precision, recall and F1 are of yes. What is neither yes nor no in the language of the question is "
        "wrong; wrong language: it is yes or no in another one. Without the image, with a grey picture and with the "
        "image of another concept the same is asked, and judged as if it were of the image; differences are paired.",
    )


class Judged(NamedTuple):
    """An answer: how its thing was chosen (None: it is there), what it says, whether in another language."""

    kind: Negatives | None
    verdict: Verdict
    elsewhere: bool


MEASURES = _measures()
"""Figures in 0..1. ``X_random``, ``X_popular``, ``X_adversarial``: with what was chosen so alone. ``chance`` is 0.5;
``n_questions`` counts what is there once for each choice."""
_ASKED, _THERE, _TRUE_YES, _FALSE_YES, _TRUE_NO, _NEITHER, _ELSEWHERE = range(7)
_COLUMNS = 7


def accuracy_of(judged: Sequence[Judged], kinds: Sequence[Negatives]) -> float:
    """The share of right answers about one image, as the figure of all images counts them."""
    sums_K = _sums([judged], kinds)[0].sum(0)
    return float((sums_K[_TRUE_YES] + sums_K[_TRUE_NO]) / sums_K[_ASKED])


def presence_values(
    sides: Mapping[str, Sequence[Sequence[Judged]]],
    concepts: Sequence[int],
    *,
    kinds: Sequence[Negatives],
    seed: int,
) -> dict[str, Value]:
    """The columns of a row.

    Args:
        sides: Of the answers ("") and of each control what was said of each of N images.
        concepts: Of each image, for the bootstrap: concepts are resampled, then images inside each.
        kinds: How things were chosen that are not there.
        seed: Of the bootstrap.
    """
    columns = {name: _sums(judged, kinds) for name, judged in sides.items()}
    flat_NK = np.concatenate([one.reshape(len(concepts), -1) for one in columns.values()], axis=1)
    drawn_RK = resampled_sums(flat_NK, concepts, seed=seed)
    figures: dict[str, dict[str, float]] = {}
    drawn: dict[str, dict[str, Floats]] = {}
    for place, (name, one) in enumerate(columns.items()):
        width = len(kinds) * _COLUMNS
        sums_RSK = drawn_RK[:, place * width : (place + 1) * width].reshape(-1, len(kinds), _COLUMNS)
        drawn[name] = _all_figures(sums_RSK, kinds)
        figures[name] = {key: float(values[0]) for key, values in _all_figures(one.sum(0)[None], kinds).items()}
    asked = int(columns[""].sum((0, 1))[_ASKED])
    values: dict[str, Value] = {"n_images": len(concepts), "n_questions": asked, "chance": 0.5}
    for key, measure in MEASURES.metrics.items():
        name, _, control = key.partition("_over_")
        figure, (low, high) = math.nan, Interval(math.nan, math.nan)
        if control and control in drawn:
            figure = figures[""][name] - figures[control][name]
            low, high = percentiles(drawn[""][name] - drawn[control][name])
        elif key in figures[""]:
            figure, (low, high) = figures[""][key], _interval(key, figures[""][key], drawn[""][key], asked)
        values[key] = figure
        if measure.low:
            values |= {measure.low: low, measure.high: high}
    for control in set(CONTROLS) & set(figures):
        values |= {f"{name}_{control}": figures[control][name] for name in _COMPARED}
    return values


def _interval(name: str, value: float, drawn_R: Floats, asked: int) -> Interval:
    if name in ("accuracy", "neither", "wrong_language", "yes_share") and value in (0, 1):
        return wilson_interval(round(value * asked), asked)
    return percentiles(drawn_R)


def _sums(judged: Sequence[Sequence[Judged]], kinds: Sequence[Negatives]) -> Floats:
    """[N, S, K] sums of each image and choice; what is there counts for each choice."""
    sums_NSK = np.zeros((len(judged), len(kinds), _COLUMNS))
    for row, some in enumerate(judged):
        for kind, verdict, elsewhere in some:
            first = 0 if kind is None else kinds.index(kind)
            sums_SK = sums_NSK[row, first : None if kind is None else first + 1]  # a view
            sums_SK[:, _ASKED] += 1
            sums_SK[:, _THERE] += kind is None
            sums_SK[:, _TRUE_YES] += kind is None and verdict == "yes"
            sums_SK[:, _FALSE_YES] += kind is not None and verdict == "yes"
            sums_SK[:, _TRUE_NO] += kind is not None and verdict == "no"
            sums_SK[:, _NEITHER] += not verdict
            sums_SK[:, _ELSEWHERE] += elsewhere
    return sums_NSK


def _all_figures(sums_RSK: Floats, kinds: Sequence[Negatives]) -> dict[str, Floats]:
    """By name each figure [R]: of all choices together, and of each."""
    found = _figures(sums_RSK.sum(1))
    for place, kind in enumerate(kinds):
        one = _figures(sums_RSK[:, place])
        found |= {f"{name}_{kind}": one[name] for name in _OF_KINDS}
    return found


def _figures(sums_RK: Floats) -> dict[str, Floats]:
    asked, there, true_yes, false_yes, true_no, neither, elsewhere = sums_RK.T
    yes = true_yes + false_yes
    return {
        "accuracy": _ratio(true_yes + true_no, asked),
        "f1": _ratio(2 * true_yes, yes + there),
        "precision": _ratio(true_yes, yes),
        "recall": _ratio(true_yes, there),
        "yes_share": _ratio(yes, asked),
        "neither": _ratio(neither, asked),
        "wrong_language": _ratio(elsewhere, asked),
    }


def _ratio(above_R: Floats, below_R: Floats) -> Floats:
    return np.where(below_R > 0, above_R / np.where(below_R > 0, below_R, 1), math.nan)
