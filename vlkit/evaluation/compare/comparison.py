"""Two evaluations side by side, language by language: image by image where the answers to each image were kept.

N images of a language, C classes, L languages, R bootstrap replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from vlkit.errors import DataError, some
from vlkit.evaluation.compare.model_scores import ByImage, ModelScores, align, open_scores
from vlkit.evaluation.metrics.intervals import Interval, bootstrap_mean, paired_comparison, paired_means
from vlkit.evaluation.report.breakdown import Breakdown, by_tier_and_script
from vlkit.evaluation.report.markdown import markdown_table, percent
from vlkit.evaluation.results.frames import HTML_ROWS, RowSequence, how_many
from vlkit.evaluation.results.notebook_table import language_html
from vlkit.evaluation.results.results_file import ResultRow, Value, csv_text
from vlkit.foreign import markdown_text
from vlkit.notebook import FILL, OTHER, bar, quiet, said, table

_REPLICATES = 1000
_UNLIKE: Mapping[str, str] = {
    "images": "not the same images, so that the difference has no interval; evaluate both on the same ones",
    "class_sets": "other classes; left out",
    "caption_sets": "other captions, or of other images; left out",
    "label_sets": "the classes have other names",
    "template_sets": "other prompts",
}  # by digests of ``provenance``: a comparison of prompts or names may be meant


@dataclass(frozen=True)
class LanguagePair:
    """Two scores in one language; scores are shares in 0..1, the difference is the first less the second.

    ``low``, ``high`` (95 % interval) and ``p_value`` are NaN where the answers to each image are not known.
    """

    task: str
    language: str
    metric: str
    """The headline of the task's kind or, where published scores have just that, ``Measures.published``."""
    num_classes: int
    """0 where there are none."""
    n_images: int
    one: float
    other: float
    difference: float
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    one_english: float = math.nan
    """Top-1 with the English names of the same classes, on the same images."""
    other_english: float = math.nan

    @property
    def paired(self) -> bool:
        """Whether the difference has an interval."""
        return not math.isnan(self.low)

    @property
    def state(self) -> int:
        """1 where the first is ahead, -1 where the second is, 0 where neither: by the interval where there is one."""
        low, high = (self.low, self.high) if self.paired else (self.difference, self.difference)
        return (low > 0) - (high < 0)


@dataclass(frozen=True)
class MeanDifference:
    """Mean difference over the languages of a task, a share, with its 95 % interval (NaN for a single language).

    Where all languages are paired, ``resampled`` are classes, the same ones in every language: the languages share
    their images, and resampling them as if they were independent would give too narrow an interval.
    """

    task: str
    languages: int
    value: float
    low: float
    high: float
    resampled: str
    """``classes`` or ``languages``."""


