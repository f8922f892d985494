"""Asking a model about many images in many languages: each image is encoded once, and no answer is asked for twice.

Answers are kept in files as they come, by a digest of all that decides them, so that a run that was stopped goes on
where it was. N tokens of an image, T their width, P pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

from vlkit.distributed.collectives import shared_errors
from vlkit.errors import VlkitError
from vlkit.evaluation.embed.encode import evaluating, read_ahead
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.identity import answers_key
from vlkit.evaluation.embed.image_contents import picture_contents
from vlkit.progress import bar
from vlkit.types import AnswersQuestions, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

_AT_ONCE = 256  # questions between two writes of answers
Said: TypeAlias = Any
"""What is kept of an answer: its text, or numbers; plain values of JSON."""


@dataclass(frozen=True)
class Asked:
    """What is asked in one language.

    Attributes:
        keys: By row of the image a text that stands for all that decides the answer, but image and model.
        ask: Takes rows and the tokens_NT of their images; gives what was said of each.
    """

    keys: Mapping[int, str]
    ask: Callable[[Sequence[int], Sequence[Tensor]], Sequence[Said]]


class KeptAnswers:
    """Answers of one model in a folder: one file a process, one line an answer.

    Args:
        folder: Of the model; None keeps nothing.
        rank: Which process's file is written.
    """

    def __init__(self, folder: Path | None, *, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self._new: list[str] = []

    def read(self) -> dict[str, Said]:
        """All that is there, by key; a line that a kill cut off, or that is damaged, is left out."""
        found: dict[str, Said] = {}
        for path in sorted(self.folder.glob("*.jsonl")) if self.folder is not None else ():
            for line in path.read_bytes().split(b"\n"):
                try:
                    one = json.loads(line)
                    found[one["key"]] = one["said"]
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue  # asked again
        return found

    def add(self, key: str, said: Said) -> None:
        """Keeps an answer; ``flush`` writes it."""
        self._new.append(json.dumps({"key": key, "said": said}, ensure_ascii=False) + "\n")

    def flush(self) -> None:
        """Writes what was added, at once."""
        lines, self._new = "".join(self._new).encode(), []
        if self.folder is None or not lines:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.rank}.jsonl"
        with path.open("ab") as stream:
            # the newline ends a line that a kill cut off
            stream.write(b"\n" + lines if stream.tell() else lines)


def kept_answers(model: AnswersQuestions, encoding: Encoding) -> KeptAnswers:
    """Where a model's answers are kept: the cache of an evaluation."""
    if encoding.cache is None:
        return KeptAnswers(None)
    key = encoding.ranks.gather_objects(None if encoding.follows else answers_key(model))[0]
    return KeptAnswers(encoding.cache / f"answers-{key}", rank=encoding.ranks.rank)


def ask_without_image(
    model: AnswersQuestions,
    keys: Mapping[str, str],
    ask: Callable[[Sequence[str]], Sequence[Said]],
    *,
    kept: KeptAnswers,
    encoding: Encoding,
) -> dict[str, Said]:
    """What the model says without an image, asked once a language by the first process.

    Args:
        model: What ``ask`` asks.
        keys: By BCP 47 tag what stands for the question.
        ask: Takes tags; gives what was said in each.
        kept: Its answers.
        encoding: Processes.
    """
    ranks, found = encoding.ranks, dict[str, Said]()
    with shared_errors(ranks):
        if ranks.rank == 0:
            known = kept.read()
            found = {tag: known[key] for tag, key in keys.items() if key in known}
            missing = [tag for tag in keys if tag not in found]
            with evaluating(model):
                said = _one_each(ask(missing), missing) if missing else ()
            for tag, one in zip(missing, said, strict=True):
                kept.add(keys[tag], one)
                found[tag] = one
            kept.flush()
            encoding.counts.answers += len(missing)
    answered: dict[str, Said] = ranks.gather_objects(found)[0]
    return answered


@dataclass(frozen=True)
class Inquiry:
    """One thing to be asked about no, one or several images.

    Attributes:
        key: Stands for all that decides the answer, but images and model.
        images: Rows of the pictures that are shown, in order.
        lot: Those of one lot are asked together (of one language, say).
    """

    key: str
    images: tuple[int, ...] = ()
    lot: str = ""


Shown: TypeAlias = tuple[Tensor, ...]
"""The tokens_NT of each image that is shown with a question."""


