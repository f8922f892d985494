"""Two tables of scores correlated: over languages, over models, with and without English, number of classes fixed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from vlkit.errors import DataError, VlkitError
from vlkit.evaluation.compare.model_scores import PREFIX, is_released
from vlkit.evaluation.compare.reference import read_babel_scores, reference
from vlkit.evaluation.metrics.correlation import Correlation, Estimate, correlate
from vlkit.evaluation.report.breakdown import is_english
from vlkit.evaluation.results.results_file import RESULTS, Results
from vlkit.paths import local_path

_FEWEST = 3  # points that a correlation needs
_REPLICATES = 500
LOG_CLASSES = "log-classes"


@dataclass(frozen=True)
class ScoreTable:
    """Scores (shares in 0..1) by model and BCP 47 tag; numbers of classes by tag, where they are known."""

    name: str
    metric: str
    scores: Mapping[tuple[str, str], float]
    num_classes: Mapping[str, int]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in the order of the table."""
        return tuple(dict.fromkeys(model for model, _ in self.scores))


@dataclass(frozen=True)
class Finding:
    """One correlation of two tables, with English or without; ``given`` is what was held fixed, empty for nothing.

    ``points`` says what the points are: ``all`` (models and languages), ``models`` (means over languages) or the name
    of a model (over languages).
    """

    points: str
    english: bool
    given: str
    correlation: Correlation


def read_scores(where: str | Path, *, task: str | None = None) -> ScoreTable:
    """Reads a table of scores.

    Args:
        where: ``reference:babel_imagenet`` (all models of a published table), ``reference:babel_imagenet/OC-B32``
            (one), a results file or the folder of an evaluation, or a released result file of Babel-ImageNet.
        task: Which one of a results file; needed where there are several. Top-1 is taken of classification, text to
            image recall at 1 of retrieval.

    Raises:
        DataError: A file that is missing or wrong.
        UnknownName: No such table, model or task.
        VlkitError: Several tasks, and none named.
    """
    if str(where).startswith(PREFIX):
        return _reference(str(where))
    path = local_path(where)
    path = path / RESULTS if path.is_dir() else path
    if is_released(path):
        return _released(path)
    results = Results.load(path)
    tasks = results.tasks
    if task is None and len(tasks) != 1:
        raise VlkitError(f"{path} holds {len(tasks)} tasks; name one with --task: {', '.join(tasks)}")
    task = tasks[0] if task is None else task
    rows = [row for variant in results.variants for row in results.of(variant, task=task).values()]
    measures = results.measures(task)
    figure = measures.published or measures.headline
    scores = {(row.variant, row.language): row[figure] for row in rows}
    counts = {row.language: int(row["num_classes"]) for row in rows if "num_classes" in row.values}
    return ScoreTable(task, measures.title(figure), scores, counts)


def correlate_tables(
    one: ScoreTable, other: ScoreTable, *, given: str = "", replicates: int = _REPLICATES, seed: int = 0
) -> list[Finding]:
    """Correlates two tables on the models and languages that both have.

    Each correlation is given with English and without; with ``given`` also with that held fixed. Points of all models
    resample languages, since one language's points stand or fall together; where each table has a single model, the two
    are correlated whatever they are called. ``given`` is ``log-classes``, which holds the logarithm of the number of
    classes fixed, or empty; with ``replicates`` of 0 there are no intervals.

    Raises:
        DataError: Fewer than three points in common, or ``given`` and neither table says how many classes there are.
    """
    if given not in ("", LOG_CLASSES):
        raise VlkitError(f"given = {given!r}; allowed: {LOG_CLASSES}")
    points = _common(one, other)
    if len(points) < _FEWEST:
        raise DataError(
            f"{one.name} and {other.name} have {len(points)} points in common, a correlation needs {_FEWEST}; models: "
            f"{', '.join(one.models)}, and {', '.join(other.models)}"
        )
    counts = {**other.num_classes, **one.num_classes}
    if given and not all(counts.get(point.language) for point in points):
        raise DataError(
            f"neither {one.name} nor {other.name} says how many classes every language has: leave out --given"
        )
    found = []
    for english in (True, False):
        chosen = [point for point in points if english or not is_english(point.language)]
        if not english and len(chosen) == len(points):
            continue  # there is no English to leave out
        for name, kept in _selections(chosen):
            for fixed in dict.fromkeys(("", given)):
                if name == "models" and fixed:
                    continue  # all models have the same languages
                held = [math.log(counts[point.language]) for point in kept] if fixed else None
                if len(kept) >= _FEWEST:
                    correlation = correlate(
                        [point.one for point in kept],
                        [point.other for point in kept],
                        given=held,
                        clusters=[point.language for point in kept] if name == "all" else None,
                        replicates=replicates,
                        seed=seed,
                    )
                    found.append(Finding(name, english, fixed, correlation))
    return found


def cells(findings: Sequence[Finding]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and rows of a table for readers."""
    headers = ("points", "English", "held fixed", "n", "Pearson", "Spearman", "Kendall")
    return headers, [
        (
            one.points,
            "with" if one.english else "without",
            one.given,
            str(one.correlation.n),
            *(_cell(estimate) for estimate in one.correlation[1:]),
        )
        for one in findings
    ]


@dataclass(frozen=True)
class _Point:
    model: str
    language: str
    one: float
    other: float


def _common(one: ScoreTable, other: ScoreTable) -> list[_Point]:
    single = len(one.models) == len(other.models) == 1
    points = []
    for (model, language), score in one.scores.items():
        key = (other.models[0] if single else model, language)
        if key in other.scores:
            points.append(_Point(model, language, score, other.scores[key]))
    return points


def _selections(points: Sequence[_Point]) -> Iterator[tuple[str, list[_Point]]]:
    """All points, means of models over the languages that all have, and the points of each model."""
    models = list(dict.fromkeys(point.model for point in points))
    if len(models) > 1:
        yield "all", list(points)
        by_model = {model: {point.language: point for point in points if point.model == model} for model in models}
        if shared := sorted(set.intersection(*(set(found) for found in by_model.values()))):
            means = []
            for model, found in by_model.items():
                same = [found[tag] for tag in shared]
                means.append(_Point(model, "", fmean(one.one for one in same), fmean(one.other for one in same)))
            yield "models", means
    for model in models:
        yield model, [point for point in points if point.model == model]


def _reference(where: str) -> ScoreTable:
    name, _, model = where.removeprefix(PREFIX).partition("/")
    table = reference(name)
    models = [model] if model else list(table.models)
    scores = {(one, tag): score for one in models for tag, score in table.of(one).items()}
    counts = {tag: table.classes_of(tag) for tag in table.scores} if table.num_classes else {}
    return ScoreTable(name, table.metric, scores, counts)


def _released(path: Path) -> ScoreTable:
    rows = sorted(read_babel_scores(path), key=lambda row: row.prompt == "label")  # translated templates go first
    scores: dict[tuple[str, str], float] = {}
    for row in rows:
        scores.setdefault((path.stem, row.language), row.accuracy)
    return ScoreTable(path.stem, "top-1", scores, {row.language: row.num_classes for row in rows if row.num_classes})


def _cell(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return "" if math.isnan(estimate.value) else f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.2f}, {estimate.high:.2f}]"
