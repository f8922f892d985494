"""Asking a model about many images in many languages: each image is encoded once, and no answer is asked for twice.

Answers are kept in files as they come, by a digest of all that decides them, so that a run that was stopped goes on
where it was. N tokens of an image, T their width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from vlkit.distributed.collectives import shared_errors
from vlkit.errors import VlkitError
from vlkit.evaluation.embed.encode import evaluating, read_ahead
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.identity import answers_key
from vlkit.evaluation.embed.image_contents import image_contents
from vlkit.progress import Bar, bar
from vlkit.types import AnswersQuestions, Sample

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


def ask_by_image(
    model: AnswersQuestions,
    samples: Sequence[Sample],
    asked: Mapping[str, Asked],
    *,
    kept: KeptAnswers,
    encoding: Encoding,
) -> dict[str, dict[int, Said]]:
    """What a model says of each image in each language, by BCP 47 tag and row.

    Images are taken a few at a time, each encoded once for all languages; processes share them, in the same batches
    as one process alone would make.

    Args:
        model: Encodes the images.
        samples: Their first image is looked at.
        asked: By BCP 47 tag.
        kept: The model's answers.
        encoding: Images a forward pass, processes.

    Raises:
        DataError: An image that cannot be read.
    """
    ranks = encoding.ranks
    content_N = range(len(samples)) if kept.folder is None else image_contents(samples, encoding=encoding).tolist()
    keys = {(tag, row): f"{content_N[row]} {key}" for tag, one in asked.items() for row, key in one.keys.items()}
    known: dict[str, Said] = ranks.gather_objects(None if encoding.follows else kept.read())[0]
    found: dict[str, dict[int, Said]] = {tag: {} for tag in asked}
    for (tag, row), key in keys.items():
        if key in known:
            found[tag][row] = known[key]
    quiet, said = encoding.quiet or encoding.follows, list[tuple[str, int, Said]]()
    with shared_errors(ranks), bar("answers", total=len(keys), unit="answers", quiet=quiet) as shown:
        shown.advance(sum(map(len, found.values())))
        for tag, rows, answers in _answered(model, samples, asked, found, encoding, shown):
            for row, answer in zip(rows, answers, strict=True):
                kept.add(keys[tag, row], answer)
                said.append((tag, row, answer))
            kept.flush()
    for some in ranks.gather_objects(said):
        encoding.counts.answers += len(some)
        for tag, row, answer in some:
            found[tag][row] = answer
    return found


def _answered(
    model: AnswersQuestions,
    samples: Sequence[Sample],
    asked: Mapping[str, Asked],
    found: Mapping[str, Mapping[int, Said]],
    encoding: Encoding,
    shown: Bar,
) -> Iterator[tuple[str, list[int], Sequence[Said]]]:
    """This process's part of what is missing: language, rows and what was said of them, image batch by image batch."""
    ranks, size, blocks = encoding.ranks, encoding.batch_size, list[dict[str, list[int]]]()
    for number, start in enumerate(range(0, len(samples), size)):
        here = range(start, min(start + size, len(samples)))
        missing = {
            tag: [row for row in here if row in one.keys and row not in found[tag]] for tag, one in asked.items()
        }
        if number % ranks.size == ranks.rank and any(missing.values()):
            blocks.append({tag: some for tag, some in missing.items() if some})
    looked_at = [sorted({row for some in block.values() for row in some}) for block in blocks]
    pictures = read_ahead(
        ([samples[row] for row in rows] for rows in looked_at),
        lambda sample: sample.image().convert("RGB"),
        workers=encoding.workers,
    )
    for block, rows, images in zip(blocks, looked_at, pictures, strict=True):
        with evaluating(model):
            tokens = dict(zip(rows, model.image_features(images), strict=True))
            encoding.counts.images += len(rows)
            for tag, some in block.items():
                yield tag, some, _one_each(asked[tag].ask(some, [tokens[row] for row in some]), some)
                shown.advance(len(some))


def _one_each(said: Sequence[Said], wanted: Sequence[object]) -> Sequence[Said]:
    if len(said) != len(wanted):
        raise VlkitError(f"the model gave {len(said)} answers to {len(wanted)} questions; it must give one each")
    return said