@dataclass(frozen=True)
class Comparison(RowSequence[LanguagePair]):
    """Two models by task and language, the greatest lead of the first at the top; iterating gives the rows."""

    one: str
    other: str
    rows: tuple[LanguagePair, ...]
    means: tuple[MeanDifference, ...]
    """One a task."""
    notes: tuple[str, ...] = ()
    """What could not be compared, and why."""
    provenance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """For each model what its file says of its making."""

    def ahead(self, task: str) -> tuple[int, int, int]:
        """In how many languages the first is ahead, the second is, and how many have an interval at all."""
        known = [row for row in self.rows if row.task == task and row.paired]
        return sum(row.state > 0 for row in known), sum(row.state < 0 for row in known), len(known)

    def csv(self) -> str:
        """The rows as CSV, shares rounded to 6 digits, empty where not known."""
        return csv_text([*self._names(), *(one.name for one in fields(LanguagePair))], self.records())

    def records(self) -> list[dict[str, Any]]:
        """See ``RowSequence.records``; ``one`` and ``other`` are the scores of ``model`` and ``other_model``."""
        return [{**self._names(), **asdict(row)} for row in self.rows]

    def _names(self) -> dict[str, str]:
        return {"model": self.one, "other_model": self.other}

    def _items(self) -> tuple[LanguagePair, ...]:
        return self.rows

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headers and rows of a table for readers: percent, differences in points."""
        headers = ("language", "task", "classes", self.one, self.other, "difference", "95 % interval", "p")
        english = any(not math.isnan(row.one_english) for row in self.rows)
        return headers + (("English: " + self.one, self.other) if english else ()), [
            (
                row.language,
                row.task,
                str(row.num_classes or ""),
                percent(row.one),
                percent(row.other),
                f"{100 * row.difference:+.1f}",
                signed_span(row.low, row.high),
                f"{row.p_value:.3f}" if row.paired else "",
                *((percent(row.one_english), percent(row.other_english)) if english else ()),
            )
            for row in self.rows
        ]

    def _repr_html_(self) -> str:
        shown = self.rows[:HTML_ROWS]
        reach = max(
            [1e-9, *(abs(x) for row in shown for x in (row.difference, row.low, row.high) if not math.isnan(x))]
        )
        rows = [
            [
                language_html(row.language),
                row.task,
                percent(row.one),
                percent(row.other),
                bar(row.difference, low=row.low, high=row.high, start=-reach, end=reach, color=_side(row.difference)),
                f"{100 * row.difference:+.1f}",
                quiet(signed_span(row.low, row.high)),
            ]
            for row in shown
        ]
        headers = ("language", "task", self.one, self.other, "", "difference", "95 % interval")
        said_below = "".join(f"<p>{said(line)}</p>" for line in self.summary())
        right = (self.one, self.other, "difference")
        return table(headers, rows, right=right, below=how_many(len(shown), len(self), what="rows")) + said_below

    def summary(self) -> list[str]:
        """For each task the mean difference, and in how many languages which model is ahead."""
        lines = []
        for mean in self.means:
            said = f"{mean.task}: mean difference of {mean.languages} languages {100 * mean.value:+.1f} points"
            if span := signed_span(mean.low, mean.high):
                said += f" ({span}, {mean.resampled} resampled)"
            one, other, known = self.ahead(mean.task)
            if known:
                said += f"; by the intervals, {self.one} is ahead in {one}, {self.other} in {other} of {known}"
            lines.append(said)
        return lines

    def markdown(self) -> str:
        """The table, the summary, and mean differences by lexicon tier and script, as Markdown."""
        headers, rows = self.cells()
        lines = [*markdown_table(headers, rows, text_columns=2), ""]
        said = (*self.summary(), *(f"note: {note}" for note in self.notes))
        lines += [f"- {markdown_text(line)}" for line in said]
        for task in self.tasks:
            for one in self.by_kind(task):
                cells = [
                    (
                        group.group,
                        str(len(group.languages)),
                        f"{100 * group.mean:+.1f}",
                        signed_span(group.low, group.high),
                    )
                    for group in one.groups
                ]
                lines += ["", f"{markdown_text(task)}: mean difference by {one.title}", ""]
                lines += markdown_table(("group", "languages", "difference", "95 % interval"), cells)
        return "\n".join([*lines, ""])

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the rows."""
        return tuple(dict.fromkeys(row.task for row in self.rows))

    def by_kind(self, task: str) -> list[Breakdown]:
        """Mean differences by lexicon tier and script, languages resampled; English is in none."""
        values = {row.language: row.difference for row in self.rows if row.task == task}
        return [one for one in by_tier_and_script(values) if one.groups]


def _side(difference: float) -> str:
    """The colour of the model that is ahead."""
    return FILL if difference >= 0 else OTHER


