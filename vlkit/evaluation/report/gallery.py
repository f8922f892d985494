"""Images of a task with a model's answers in several languages, to be looked at."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple, cast

from vlkit import languages as language_table
from vlkit.errors import VlkitError
from vlkit.evaluation.results.drawn import DrawnImage
from vlkit.evaluation.results.examples import FoundImages
from vlkit.evaluation.results.written import WrittenAnswer
from vlkit.evaluation.tasks.engine import LanguageScores, TaskScores
from vlkit.types import Sample

_PREFERRED = ("en", "ar", "zh", "ru", "ja", "hi", "ko")


@dataclass(frozen=True)
class Answer:
    """One answer: the first name of a class, its probability among all classes, and whether it is the right one."""

    text: str
    probability: float
    correct: bool


@dataclass(frozen=True)
class LanguageAnswers:
    """The best answers in one language, best first, and the name that would have been right."""

    truth: str
    best: tuple[Answer, ...]


@dataclass(frozen=True)
class GalleryItem:
    """An image (an encoded PNG) with the answers by BCP 47 tag."""

    key: str
    png: bytes
    answers: dict[str, LanguageAnswers]


class FoundImage(NamedTuple):
    """An image that was found: an encoded JPEG, its key, and whether it is the caption's own."""

    jpeg: bytes
    key: str
    own: bool


@dataclass(frozen=True)
class FoundItem:
    """A caption in a language (BCP 47), the images nearest to it, best first, and the rank of its own."""

    language: str
    text: str
    rank: int
    images: tuple[FoundImage, ...]


@dataclass(frozen=True)
class SaidItem:
    """An image (an encoded JPEG) with what was said of it, by BCP 47 tag, and why it is shown: best, drawn or worst."""

    key: str
    jpeg: bytes
    why: Literal["best", "drawn", "worst"]
    answers: dict[str, WrittenAnswer]


@dataclass(frozen=True)
class DrawnItem:
    """A prompt, in the words of ``title``, with the images made of it by BCP 47 tag, and a real one (JPEG, or b"")."""

    title: str
    real: bytes
    images: dict[str, DrawnImage]


def make_drawn(
    drawn: Mapping[str, Sequence[DrawnImage]], samples: Sequence[Sample], *, size: int = 96
) -> list[DrawnItem]:
    """A gallery of images that were made of some prompts, by BCP 47 tag the same ones in the same order.

    Real images have ``size`` pixels on the longer side.

    Raises:
        DataError: An image cannot be read.
    """
    items: dict[str, DrawnItem] = {}
    for tag, images in drawn.items():
        for one in images:
            if one.title not in items:
                real = thumbnail(samples[one.image], size=size, kind="JPEG") if one.image >= 0 else b""
                items[one.title] = DrawnItem(one.title, real, {})
            items[one.title].images[tag] = one
    return list(items.values())


def make_said(
    written: Mapping[str, Sequence[WrittenAnswer]],
    samples: Sequence[Sample],
    figure: str,
    *,
    count: int = 12,
    size: int = 112,
    seed: int = 0,
) -> list[SaidItem]:
    """A fair gallery of answers in words: a third are the best by a figure, a third the worst, the others are drawn.

    Of images of one concept the first alone is among the best and the worst.

    Args:
        written: Answers by BCP 47 tag, all of one task.
        samples: Its images.
        figure: By which, on average over languages.
        count: Images.
        size: Pixels on the longer side of an image.
        seed: Of what is drawn.

    Raises:
        DataError: An image cannot be read.
    """
    by_row: dict[int, dict[str, WrittenAnswer]] = {}
    for tag, answers in written.items():
        for one in answers:
            if not samples[one.image].images:
                continue  # a question without an image
            by_row.setdefault(one.image, {})[tag] = one
    mean = {row: fmean(one.figures[figure] for one in found.values()) for row, found in by_row.items()}
    ranked = sorted(by_row, key=lambda row: (-mean[row], row))
    first: dict[int, int] = {}
    for row in ranked:
        first.setdefault(next(iter(by_row[row].values())).concept, row)
    ends, third = list(first.values()), count // 3
    best = ends[:third]
    worst = [row for row in ends if row not in best][-third:] if third else []
    rest = sorted(set(by_row) - {*best, *worst})
    drawn = random.Random(seed).sample(rest, min(count - len(best) - len(worst), len(rest)))
    chosen = [*((row, "best") for row in best), *((row, "drawn") for row in drawn), *((row, "worst") for row in worst)]
    return [
        SaidItem(samples[row].key, thumbnail(samples[row], size=size, kind="JPEG"), why, by_row[row])
        for row, why in cast("list[tuple[int, Literal['best', 'drawn', 'worst']]]", chosen)
    ]


