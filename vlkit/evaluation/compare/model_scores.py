"""The scores of one model, to be compared: an evaluation of one's own, or a published table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.compare.reference import BabelScore, read_babel_scores, reference
from vlkit.evaluation.metrics.intervals import chance, chance_corrected
from vlkit.evaluation.results.answers import read_answers
from vlkit.evaluation.results.results_file import RESULTS, ResultRow, Results, Value
from vlkit.evaluation.results.written import read_written
from vlkit.evaluation.tasks.retrieval_task import MEASURES as RETRIEVAL
from vlkit.evaluation.tasks.zero_shot_task import MEASURES as ZERO_SHOT
from vlkit.foreign import read_json
from vlkit.paths import local_path

PREFIX = "reference:"
RECALL = "image_retrieval_recall@1"  # what the published table of retrieval gives
_BARE = "label"  # a prompt: the bare name
_ENGLISH = "openai_en"  # a prompt of the released files: names in English templates


class ByImage(NamedTuple):
    """Of N images their rows in the task, the classes that are resampled together, and a figure of each in 0..1."""

    image_N: npt.NDArray[np.integer]
    class_N: npt.NDArray[np.integer]
    value_N: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelScores:
    """Scores of one model, ``variant``, among results that may hold others."""

    results: Results
    folder: Path | None
    """Where they are, with the answers; None for published scores."""
    variant: str

    def rows(self) -> dict[tuple[str, str], ResultRow]:
        """Its rows by task and language."""
        return {(row.task, row.language): row for row in self.results.rows if row.variant == self.variant}

    @property
    def tasks(self) -> list[str]:
        """Tasks that this model has rows of."""
        return list(dict.fromkeys(task for task, _ in self.rows()))

    def by_image(self, task: str, language: str) -> ByImage | None:
        """The headline of this model alone image by image, where its answers were kept.

        A file of several models has no such folder. Of answers in words it is a figure of each, of others whether each
        is right.
        """
        if self.folder is None:
            return None
        if (found := read_answers(self.folder, task, language)) is not None:
            return ByImage(found.image_N, found.class_N, (found.rank_N == 1).astype(np.float64))
        written = read_written(self.folder, task, language)
        headline = self.results.measures(task).headline
        if not written or any(headline not in one.figures for one in written):
            return None
        return ByImage(
            np.array([one.image for one in written]),
            np.array([one.concept for one in written]),
            np.array([one.figures[headline] for one in written]),
        )

    def fact(self, kind: str, task: str, language: str = "") -> Any:
        """What the file says of a task (``images``), or of a language of it (``label_sets``); None if nothing."""
        found = self.results.meta.get(kind)
        for key in (task, language) if language else (task,):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    @property
    def figure(self) -> str:
        """The figure that published tables of its kind give."""
        measures = self.results.rows[0].measures
        return measures.published or measures.headline

    @property
    def published(self) -> bool:
        """Whether these scores are of somebody else, by another name of the task and without answers."""
        return self.folder is None

    def only(self, task: str) -> ModelScores:
        """The rows of one task.

        Raises:
            UnknownName: No such task.
        """
        if task not in self.tasks:
            raise UnknownName(f"task of {self.variant}", task, allowed=self.tasks)
        return replace(self, results=self.results.only(task))


def open_scores(where: str | Path, variant: str | None = None) -> ModelScores:
    """Opens scores.

    Args:
        where: A results file, the folder of an evaluation, a released result file of Babel-ImageNet, or
            ``reference:TABLE/MODEL`` for a published table (``reference:babel_imagenet/OC-B32``).
        variant: The model, where there are several.

    Raises:
        DataError: A file that is missing or wrong.
        UnknownName: No such table or model.
        VlkitError: Several models, and none named.
    """
    if str(where).startswith(PREFIX):
        return _table(str(where), variant)
    path = local_path(where)
    path = path / RESULTS if path.is_dir() else path
    if is_released(path):
        return _released(path, variant)
    results = Results.load(path)
    variants = results.variants
    if variant is None:
        if len(variants) != 1:
            raise VlkitError(f"{path} holds {len(variants)} models; name the two: --models {','.join(variants)}")
        variant = variants[0]
    if variant not in variants:
        raise UnknownName(f"model in {path}", variant, allowed=variants)
    return ModelScores(results, path.parent, variant)


def align(one: ModelScores, other: ModelScores, *, task: str | None = None) -> tuple[ModelScores, ModelScores]:
    """Gives published scores the name that the other side has for the task, so that both have it in common.

    Of the prompts of a released file, the bare names are taken where the other side has bare names; else the translated
    templates where there are some, and the bare names in the other languages, as in the published tables. ``task`` is
    the one of one's own that is compared; it is needed where there are several of a kind.

    Raises:
        UnknownName: No such task.
        VlkitError: Several tasks that the published scores could be of.
    """
    if task is not None:
        one, other = (side if side.published else side.only(task) for side in (one, other))
    if one.published and other.published:
        return _prompted(one, bare=False), _prompted(other, bare=False)
    if one.published:
        return _named(one, other), other
    return one, _named(other, one) if other.published else other


def _named(published: ModelScores, own: ModelScores) -> ModelScores:
    measures = published.results.rows[0].measures
    tasks = [task for task in own.tasks if published.figure in own.results.measures(task).metrics]
    if not tasks:
        what = measures.kind.replace("_", "-")
        raise DataError(f"{published.variant} has published scores of {what}, but {own.variant} has no such task")
    (theirs,) = published.tasks
    name = next((task for task in tasks if _fold(task) == _fold(theirs)), None)
    if name is None:
        if len(tasks) > 1:
            raise VlkitError(
                f"{own.variant} has {len(tasks)} tasks that {theirs} could stand for; name one: --task {tasks[0]} "
                f"(there are: {', '.join(tasks)})"
            )
        name = tasks[0]
    bare = {row.text("prompt") for (task, _), row in own.rows().items() if task == name} == {_BARE}
    chosen = _prompted(published, bare=bare).results
    return replace(published, results=replace(chosen, rows=tuple(replace(row, task=name) for row in chosen.rows)))


def _prompted(side: ModelScores, *, bare: bool) -> ModelScores:
    """One row a language: of the bare names, or of the others where there are some."""
    chosen: dict[str, ResultRow] = {}
    for row in sorted(
        side.results.rows, key=lambda row: (row.text("prompt") == _ENGLISH, (row.text("prompt") == _BARE) != bare)
    ):
        chosen.setdefault(row.language, row)
    return replace(side, results=replace(side.results, rows=tuple(chosen.values())))


def _table(where: str, variant: str | None) -> ModelScores:
    name, _, model = where.removeprefix(PREFIX).partition("/")
    table = reference(name)
    model = variant or model
    if not model:
        raise VlkitError(f"{where} holds {len(table.models)} models; name one: {where}/{next(iter(table.models))}")
    scores = table.of(model)
    meta = {"published": f"{table.name}: {table.metric}", "models": {model: table.models[model]}}
    rows = [
        published_row(name, model, BabelScore(tag, "published", table.classes_of(tag), score))
        if table.num_classes
        else ResultRow(name, model, tag, {RECALL: score}, RETRIEVAL)
        for tag, score in scores.items()
    ]
    return ModelScores(Results(meta, tuple(rows)), None, model)


def _released(path: Path, variant: str | None) -> ModelScores:
    model = variant or path.stem
    rows = [published_row("babel_imagenet", model, score) for score in read_babel_scores(path)]
    return ModelScores(Results({"published": str(path)}, tuple(rows)), None, model)


def published_row(task: str, model: str, score: BabelScore) -> ResultRow:
    """A published accuracy as a row; how many images it is of is not known (0), nor is its interval."""
    count = score.num_classes
    values: dict[str, Value] = {
        "prompt": score.prompt,
        "num_classes": count,
        "n_images": 0,
        "acc1": score.accuracy,
        "chance": chance(count) if count else math.nan,
        "chance_corrected": chance_corrected(score.accuracy, count) if count else math.nan,
    }
    return ResultRow(task, model, score.language, values, ZERO_SHOT)


def is_released(path: Path) -> bool:
    """Whether a file has the form of Babel-ImageNet's own results."""
    try:
        rows = read_json(path)["results"]
        return bool(rows) and "lang" in rows[0] and "accuracy" in rows[0]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False  # what is wrong with it is said by the reader of our own files


def _fold(name: str) -> str:
    return name.casefold().replace("_", "-")
