"""WebDataset shards as a random-access source."""

from __future__ import annotations

import bisect
import glob
import re
from collections.abc import Sequence
from pathlib import Path

from vlkit.data.formats.caption_forms import CaptionError
from vlkit.data.formats.images import LazyImage, read_span
from vlkit.data.formats.tar_index import Row, read_index, read_record
from vlkit.errors import DataError
from vlkit.types import Sample, SampleMeta

_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"\{(\d+\.\.\d+)\}")


def expand(pattern: str) -> tuple[Path, ...]:
    """Shard paths, sorted, of a tar file, a folder of them, a brace pattern ``{0000..0009}`` / ``{a,b}`` or a glob.

    Raises:
        DataError: Nothing is there.
    """
    if Path(pattern).is_dir():
        paths = sorted(Path(pattern).glob("*.tar"))
        if not paths:
            raise DataError(
                f"{pattern}: no .tar shards in this folder; build some with: vlkit data build openmoji --out {pattern}"
            )
        return tuple(paths)
    found: list[Path] = []
    for piece in braces(pattern):
        if any(character in piece for character in "*?["):
            found += [Path(match) for match in sorted(glob.glob(piece))]  # noqa: PTH207 - absolute patterns too
        else:
            found.append(Path(piece))
    if not found:
        raise DataError(f"{pattern}: no shard matches this pattern")
    missing = [path for path in found if not path.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more of {len(found)} shards)" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}: no such shard{more}")
    return tuple(found)


def braces(pattern: str, *, ranges_only: bool = False) -> list[str]:
    """What a pattern with ``{0000..0009}`` and ``{a,b}`` stands for; ``ranges_only`` leaves ``{a,b}`` alone."""
    match = (_NUMBERS if ranges_only else _BRACES).search(pattern)
    if match is None:
        return [pattern]
    inside = match.group(1)
    if span := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        first, last = int(span[1]), int(span[2])
        options = [str(number).zfill(len(span[1])) for number in range(first, last + 1)]
    else:
        options = inside.split(",")
    made = (pattern[: match.start()] + option + pattern[match.end() :] for option in options)
    return [found for one in made for found in braces(one, ranges_only=ranges_only)]


class ShardSource:
    """Samples of WebDataset tars (image + ``.json`` and/or ``.txt``), in shard order.

    Args:
        paths: Uncompressed tar files.
        language: BCP 47 tag of captions that name none themselves.

    Attributes:
        problems: Name -> reason of the samples that the index had to leave out.

    Raises:
        DataError: A shard is missing or no tar, or there is no whole sample in all of them.
    """

    def __init__(self, paths: Sequence[Path], *, language: str | None = None) -> None:
        self.paths, self.language = tuple(paths), language
        self.problems: dict[str, str] = {}
        self._rows: list[list[Row]] = []
        self._ends: list[int] = []
        total = 0
        for path in self.paths:
            index = read_index(path, language=language)
            self._rows.append(index.rows)
            self.problems.update(index.problems)
            total += len(index.rows)
            self._ends.append(total)
        if total == 0:
            raise DataError(_no_samples(self.paths, self.problems))

    def __len__(self) -> int:
        return self._ends[-1]

    def _locate(self, index: int) -> tuple[Path, Row]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard = bisect.bisect_right(self._ends, index)
        start = self._ends[shard - 1] if shard else 0
        return self.paths[shard], self._rows[shard][index - start]

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages, from the index alone."""
        row = self._locate(index)[1]
        return SampleMeta(row.key, row.concept, row.split, row.languages, row.counts)

    def __getitem__(self, index: int) -> Sample:
        """One sample; its image is read and decoded when called for.

        Raises:
            DataError: Its captions cannot be read (the shard changed after the index was made).
        """
        path, row = self._locate(index)
        where = f"{path.name}:{row.key}"
        try:
            record = read_record(read_span(path, row.captions), plain=row.plain, language=self.language)
        except (CaptionError, OSError) as error:
            raise DataError(f"{where}: {error}") from error
        image = LazyImage(path, f"{row.key} in {path}", row.image)
        return Sample(row.key, image, record["captions"], row.concept, row.split, record["license"])


def _no_samples(paths: Sequence[Path], problems: dict[str, str]) -> str:
    first = next(iter(problems.items()), None)
    why = f"; the first problem: {first[0]}: {first[1]}" if first else ""
    return f"{paths[0] if len(paths) == 1 else f'{len(paths)} shards from {paths[0]} on'}: no whole sample{why}"
