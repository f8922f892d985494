"""One source as one reader sees it: its shards window by window, the samples of a window in a random order.

Which shards make up a window and in which order its samples come are pure functions of (seed, source, reader, window),
so that a reader's place is the numbers of its open windows and which samples of them were used.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vlkit.data.batches.unreadable import UnreadableSample
from vlkit.data.formats.shard_index import ShardIndex, ShardRow, read_index, scan
from vlkit.data.sources.shards import read_sample
from vlkit.data.stream.remote import ShardLost, fetch, is_remote
from vlkit.errors import DataError
from vlkit.spec.dataset import StreamSpec
from vlkit.types import Sample

_EPOCH, _WINDOW, _DRAW = 21, 22, 23  # streams of random numbers that must not meet
_OPEN = 4  # windows at most in which samples wait for a batch that they fit
_BARREN = 8  # windows in a row without what was asked for


class ShardSample(NamedTuple):
    """A sample: the local file that holds it, where that was fetched from, its place there, the source it is of."""

    path: Path
    shard: str
    row: ShardRow
    shards: Shards

    @property
    def key(self) -> str:
        """What it is called in its shard."""
        return self.row.key

    @property
    def concept(self) -> str:
        """What must not come twice in a batch."""
        return self.row.concept or f"{self.path}:{self.row.key}"

    def read(self) -> Sample:
        """The sample; its file may be gone when the next one is taken."""
        shards = self.shards
        return read_sample(
            self.path, self.row, language=shards.language, shard=self.shard, source=shards.name, task=shards.task
        )


@dataclass(frozen=True)
class Shards:
    """The shards of one source, and what is wanted of them.

    ``number`` is the source's in the recipe; ``languages`` BCP 47 tags, None for all;
    ``task`` what samples teach that do not say it.
    """

    names: tuple[str, ...]
    number: int
    name: str
    language: str | None
    languages: frozenset[str] | None
    task: str = ""

    def wanted(self, row: ShardRow) -> bool:
        """Whether a sample is one to learn from."""
        return row.split == "train" and (self.languages is None or not self.languages.isdisjoint(row.languages))


@dataclass
class _Window:
    number: int
    samples: list[ShardSample]
    fetched: list[Path]
    lost: list[str]
    used: bytearray
    _lines: dict[str | None, list[int]] = field(default_factory=dict)
    _starts: dict[str | None, int] = field(default_factory=dict)

    @property
    def left(self) -> int:
        return len(self.used) - sum(self.used)

    def first(self, language: str | None, taken: Collection[str]) -> int | None:
        """The first sample not used yet that has a caption in ``language`` and no concept in ``taken``."""
        if language not in self._lines:
            self._lines[language] = [
                place for place, found in enumerate(self.samples) if language is None or language in found.row.languages
            ]
        line, start = self._lines[language], self._starts.get(language, 0)
        while start < len(line) and self.used[line[start]]:
            start += 1
        self._starts[language] = start
        for number in range(start, len(line)):
            place = line[number]
            if not self.used[place] and self.samples[place].concept not in taken:
                return place
        return None

    def use(self, place: int) -> ShardSample:
        self.used[place] = 1
        return self.samples[place]

    def close(self) -> None:
        for path in self.fetched:
            path.unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        """``next``: no later sample was used; ``held``: those before it that were not either."""
        last = self.used.rfind(1) + 1
        held = [place for place in range(last) if not self.used[place]]
        return {"window": self.number, "samples": len(self.used), "next": last, "held": held, "lost": self.lost}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.used[: state["next"]] = b"\1" * state["next"]
        for place in state["held"]:
            self.used[place] = 0


class ShardReader:
    """Samples of one source for one reader (a worker of a process), number ``lane`` of ``lanes``.

    Each epoch, reader ``n`` takes shards n, n + lanes, ... of a new random order. Fetched ones are kept in ``folder``
    meanwhile.

    Attributes:
        bad: What could not be used since this list was last cleared.
        passed_by: Samples that no batch had use for (languages in excess of their weight).
    """

    def __init__(self, shards: Shards, *, spec: StreamSpec, seed: int, lane: int, lanes: int, folder: Path) -> None:
        self.shards, self.spec, self.seed, self.folder = shards, spec, seed, folder
        self.lane, self.lanes = lane, lanes
        self.bad: list[UnreadableSample] = []
        self.passed_by = 0
        self._open: list[_Window] = []
        self._next = 0
        self._coming: dict[int, list[_Fetching]] = {}
        own = len(shards.names) if spec.resample else len(range(lane, len(shards.names), lanes))
        self._windows_an_epoch = -(-own // spec.window_shards)

    def take(self, language: str | None, taken: Collection[str]) -> ShardSample:
        """The next sample, of those that have a caption in ``language`` (None: any) and no concept in ``taken``.

        Samples that do not fit now wait for a later call. Where none fits, a concept may come twice. The file of the
        sample before may be gone then: it is to be read first.

        Raises:
            DataError: There is no such sample in many shards, or nothing at all.
        """
        for spent in [window for window in self._open if window.left == 0]:
            self._retire(spent)
        for barren in range(_OPEN + _BARREN):
            for window in self._open:
                if (place := window.first(language, taken)) is not None:
                    return window.use(place)
            if len(self._open) >= _OPEN or barren >= _OPEN:
                for window in self._open:
                    if (place := window.first(language, ())) is not None:
                        return window.use(place)
                self._retire(self._open[0])
            self._advance()
        raise DataError(
            f"{self.shards.name}: no caption in {language!r} in {_OPEN + _BARREN} windows of "
            f"{self.spec.window_shards} shards; where each shard holds one language only, make one source of each "
            f"language and give them weights (data.sources.N.weight) in place of data.mixing"
        )

    def state(self) -> dict[str, Any]:
        """The reader's place, as JSON can hold it."""
        waiting = [window.state() for window in self._open if window.left]
        return {"next": self._next, "open": waiting, "passed_by": self.passed_by}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a place that ``state`` gave; only the shards of its open windows are fetched."""
        self.close()
        self._next, self.passed_by = int(state["next"]), int(state["passed_by"])
        for one in state["open"]:
            window = self._read(one["window"], lost=one["lost"])
            self._open.append(window)
            if len(window.used) != one["samples"] or window.lost != one["lost"]:
                new = [bad.reason for bad in self.bad if not bad.key and bad.shard not in one["lost"]]
                why = f" ({new[0]})" if new else ""
                raise DataError(
                    f"{self.shards.name}: the shards at hand when the run stopped gave {one['samples']} samples then "
                    f"and give {len(window.used)} now{why}; resume when they are as they were, or use --overwrite"
                )
            window.restore(one)
        self.bad.clear()  # they were counted before
        self._coming[self._next] = self._fetch(self._next)

    def close(self) -> None:
        """Deletes what was fetched."""
        for window in self._open:
            window.close()
        for coming in self._coming.values():
            for one in coming:
                one.abandon()
        self._open, self._coming = [], {}

    def _retire(self, window: _Window) -> None:
        self._open.remove(window)
        self.passed_by += window.left
        window.close()

    def _advance(self) -> None:
        """Opens the next window that has a sample."""
        for _ in range(max(self._windows_an_epoch, 1)):
            window = self._read(self._next)
            self._next += 1
            self._coming[self._next] = self._fetch(self._next)
            if window.samples:
                self._open.append(window)
                return
            window.close()
        why = f"; the first problem: {self.bad[0].shard} {self.bad[0].reason}" if self.bad else ""
        raise DataError(
            f"{self.shards.name}: no sample to learn from in the {self._windows_an_epoch * self.spec.window_shards} "
            f"shards of reader {self.lane} (split train, languages {_listed(self.shards.languages)}){why}"
        )

    def _read(self, number: int, *, lost: Collection[str] = ()) -> _Window:
        """A window; shards that were ``lost`` when it was first read stay lost, so that the order is the same."""
        coming = self._coming.pop(number, None) or self._fetch(number)
        rows: list[ShardSample] = []
        fetched: list[Path] = []
        missing: list[UnreadableSample] = []
        for one in coming:
            if is_remote(one.shard):
                fetched.append(one.path)
            if one.shard in lost:
                missing.append(UnreadableSample(one.shard, "", "lost before"))
                continue
            try:
                index = one.result()
            except ShardLost as error:
                missing.append(UnreadableSample(one.shard, "", str(error)))
                continue
            short = one.shard.rpartition("/")[2]
            self.bad += [UnreadableSample(short, name, reason) for name, reason in index.problems.items()]
            rows += [ShardSample(one.path, short, row, self.shards) for row in index.rows if self.shards.wanted(row)]
        self.bad += missing
        if len(missing) == len(coming) and not self._open:
            raise DataError(
                f"{self.shards.name}: none of the next {len(coming)} shards can be had; the first: {missing[0].reason}"
            )
        random = np.random.default_rng([self.seed, _WINDOW, self.shards.number, self.lane, number])
        samples = [rows[place] for place in random.permutation(len(rows)).tolist()]
        return _Window(number, samples, fetched, [one.shard for one in missing], bytearray(len(rows)))

    def _fetch(self, number: int) -> list[_Fetching]:
        names = [self.shards.names[shard] for shard in self._members(number)]
        return [
            _Fetching(name, self.folder / f"{self.shards.number}-{self.lane}-{number}-{place}.tar", self)
            for place, name in enumerate(names)
        ]

    def _members(self, number: int) -> list[int]:
        """Numbers of the shards of a window."""
        count, size = len(self.shards.names), self.spec.window_shards
        if self.spec.resample:
            random = np.random.default_rng([self.seed, _DRAW, self.shards.number, self.lane, number])
            drawn: list[int] = random.choice(count, size=min(size, count), replace=False).tolist()
            return drawn
        epoch, inside = divmod(number, self._windows_an_epoch)
        order = np.random.default_rng([self.seed, _EPOCH, self.shards.number, epoch]).permutation(count)
        own: list[int] = order[self.lane :: self.lanes].tolist()
        return own[inside * size : (inside + 1) * size]


class _Fetching:
    """A shard on its way: fetched and indexed in a thread of its own, which never keeps the process from ending."""

    def __init__(self, shard: str, target: Path, reader: ShardReader) -> None:
        self.shard = shard
        self.path = target if is_remote(shard) else Path(shard)
        self._spec, self._language = reader.spec, reader.shards.language
        self._found: Future[ShardIndex] = Future()
        self._abandoned = False
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._found.set_result(self._read())
        except BaseException as error:  # raised again where the shard is asked for
            self._found.set_exception(error)

    def _read(self) -> ShardIndex:
        remote = is_remote(self.shard)
        if remote:
            fetch(self.shard, self.path, spec=self._spec)
        try:
            return (scan if remote else read_index)(self.path, language=self._language)
        except (DataError, OSError) as error:
            raise ShardLost(f"{self.shard}: {error}") from error
        finally:
            if remote and self._abandoned:
                self.path.unlink(missing_ok=True)

    def result(self) -> ShardIndex:
        """The index, once the shard is there.

        Raises:
            ShardLost: It cannot be had, or is no tar.
            VlkitError: No shard could be had, as the disk is full.
        """
        return self._found.result()

    def abandon(self) -> None:
        """Nobody wants it any more."""
        self._abandoned = True
        if is_remote(self.shard) and self._found.done():
            self.path.unlink(missing_ok=True)


def _listed(languages: Collection[str] | None) -> str:
    return "all" if languages is None else ", ".join(sorted(languages))
