"""GenEval and m-GenEval from detections that are kept in a file: objects, counts, colours, positions.

GenEval (arXiv 2310.11513): 553 prompts of six tasks; m-GenEval (NeoBabel, arXiv 2507.06137) translates the prompts and
leaves what is looked for as it is, so that one file of detections a language is all that is needed, and no detector.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from vlkit.data.formats.text_files import read_objects
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.composition.boxes import COLORS, RELATIONS, FoundObject, Relation, relations
from vlkit.evaluation.composition.language_scores import ComposedScores, LanguageScore, images_a_prompt
from vlkit.evaluation.metrics.intervals import percentiles, resampled_sums
from vlkit.languages import normalize

COUNTING = "counting"
THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
_MOST = 16  # instances of a class


@dataclass(frozen=True)
class Clause:
    """So many instances of a class; of a color; in a relation to those of an earlier clause, by its number."""

    name: str
    count: int
    color: str = ""
    position: tuple[Relation, int] | None = None


@dataclass(frozen=True)
class GenEvalPrompt:
    """What has to be on an image: all of ``include``, and of a class of ``exclude`` fewer than its count."""

    tag: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...] = ()


@dataclass(frozen=True)
class Detections:
    """What was found on one image: ``prompt`` is the number of its prompt, from 0."""

    prompt: int
    language: str
    objects: tuple[FoundObject, ...]


def holds(prompt: GenEvalPrompt, objects: Sequence[FoundObject]) -> bool:
    """Whether an image shows what its prompt says, as GenEval's own evaluation decides it.

    Instances count whose score is above 0.3 (0.9 for counting), at most 16 of a class; of a clause the most certain
    ones are looked at, as many as it asks for.

    Raises:
        DataError: A colour is asked for, and none is said of an object.
    """
    seen = _kept(objects, threshold=COUNTING_THRESHOLD if prompt.tag == COUNTING else THRESHOLD)
    matched: list[Sequence[FoundObject]] = []
    right = True
    for clause in prompt.include:
        found = seen.get(clause.name, ())[: clause.count]
        fits = len(found) == clause.count and _has_color(clause, found) and _has_place(clause, found, matched)
        matched.append(found if fits else ())
        right = right and fits
    return right and all(len(seen.get(clause.name, ())) < clause.count for clause in prompt.exclude)


def _kept(objects: Sequence[FoundObject], *, threshold: float) -> dict[str, list[FoundObject]]:
    by_name: dict[str, list[FoundObject]] = defaultdict(list)
    for one in sorted(objects, key=lambda one: -one.score):
        if one.score > threshold and len(by_name[one.name]) < _MOST:
            by_name[one.name].append(one)
    return by_name


def _has_color(clause: Clause, found: Sequence[FoundObject]) -> bool:
    if not clause.color:
        return True
    if unsaid := [one for one in found if not one.color]:
        raise DataError(
            f"no color is said of a {unsaid[0].name} with score {unsaid[0].score:g}, and the prompt asks for a "
            f"{clause.color} one; every object of a prompt with colors needs one of {', '.join(COLORS)}"
        )
    return all(one.color == clause.color for one in found)


def _has_place(clause: Clause, found: Sequence[FoundObject], matched: Sequence[Sequence[FoundObject]]) -> bool:
    if clause.position is None:
        return True
    relation, target = clause.position
    others = matched[target]
    return bool(others) and all(relation in relations(one, other) for one in found for other in others)


def score_geneval(
    prompts: Sequence[GenEvalPrompt], detections: Sequence[Detections], *, seed: int = 0
) -> ComposedScores:
    """The unweighted mean of the tasks' shares of right images, by language; parts are the tasks.

    Raises:
        DataError: Prompts without images, or of unlike numbers of them, or a colour that is not said.
        UnknownName: The number of a prompt that there is not.
    """
    by_language: dict[str, dict[int, list[bool]]] = {}
    for number, one in enumerate(detections, start=1):
        if not 0 <= one.prompt < len(prompts):
            raise UnknownName("prompt", str(one.prompt), allowed=(f"0 to {len(prompts) - 1}",))
        rights = by_language.setdefault(one.language, defaultdict(list))
        try:
            rights[one.prompt].append(holds(prompts[one.prompt], one.objects))
        except DataError as error:
            raise DataError(f"image {number} (prompt {one.prompt}, {one.language}): {error}") from None
    if not by_language:
        raise DataError("there are no detections")
    return ComposedScores("GenEval", tuple(_scored(tag, prompts, found, seed) for tag, found in by_language.items()))


def _scored(
    tag: str, prompts: Sequence[GenEvalPrompt], rights: Mapping[int, Sequence[bool]], seed: int
) -> LanguageScore:
    counts = {number: len(found) for number, found in rights.items()}
    images = images_a_prompt(counts, range(len(prompts)), language=tag, what="detections")
    by_task: dict[str, list[float]] = {}
    for number, prompt in enumerate(prompts):
        by_task.setdefault(prompt.tag, []).append(float(np.mean(rights[number])))
    parts = {task: float(np.mean(shares)) for task, shares in by_task.items()}
    drawn = []
    for place, shares in enumerate(by_task.values()):  # prompts of each task among themselves
        columns_N2 = np.stack([shares, np.ones(len(shares))], axis=1)
        sums_R2 = resampled_sums(columns_N2, np.arange(len(shares)), seed=seed + place)
        drawn.append(sums_R2[:, 0] / sums_R2[:, 1])
    interval = percentiles(np.mean(drawn, axis=0))
    return LanguageScore(tag, float(np.mean(list(parts.values()))), interval, parts, len(prompts), images)


def read_geneval_prompts(path: Path) -> list[GenEvalPrompt]:
    """GenEval's `evaluation_metadata.jsonl`: `tag`, `include` and `exclude` of a prompt a line.

    Raises:
        DataError: The file is missing or of another form; the message says where.
    """
    prompts = []
    for where, entry in read_objects(path):
        try:
            include = tuple(_clause(one, before=place) for place, one in enumerate(entry["include"]))
            exclude = tuple(_clause(one, before=0) for one in entry.get("exclude", ()))
            prompts.append(GenEvalPrompt(_text(entry["tag"]), include, exclude))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: no prompt of GenEval: {_why(error)}") from None
    if not prompts:
        raise DataError(f"{path} holds no prompts")
    return prompts


def read_detections(path: Path) -> list[Detections]:
    """A JSON object a line for each image: `prompt` (number from 0), `language`, `objects` (see the documentation).

    Raises:
        DataError: The file is missing or of another form; the message says where.
        UnknownName: A language that is none.
    """
    found = []
    for where, entry in read_objects(path):
        try:
            number, objects = entry["prompt"], tuple(map(_object, entry["objects"]))
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"prompt is {number!r}, not a whole number")
            found.append(Detections(number, normalize(_text(entry["language"])), objects))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: no detections of an image: {_why(error)}") from None
    return found


def _clause(entry: Any, *, before: int) -> Clause:
    position = None
    if entry.get("position") is not None:
        relation, target = entry["position"]
        if relation not in RELATIONS or isinstance(target, bool) or target not in range(before):
            raise ValueError(f"position is {entry['position']!r}; it is {', '.join(RELATIONS)}, and an earlier clause")
        position = cast("Relation", relation), int(target)
    count = entry["count"]
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count is {count!r}, not a number from 1")
    return Clause(_text(entry["class"]), count, _color(entry), position)


def _object(entry: Any) -> FoundObject:
    left, top, right, bottom = (float(side) for side in entry["box"])
    score = float(entry["score"])
    if not 0 <= score <= 1 or not all(map(np.isfinite, (left, top, right, bottom))):
        raise ValueError(f"score {score:g} and box must be numbers, the score in 0..1")
    return FoundObject(_text(entry["class"]), score, (left, top, right, bottom), _color(entry))


def _color(entry: Any) -> str:
    color = entry.get("color") or ""
    if color and color not in COLORS:
        raise ValueError(f"color is {color!r}; it is one of {', '.join(COLORS)}")
    return str(color)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no text")
    return value


def _why(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