def ask_about(
    model: AnswersQuestions,
    pictures: Sequence[Callable[[], Image]],
    inquiries: Sequence[Inquiry],
    ask: Callable[[Sequence[int], Sequence[Shown]], Sequence[Said]],
    *,
    kept: KeptAnswers,
    encoding: Encoding,
) -> list[Said]:
    """What a model says to each inquiry; each picture is encoded once, and what is asked twice is answered once.

    Pictures are taken a few at a time, those that are shown together at the same time; processes share them, in the
    same batches as one process alone would make.

    Args:
        model: Encodes the pictures.
        pictures: All that are shown.
        inquiries: What is asked.
        ask: Takes numbers of inquiries of one lot, and what is shown with each; gives what was said.
        kept: The model's answers.
        encoding: Pictures a forward pass, processes.

    Raises:
        DataError: A picture that cannot be read.
    """
    ranks = encoding.ranks
    content_P = range(len(pictures)) if kept.folder is None else picture_contents(pictures, encoding=encoding).tolist()
    keys = [" ".join([*(str(content_P[row]) for row in one.images), one.key]) for one in inquiries]
    first: dict[str, int] = {}
    for number, key in enumerate(keys):
        first.setdefault(key, number)
    known: dict[str, Said] = ranks.gather_objects(None if encoding.follows else kept.read())[0]
    found = {key: known[key] for key in first if key in known}
    missing = {number for key, number in first.items() if key not in found}
    said, quiet = list[tuple[str, Said]](), encoding.quiet or encoding.follows
    with shared_errors(ranks), bar("answers", total=len(first), unit="answers", quiet=quiet) as shown:
        shown.advance(len(found))
        blocks = [
            block
            for place, block in enumerate(_blocks(len(pictures), inquiries, encoding.batch_size))
            if place % ranks.size == ranks.rank and not missing.isdisjoint(block)
        ]
        for numbers, answers in _answered(model, pictures, inquiries, blocks, missing, ask, encoding):
            for number, answer in zip(numbers, _one_each(answers, numbers), strict=True):
                kept.add(keys[number], answer)
                said.append((keys[number], answer))
            kept.flush()
            shown.advance(len(numbers))
    for some in ranks.gather_objects(said):
        encoding.counts.answers += len(some)
        found.update(some)
    return [found[key] for key in keys]


def ask_by_image(
    model: AnswersQuestions,
    samples: Sequence[Sample],
    asked: Mapping[str, Asked],
    *,
    kept: KeptAnswers,
    encoding: Encoding,
) -> dict[str, dict[int, Said]]:
    """What a model says of each image in each language, by BCP 47 tag and row; see ``ask_about``.

    Args:
        model: Encodes the images.
        samples: Their first image is looked at.
        asked: By BCP 47 tag.
        kept: The model's answers.
        encoding: Images a forward pass, processes.

    Raises:
        DataError: An image that cannot be read.
    """
    places = [(tag, row) for tag, one in asked.items() for row in one.keys]
    inquiries = [Inquiry(asked[tag].keys[row], (row,), tag) for tag, row in places]

    def ask(numbers: Sequence[int], shown: Sequence[Shown]) -> Sequence[Said]:
        (tag,) = {places[number][0] for number in numbers}
        return asked[tag].ask([places[number][1] for number in numbers], [one for (one,) in shown])

    said = ask_about(model, [one.image for one in samples], inquiries, ask, kept=kept, encoding=encoding)
    found: dict[str, dict[int, Said]] = {tag: {} for tag in asked}
    for (tag, row), answer in zip(places, said, strict=True):
        found[tag][row] = answer
    return found


def _blocks(count: int, inquiries: Sequence[Inquiry], size: int) -> list[list[int]]:
    """Numbers of inquiries whose pictures are encoded together: about ``size`` pictures, each in one block alone.

    Those without a picture come in blocks of their own, at the end.
    """
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for one in inquiries:
        for other in one.images[1:]:
            low, high = sorted((root(one.images[0]), root(other)))
            parent[high] = low
    together: dict[int, list[int]] = {}
    for row in range(count):
        together.setdefault(root(row), []).append(row)
    block_of, block, filled = {}, 0, 0
    for first, rows in together.items():
        if filled and filled + len(rows) > size:
            block, filled = block + 1, 0
        block_of[first], filled = block, filled + len(rows)
    blocks: list[list[int]] = [[] for _ in range(block + 1)]
    bare = [number for number, one in enumerate(inquiries) if not one.images]
    for number, one in enumerate(inquiries):
        if one.images:
            blocks[block_of[root(one.images[0])]].append(number)
    return [*blocks, *(bare[start : start + _AT_ONCE] for start in range(0, len(bare), _AT_ONCE))]


def _answered(
    model: AnswersQuestions,
    pictures: Sequence[Callable[[], Image]],
    inquiries: Sequence[Inquiry],
    blocks: Sequence[Sequence[int]],
    missing: Collection[int],
    ask: Callable[[Sequence[int], Sequence[Shown]], Sequence[Said]],
    encoding: Encoding,
) -> Iterator[tuple[list[int], Sequence[Said]]]:
    """Numbers of inquiries and what was said to them, block by block, of each lot at most so many at a time."""
    wanted = [[number for number in block if number in missing] for block in blocks]
    looked_at = [sorted({row for number in block for row in inquiries[number].images}) for block in wanted]
    images = read_ahead(
        ([pictures[row] for row in rows] for rows in looked_at),
        lambda picture: picture().convert("RGB"),
        workers=encoding.workers,
    )
    for block, rows, opened in zip(wanted, looked_at, images, strict=True):
        with evaluating(model):
            tokens: dict[int, Tensor] = {}
            for start in range(0, len(rows), encoding.batch_size):
                batch = slice(start, start + encoding.batch_size)
                tokens.update(zip(rows[batch], model.image_features(opened[batch]), strict=True))
            encoding.counts.images += len(rows)
            lots: dict[str, list[int]] = {}
            for number in block:
                lots.setdefault(inquiries[number].lot, []).append(number)
            for lot in lots.values():
                for start in range(0, len(lot), _AT_ONCE):
                    some = lot[start : start + _AT_ONCE]
                    yield some, ask(some, [tuple(tokens[row] for row in inquiries[number].images) for number in some])


def _one_each(said: Sequence[Said], wanted: Sequence[object]) -> Sequence[Said]:
    if len(said) != len(wanted):
        raise VlkitError(f"the model gave {len(said)} answers to {len(wanted)} questions; it must give one each")
    return said