def make_found(
    found: Mapping[str, Sequence[FoundImages]], samples: Sequence[Sample], *, size: int = 112
) -> list[FoundItem]:
    """A gallery of a retrieval, of examples by BCP 47 tag; images have ``size`` pixels on the longer side.

    Raises:
        DataError: An image cannot be read.
    """
    rows = dict.fromkeys(row for examples in found.values() for one in examples for row in one.best)
    jpegs = {row: thumbnail(samples[row], size=size, kind="JPEG") for row in rows}
    return [
        FoundItem(
            tag,
            one.text,
            one.rank,
            tuple(FoundImage(jpegs[row], samples[row].key, row == one.image) for row in one.best),
        )
        for tag, examples in found.items()
        for one in examples
    ]


def make_gallery(
    scores: TaskScores, *, count: int = 12, k: int = 3, size: int = 144, seed: int = 0
) -> list[GalleryItem]:
    """A fair gallery: the first half are right in the most languages, the others are drawn at random from the rest.

    Each of ``count`` images, of ``size`` pixels on the longer side, has the best ``k`` answers (at most 5) a language.

    Raises:
        VlkitError: count or k below 1, or k above 5.
    """
    if count < 1 or not 1 <= k <= 5:
        raise VlkitError(f"count = {count}, k = {k}: need count >= 1 and 1 <= k <= 5")
    samples = scores.task.samples
    right = [0] * len(samples)
    for language in scores.languages.values():
        hits_N = language.best_NM[:, 0] == language.target_N
        for row in language.images_N[hits_N].tolist():
            right[row] += 1
    ranked = sorted(range(len(samples)), key=lambda row: (-right[row], samples[row].key))
    best = ranked[: (count + 1) // 2]
    rest = sorted(ranked[len(best) :])
    chosen = best + random.Random(seed).sample(rest, min(count - len(best), len(rest)))
    return [_item(scores, row, k=k, size=size) for row in chosen]


def default_languages(tags: Sequence[str], *, count: int = 4) -> tuple[str, ...]:
    """Languages to show first: one a script, the widely read ones before the others, in the order of ``tags``."""
    order = sorted(
        tags, key=lambda tag: (_PREFERRED.index(tag) if tag in _PREFERRED else len(_PREFERRED), tags.index(tag))
    )
    by_script: dict[str, str] = {}
    for tag in order:
        by_script.setdefault(language_table.get(tag).script, tag)
    picked = [*by_script.values(), *(tag for tag in order if tag not in by_script.values())][:count]
    return tuple(tag for tag in tags if tag in picked)


def thumbnail(sample: Sample, *, size: int, kind: Literal["PNG", "JPEG"] = "PNG") -> bytes:
    """The encoded image of a sample, at most ``size`` pixels wide and high."""
    image = sample.image().convert("RGB")
    image.thumbnail((size, size))
    stream = io.BytesIO()
    image.save(stream, format=kind, optimize=True)
    return stream.getvalue()


def _item(scores: TaskScores, row: int, *, k: int, size: int) -> GalleryItem:
    sample = scores.task.samples[row]
    answers = {
        tag: found for tag, language in scores.languages.items() if (found := _answers(scores, language, row, k=k))
    }
    return GalleryItem(key=sample.key, png=thumbnail(sample, size=size), answers=answers)


def _answers(scores: TaskScores, language: LanguageScores, row: int, *, k: int) -> LanguageAnswers | None:
    places = (language.images_N == row).nonzero()
    if not len(places):
        return None  # the image's class has no name in this language
    place = int(places[0])
    _, names = scores.task.classes(language.language)
    target = int(language.target_N[place])
    columns = language.best_NM[place, :k].tolist()
    shares = language.probability_NM[place, :k].tolist()
    return LanguageAnswers(
        truth=names[target][0],
        best=tuple(
            Answer(names[column][0], share, column == target) for column, share in zip(columns, shares, strict=True)
        ),
    )
