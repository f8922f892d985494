"""How well each class is known, in each language and over languages, from the kept answers.

N images, P pairs of a class and a wrong answer to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from vlkit.evaluation.results.answers import Answers, read_answers
from vlkit.evaluation.results.results_file import csv_text

COLUMNS = ("task", "variant", "language", "class", "title", "n_images", "acc1", "mean_reciprocal_rank", "most_often",
           "most_often_title", "most_often_share")  # fmt: skip


@dataclass(frozen=True)
class ClassScore:
    """One class: in one language, or the unweighted mean over the languages (BCP 47) that name it."""

    class_id: int
    title: str
    """What it may be called; empty where nothing may be written, or nothing is known."""
    languages: tuple[str, ...]
    n_images: int
    """In one language, the most where they differ."""
    accuracy: float
    reciprocal_rank: float
    """Mean of 1 / rank of the right class: which of two classes that are always missed is nearer."""
    confused_with: int | None = None
    """The most frequent wrong answer; None where answers were not kept, or none is wrong."""
    confused_title: str = ""
    confused_share: float = math.nan
    """Its share of all answers; over languages, counted where it is the most frequent one."""
    answers: int = 0
    """To all its images in all these languages."""
    right: int = 0
    confused: int = 0
    """How often it was taken for ``confused_with``, counted as ``confused_share`` is."""


@dataclass(frozen=True)
class ClassTable:
    """All classes of a task: by BCP 47 tag, then by number; ``titles`` is empty where nothing may be written."""

    task: str
    variant: str
    by_language: Mapping[str, Mapping[int, ClassScore]]
    titles: Sequence[str] = ()

    @classmethod
    def read(
        cls, folder: Path, task: str, languages: Iterable[str], *, variant: str = "", titles: Sequence[str] = ()
    ) -> ClassTable | None:
        """From the answers that an evaluation left in its folder; None where it kept none.

        Raises:
            DataError: A file of answers is damaged.
        """
        found = {
            tag: language_classes(answers, tag, titles=titles)
            for tag in languages
            if (answers := read_answers(folder, task, tag)) is not None
        }
        return cls(task, variant, found, titles) if found else None

    def overall(self) -> list[ClassScore]:
        """Each class over the languages that name it, English left out where there are others; worst first."""
        foreign = {tag: found for tag, found in self.by_language.items() if tag.split("-")[0] != "en"}
        gathered: dict[int, list[ClassScore]] = {}
        for found in (foreign or self.by_language).values():
            for class_id, score in found.items():
                gathered.setdefault(class_id, []).append(score)
        return worst_first(_over_languages(scores, self.titles) for scores in gathered.values())

    def csv(self) -> str:
        """One line for each class and language, header first; no name of a class but the titles."""
        rows = [
            (self.task, self.variant, tag, one.class_id, one.title, one.n_images, one.accuracy, one.reciprocal_rank,
             one.confused_with, one.confused_title, one.confused_share)
            for tag, found in self.by_language.items()
            for one in found.values()
        ]  # fmt: skip
        return csv_text(COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in rows])


def language_classes(answers: Answers, language: str, *, titles: Sequence[str] = ()) -> dict[int, ClassScore]:
    """Each class of one language that has images, by its number; ``titles`` (by class) may be empty."""
    ids_K, place_N = np.unique(answers.class_N, return_inverse=True)
    count_K = np.bincount(place_N)
    right_K = np.bincount(place_N, weights=answers.rank_N == 1)
    reciprocal_K = np.bincount(place_N, weights=1 / answers.rank_N) / count_K
    confused = _most_often(answers)
    scores = {}
    for place, class_id in enumerate(ids_K.tolist()):
        other, count = confused.get(class_id, (None, 0))
        scores[class_id] = ClassScore(
            class_id,
            _title(titles, class_id),
            (language,),
            int(count_K[place]),
            float(right_K[place] / count_K[place]),
            float(reciprocal_K[place]),
            other,
            _title(titles, other),
            count / int(count_K[place]) if other is not None else math.nan,
            answers=int(count_K[place]),
            right=int(right_K[place]),
            confused=count,
        )
    return scores


def worst_first(scores: Iterable[ClassScore]) -> list[ClassScore]:
    """By accuracy, then by how far from the top the right class is."""
    return sorted(scores, key=lambda one: (one.accuracy, one.reciprocal_rank, one.class_id))


def _most_often(answers: Answers) -> dict[int, tuple[int, int]]:
    """The wrong answer that each class gets most often, and how often; of equals the one with the lower number."""
    wrong_N = (answers.rank_N > 1) & (answers.answer_N >= 0)
    pairs_P2, count_P = np.unique(
        np.stack([answers.class_N[wrong_N], answers.answer_N[wrong_N]], axis=1), axis=0, return_counts=True
    )
    best: dict[int, tuple[int, int]] = {}
    for (class_id, other), count in zip(pairs_P2.tolist(), count_P.tolist(), strict=True):
        if class_id not in best or count > best[class_id][1]:
            best[class_id] = (other, count)
    return best


def _over_languages(scores: list[ClassScore], titles: Sequence[str]) -> ClassScore:
    """The mean, and what is the most frequent wrong answer of the most languages."""
    votes: dict[int, float] = {}
    for score in scores:
        if score.confused_with is not None:
            votes[score.confused_with] = votes.get(score.confused_with, 0.0) + score.confused_share
    other = min(votes, key=lambda one: (-votes[one], one)) if votes else None
    return ClassScore(
        scores[0].class_id,
        scores[0].title,
        tuple(tag for score in scores for tag in score.languages),
        max(score.n_images for score in scores),
        fmean(score.accuracy for score in scores),
        fmean(score.reciprocal_rank for score in scores),
        other,
        _title(titles, other),
        votes[other] / len(scores) if other is not None else math.nan,
        answers=sum(score.answers for score in scores),
        right=sum(score.right for score in scores),
        confused=sum(score.confused for score in scores if score.confused_with == other),
    )


def _title(titles: Sequence[str], class_id: int | None) -> str:
    return titles[class_id] if class_id is not None and class_id < len(titles) else ""