def compare(
    one: str | Path,
    other: str | Path,
    *,
    models: tuple[str, str] | None = None,
    task: str | None = None,
    seed: int = 0,
) -> Comparison:
    """Compares two models on the tasks and languages that both were evaluated on.

    Where both evaluations kept their answers and are of the same images and classes, the difference is paired: its
    interval resamples classes, then images inside each (``metrics.intervals.paired_comparison``).

    Args:
        one: A results file, the folder of an evaluation, or published scores (``model_scores.open_scores``).
        other: The second one; it may be the same file, where that holds several models.
        models: Names of the two, where a file holds several.
        task: Compare this task alone; needed where published scores could stand for several.
        seed: Of the bootstrap.

    Raises:
        DataError: A file that is missing or wrong, or no task and language in both.
        VlkitError: A file of several models, and none named.
    """
    first, second = align(
        *(open_scores(path, None if models is None else models[place]) for place, path in enumerate((one, other))),
        task=task,
    )
    notes: list[str] = []
    rows = list(_pairs(first, second, notes, seed))
    if not rows:
        raise DataError(
            f"{one} and {other} have no task and language in common"
            + "".join(f"; {note}" for note in notes)
            + f"; tasks: {_tasks(first)}, and {_tasks(second)}"
        )
    rows.sort(key=lambda row: (row.task, -row.difference, row.language))
    tasks = dict.fromkeys(row.task for row in rows)
    means = [_mean(first, second, [row for row in rows if row.task == task], seed) for task in tasks]
    names = (first.variant, second.variant)
    if first.variant == second.variant:
        names = (_long_name(first), _long_name(second))
    made = dict(zip(names, (first.results.meta, second.results.meta), strict=True))
    return Comparison(*names, tuple(rows), tuple(means), tuple(notes), made)


def _pairs(first: ModelScores, second: ModelScores, notes: list[str], seed: int) -> Iterator[LanguagePair]:
    unlike: dict[tuple[str, str], list[str]] = {}  # languages by task and what differs
    for key, row, against in _shared(first.rows(), second.rows(), notes):
        measures = row.measures
        alike = [name for name in measures.alike if name in row.values and name in against.values]
        if not all(_alike(row.values[name], against.values[name]) for name in alike):
            sizes = (f"{row.values[name]} and {against.values[name]} {measures.alike[name]}" for name in alike)
            notes.append(f"{' '.join(key)}: {', '.join(sizes)}; left out")
            continue
        figures = (measures.headline, measures.published)
        metric = next((name for name in figures if name in row.values and name in against.values), None)
        if metric is None:
            notes.append(f"{' '.join(key)}: {measures.headline} is not in both; left out")
            continue
        found = [kind for kind in _UNLIKE if _differs(first, second, kind, key)]
        barred = next((kind for kind in found if _UNLIKE[kind].endswith("left out")), None)
        for kind in found if barred is None else [barred]:
            unlike.setdefault((row.task, kind), []).append(row.language)
        if barred is not None:
            continue
        low, high, p_value = _paired(first, second, key, seed)
        yield LanguagePair(
            task=row.task,
            language=row.language,
            metric=metric,
            num_classes=_count(row, against, "num_classes"),
            n_images=_count(row, against, "n_images"),
            one=row[metric],
            other=against[metric],
            difference=row[metric] - against[metric],
            low=low,
            high=high,
            p_value=p_value,
            one_english=row[measures.english],
            other_english=against[measures.english],
        )
    notes += [f"{task} {some(tags, most=8)}: {_UNLIKE[kind]}" for (task, kind), tags in unlike.items()]


def _differs(first: ModelScores, second: ModelScores, kind: str, key: tuple[str, str]) -> bool:
    """Whether both files say of a language of a task, or of the task, what it is, and not the same."""
    of = key[:1] if kind == "images" else key
    one, other = first.fact(kind, *of), second.fact(kind, *of)
    return None not in (one, other) and one != other


def _paired(first: ModelScores, second: ModelScores, key: tuple[str, str], seed: int) -> tuple[float, float, float]:
    found = _answers(first, second, key)
    if found is None:
        return math.nan, math.nan, math.nan
    one, other = found
    right = all(np.isin(side.value_N, (0, 1)).all() for side in found)
    pair = paired_comparison if right else paired_means
    compared = pair(one.value_N, other.value_N, one.class_N, seed=seed)
    return compared.low, compared.high, compared.p_value


