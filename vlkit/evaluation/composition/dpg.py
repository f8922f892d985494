"""DPG-Bench and m-DPG from answers that are kept in a file: questions about dense prompts, some hanging on others.

DPG-Bench (ELLA, arXiv 2403.05135): yes or no questions about each image; one whose parent is answered with no counts as
no. m-DPG (NeoBabel, arXiv 2507.06137) translates prompts and leaves the questions in English.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlkit.data.formats.text_files import read_objects, read_table
from vlkit.errors import DataError
from vlkit.evaluation.composition.language_scores import ComposedScores, LanguageScore, images_a_prompt
from vlkit.evaluation.metrics.intervals import percentiles, resampled_sums
from vlkit.languages import normalize

YES = "yes"
_COLUMNS = ("item_id", "proposition_id", "dependency", "category_broad", "category_detailed")
_NO_PARENT = 0


@dataclass(frozen=True)
class DpgQuestion:
    """One question of a prompt: its number, those that it hangs on, and its categories."""

    number: int
    parents: tuple[int, ...]
    broad: str
    detailed: str


@dataclass(frozen=True)
class DpgAnswers:
    """What was answered about one image of a prompt, by number of the question."""

    item: str
    language: str
    answers: Mapping[int, str]


def image_score(questions: Sequence[DpgQuestion], answers: Mapping[int, str], *, compat: bool = False) -> float:
    """The share of questions answered with yes, none of whose parents was answered with anything else.

    A parent of a parent counts too. With ``compat``, as in the published code, it does so only where the parent stands
    before its child.

    Raises:
        DataError: A question has no answer.
    """
    right = _said_yes(questions, answers)
    if compat:
        for one in questions:
            right[one.number] &= all(right.get(parent, True) for parent in one.parents)
        return sum(right.values()) / len(right)
    parents = {one.number: one.parents for one in questions}
    return sum(_holds(number, right, parents, seen=frozenset()) for number in right) / len(right)


def _holds(
    number: int, right: Mapping[int, bool], parents: Mapping[int, Sequence[int]], *, seen: frozenset[int]
) -> bool:
    if number in seen:  # questions that hang on each other
        return True
    known = [parent for parent in parents[number] if parent in right]
    return right[number] and all(_holds(parent, right, parents, seen=seen | {number}) for parent in known)


def _said_yes(questions: Sequence[DpgQuestion], answers: Mapping[int, str]) -> dict[int, bool]:
    if missing := [one.number for one in questions if one.number not in answers]:
        raise DataError(f"no answer to question {', '.join(map(str, missing))}")
    return {one.number: answers[one.number] == YES for one in questions}


def score_dpg(
    questions: Mapping[str, Sequence[DpgQuestion]],
    answers: Sequence[DpgAnswers],
    *,
    compat: bool = False,
    seed: int = 0,
) -> ComposedScores:
    """Mean over prompts of the mean over their images, by language; parts are the shares of yes in each category.

    Categories count answers as they were given, whatever their parents' are.

    Args:
        questions: By item of the benchmark.
        answers: Of all images.
        compat: As the published code has it: parents count in the order of the file, and categories are of the last
            image of each prompt alone. (It also skips a question, see ``read_dpg_questions``.)
        seed: Of the intervals.

    Raises:
        DataError: Prompts without images or of unlike numbers of them, answers that are missing, or unknown items.
    """
    by_language: dict[str, dict[str, list[DpgAnswers]]] = {}
    for one in answers:
        if one.item not in questions:
            raise DataError(f"answers about {one.item!r}, which the benchmark does not have")
        by_language.setdefault(one.language, defaultdict(list))[one.item].append(one)
    if not by_language:
        raise DataError("there are no answers")
    scored = [_scored(tag, questions, found, compat=compat, seed=seed) for tag, found in by_language.items()]
    return ComposedScores("DPG", tuple(scored))


def _scored(
    tag: str,
    questions: Mapping[str, Sequence[DpgQuestion]],
    answered: Mapping[str, Sequence[DpgAnswers]],
    *,
    compat: bool,
    seed: int,
) -> LanguageScore:
    counts = {item: len(found) for item, found in answered.items()}
    images = images_a_prompt(counts, questions, language=tag, what="answers")
    prompt_N, said = [], defaultdict[str, list[bool]](list)
    for item, asked in questions.items():
        try:
            prompt_N.append(np.mean([image_score(asked, one.answers, compat=compat) for one in answered[item]]))
        except DataError as error:
            raise DataError(f"{tag}, {item}: {error}") from None
        for one in answered[item][-1:] if compat else answered[item]:
            right = _said_yes(asked, one.answers)
            for question in asked:
                for name in dict.fromkeys((question.broad, f"{question.broad} - {question.detailed}")):
                    said[name].append(right[question.number])
    columns_N2 = np.stack([prompt_N, np.ones(len(prompt_N))], axis=1)
    sums_R2 = resampled_sums(columns_N2, np.arange(len(prompt_N)), seed=seed)
    interval = percentiles(sums_R2[:, 0] / sums_R2[:, 1])
    parts = {name: float(np.mean(rights)) for name, rights in sorted(said.items())}
    return LanguageScore(tag, float(np.mean(prompt_N)), interval, parts, len(prompt_N), images)


def read_dpg_questions(path: Path, *, compat: bool = False) -> dict[str, list[DpgQuestion]]:
    """DPG's `dpg_bench.csv`: by item its questions, in their order.

    ``compat`` leaves the first row below the header out, as the published code does.

    Raises:
        DataError: The file is missing or of another form; the message says where.
    """

    def header(columns: Sequence[str]) -> None:
        if missing := [name for name in _COLUMNS if name not in columns]:
            raise DataError(f"{path}: no column {', '.join(missing)}")

    found: dict[str, list[DpgQuestion]] = {}
    rows = list(read_table(path, header=header))
    for line, row in rows[1:] if compat else rows:
        try:
            number = int(row["proposition_id"])
            parents = tuple(int(one) for one in row["dependency"].split(",") if one.strip())
        except ValueError as error:
            raise DataError(f"{path}:{line}: proposition_id and dependency are numbers: {error}") from None
        kept = tuple(parent for parent in parents if parent != _NO_PARENT)
        one = DpgQuestion(number, kept, row["category_broad"].strip(), row["category_detailed"].strip())
        listed = found.setdefault(row["item_id"], [])
        if any(other.number == number for other in listed):
            raise DataError(f"{path}:{line}: question {number} of {row['item_id']} stands twice")
        listed.append(one)
    if not found:
        raise DataError(f"{path} holds no questions")
    return found


def read_dpg_answers(path: Path) -> list[DpgAnswers]:
    """A JSON object a line for each image: `item`, `language`, `answers` by number of the question.

    Raises:
        DataError: The file is missing or of another form; the message says where.
        UnknownName: A language that is none.
    """
    found = []
    for where, entry in read_objects(path):
        try:
            answers = {int(number): _text(said) for number, said in entry["answers"].items()}
            one = DpgAnswers(_text(entry["item"]), _text(entry["language"]), answers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{where}: no answers about an image: {why}") from None
        found.append(replace(one, language=normalize(one.language)))
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
