"""WebDataset shards as a random-access source."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import accumulate, product
from pathlib import Path

from braceexpand import braceexpand

from vlkit.data.formats.caption_forms import CaptionError
from vlkit.data.formats.folders import files_in
from vlkit.data.formats.images import LazyImage, read_span
from vlkit.data.formats.sample_records import read_record
from vlkit.data.formats.shard_index import ShardRow, read_index
from vlkit.data.sources.combine import gathered, locate
from vlkit.errors import DataError
from vlkit.paths import matching, split_pattern
from vlkit.types import Sample, SampleMeta

_NUMBERS = re.compile(r"(\{\d+\.\.\d+\})")
_TOKENS = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\}|\{[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?\}|[{},]")
_MOST = 1_000_000  # shards of a pattern
_DEEPEST = 16  # braces around each other


def expand(pattern: str) -> tuple[Path, ...]:
    """Shard paths, sorted, of a tar file, a folder of them, a brace pattern ``{0000..0009}`` / ``{a,b}`` or a glob.

    Raises:
        DataError: Nothing is there.
    """
    folder, rest = split_pattern(pattern)
    if not rest and folder.is_dir():
        paths = files_in(folder, "*.tar")
        if not paths:
            raise DataError(
                f"{pattern}: no .tar shards in this folder; build some with: vlkit data build openmoji --out {pattern}"
            )
        return tuple(paths)
    found: list[Path] = []
    for piece in braces(rest) if rest else [""]:
        found += matching(folder, piece) if any(sign in piece for sign in "*?[") else [folder / piece]
    if not found:
        raise DataError(f"{pattern}: no shard matches this pattern")
    if missing := [path for path in found if not path.is_file()]:
        more = f" (and {len(missing) - 1} more of {len(found)} shards)" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}: no such shard{more}")
    return tuple(found)


def braces(pattern: str, *, ranges_only: bool = False) -> list[str]:
    """What a pattern with ``{0000..0009}`` and ``{a,b}`` stands for; ``ranges_only`` leaves ``{a,b}`` alone.

    Raises:
        DataError: A brace is opened and not closed, or the other way round; braces nested too deeply; or a pattern that
            stands for no shard or for more than a million, which is told before any is listed.
    """
    pieces = _NUMBERS.split(pattern) if ranges_only else [pattern]
    whole = [ranges_only and not _NUMBERS.fullmatch(piece) for piece in pieces]
    try:
        if math.prod(1 if keep else _count(piece) for piece, keep in zip(pieces, whole, strict=True)) > _MOST:
            raise DataError(f"{pattern}: stands for more than {_MOST:,} shards; name a folder of them, or larger ones")
        found = [
            [piece] if keep else braceexpand(piece, escape=False) for piece, keep in zip(pieces, whole, strict=True)
        ]
        names = ["".join(one) for one in product(*found)]
    except ValueError as error:  # unbalanced braces
        raise error if isinstance(error, DataError) else DataError(f"{pattern}: {error}") from None
    if not names:
        raise DataError(f"{pattern}: stands for no shard; write the numbers in the order of the step")
    return names


def _count(pattern: str) -> int:
    """How many names a pattern stands for, without making them.

    Raises:
        ValueError: Braces that are not closed or not opened, or nested too deeply.
    """
    open_: list[list[int]] = [[0, 1]]  # for each brace around: names of its alternatives so far, and of the current one
    for token in _TOKENS.finditer(pattern):
        if token[1]:
            low, high, step = token.group(1, 2, 3)
            open_[-1][1] *= abs(int(high) - int(low)) // abs(int(step or 1) or 1) + 1
        elif token[0] == "{":
            open_.append([0, 1])
        elif token[0] == "}" and len(open_) > 1:
            open_[-2][1] *= sum(open_.pop())
        elif token[0] == ",":
            open_[-1] = [sum(open_[-1]), 1] if len(open_) > 1 else open_[-1]
        elif token[0] == "}":
            raise ValueError(f"Unbalanced braces: {pattern!r}")
        else:
            open_[-1][1] *= len(list(braceexpand(token[0])))  # a range of letters
        if len(open_) > _DEEPEST:
            raise ValueError(f"braces in more than {_DEEPEST} others")
    if len(open_) > 1:
        raise ValueError(f"Unbalanced braces: {pattern!r}")
    return open_[0][1]


class ShardSource:
    """Samples of WebDataset tars (image + ``.json`` and/or ``.txt``), in shard order.

    ``language`` is the BCP 47 tag of captions that name none themselves; ``problems`` has name -> reason of the samples
    that the index had to leave out.

    Raises:
        DataError: A shard is missing or no tar, or there is no whole sample in all of them.
    """

    def __init__(self, paths: Sequence[Path], *, language: str | None = None) -> None:
        self.paths, self.language = tuple(paths), language
        indexes = [read_index(path, language=language) for path in self.paths]
        self._rows = [index.rows for index in indexes]
        self.problems = gathered(
            (str(path.parent), index.problems) for path, index in zip(self.paths, indexes, strict=True)
        )
        self._ends = list(accumulate(len(rows) for rows in self._rows))
        if not self._ends[-1]:
            raise DataError(_no_samples(self.paths, self.problems))

    def __len__(self) -> int:
        return self._ends[-1]

    def _locate(self, index: int) -> tuple[Path, ShardRow]:
        shard, inside = locate(self._ends, index)
        return self.paths[shard], self._rows[shard][inside]

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages, from the index alone."""
        row = self._locate(index)[1]
        return SampleMeta(row.key, row.concept, row.split, row.languages, row.counts)

    def __getitem__(self, index: int) -> Sample:
        path, row = self._locate(index)
        return read_sample(path, row, language=self.language)


def read_sample(
    path: Path, row: ShardRow, *, language: str | None, shard: str = "", source: str = "", task: str = ""
) -> Sample:
    """A sample of a shard, its captions read; ``shard`` is what the file is called in errors, where not by its path.

    ``task`` is that of a sample that says none itself.

    Raises:
        DataError: Its captions cannot be read (the shard changed after the index was made).
    """
    where = f"{row.key} in {shard or path}"
    try:
        record = read_record(read_span(path, row.captions), plain=row.plain, language=language)
    except (CaptionError, OSError) as error:
        raise DataError(f"{where}: {error}") from error
    images = tuple(LazyImage(path, where, span) for span in row.images)
    return Sample(
        row.key, images, record.captions, row.concept, row.split, record.license, source, record.turns,
        record.task or task, record.translated, record.keywords,
    )  # fmt: skip


def _no_samples(paths: Sequence[Path], problems: dict[str, str]) -> str:
    first = next(iter(problems.items()), None)
    why = f"; the first problem: {first[0]}: {first[1]}" if first else ""
    return f"{paths[0] if len(paths) == 1 else f'{len(paths)} shards from {paths[0]} on'}: no whole sample{why}"