def _answers(first: ModelScores, second: ModelScores, key: tuple[str, str]) -> tuple[ByImage, ByImage] | None:
    """How both models answered to the same images; None where they are of others, or were not kept."""
    images, one, other = first.fact("images", key[0]), first.by_image(*key), second.by_image(*key)
    if images is None or images != second.fact("images", key[0]) or one is None or other is None:
        return None
    same = np.array_equal(one.image_N, other.image_N) and np.array_equal(one.class_N, other.class_N)
    return (one, other) if same else None


def _mean(first: ModelScores, second: ModelScores, rows: list[LanguagePair], seed: int) -> MeanDifference:
    differences = [row.difference for row in rows]
    value = sum(differences) / len(rows)
    if all(row.paired for row in rows):
        pairs = [pair for row in rows if (pair := _answers(first, second, (row.task, row.language)))]
        interval, resampled = _joint(pairs, seed), "classes"
    else:
        interval = bootstrap_mean(differences, seed=seed) if len(rows) > 1 else Interval(math.nan, math.nan)
        resampled = "languages"
    return MeanDifference(rows[0].task, len(rows), value, interval.low, interval.high, resampled)


def _joint(pairs: list[tuple[ByImage, ByImage]], seed: int) -> Interval:
    """Interval of the mean over L languages of the difference, R times with C classes drawn for all of them at once."""
    classes_C = np.unique(np.concatenate([one.class_N for one, _ in pairs]))
    gap_CL, count_CL = np.zeros((2, len(classes_C), len(pairs)))
    for column, (one, other) in enumerate(pairs):
        place_N = np.searchsorted(classes_C, one.class_N)
        gap_N = one.value_N - other.value_N
        gap_CL[:, column] = np.bincount(place_N, weights=gap_N, minlength=len(classes_C))
        count_CL[:, column] = np.bincount(place_N, minlength=len(classes_C))
    share_C = np.full(len(classes_C), 1 / len(classes_C))
    drawn_RC = np.random.default_rng(seed).multinomial(len(classes_C), share_C, size=_REPLICATES)
    with np.errstate(invalid="ignore"):
        mean_RL = (drawn_RC @ gap_CL) / (drawn_RC @ count_CL)  # NaN where no class of a language was drawn
    mean_RL = mean_RL[~np.isnan(mean_RL).all(axis=1)]
    low, high = np.quantile(np.nanmean(mean_RL, axis=1), [0.025, 0.975])
    return Interval(float(low), float(high))


def _alike(one: Value, other: Value) -> bool:
    """Whether two settings or counts agree; 0 is a count that published scores do not say."""
    return one == other or 0 in (one, other)


def _count(row: ResultRow, against: ResultRow, name: str) -> int:
    return int(row.values.get(name, 0) or against.values.get(name, 0))


def _long_name(side: ModelScores) -> str:
    return side.variant if side.folder is None else f"{side.folder.resolve().name}/{side.variant}"


def _shared(
    one: Mapping[tuple[str, str], ResultRow], other: Mapping[tuple[str, str], ResultRow], notes: list[str]
) -> Iterator[tuple[tuple[str, str], ResultRow, ResultRow]]:
    for name, here, there in (("first", one, other), ("second", other, one)):
        if alone := [" ".join(key) for key in here if key not in there]:
            notes.append(f"only in the {name}: {some(alone, most=8)}")
    for key in one:
        if key in other:
            yield key, one[key], other[key]


def _tasks(side: ModelScores) -> str:
    return ", ".join(side.results.tasks) or "none"


def signed_span(low: float, high: float) -> str:
    """An interval in points with signs; empty where it is not known."""
    return "" if math.isnan(low) else f"{100 * low:+.1f} to {100 * high:+.1f}"
