"""Samples that cannot be read: counted, named, tolerated up to a share."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

from vlkit.errors import DataError

_log = logging.getLogger(__name__)
_NAMED = 5
_RECENT = 10_000
ATTEMPTS = 1000
"""Unreadable samples in a row before a place in a batch is given up; the share of bad samples is over before that."""


class UnreadableSample(NamedTuple):
    """A sample of a shard that cannot be used, or (``key`` "") a shard that cannot be had."""

    shard: str
    key: str
    reason: str


class BadSamples:
    """Counts distinct unreadable samples and stops when there are too many of ``total``, good and bad.

    ``limit_share`` is the largest share of bad samples, 0 to 1 (``data.max_bad_share``).
    """

    def __init__(self, limit_share: float, *, total: int) -> None:
        self.limit_share, self.total = limit_share, total
        self.reasons: dict[int | str, str] = {}

    def __len__(self) -> int:
        return len(self.reasons)

    def record(self, name: str, reason: str, *, number: int | None = None) -> None:
        """Notes one bad sample; the same counts once, however often it is met.

        It is known by its ``number`` in the source, as samples of two shards may be called alike; else by its name.

        Raises:
            DataError: The share of bad samples is now above the limit.
        """
        known = name if number is None else number
        if known in self.reasons:
            return
        self.reasons[known] = f"{name}: {reason}"
        _tell(len(self.reasons), self.reasons[known])
        if len(self.reasons) > self.limit_share * self.total:
            raise DataError(self.report())

    def report(self) -> str:
        """What is wrong, with the first few samples named."""
        return _listed(
            f"{len(self)} of {self.total} samples cannot be read, more than data.max_bad_share = {self.limit_share:g} "
            "allows; repair or remove them, or raise data.max_bad_share:",
            list(self.reasons.values()),
        )


class RecentBad:
    """Counts what cannot be read in an endless stream, and stops when it is too much of the ``recent`` last samples.

    ``limit_share`` is the largest share of bad samples, and of shards that cannot be had of ``shards`` in all, 0 to 1
    (``data.max_bad_share``).

    Attributes:
        by_shard: Bad samples of each shard so far.
        lost: Shards that could not be had, with the reason.
    """

    def __init__(self, limit_share: float, *, shards: int, recent: int = _RECENT) -> None:
        self.limit_share, self.shards, self.recent = limit_share, shards, recent
        self.by_shard: Counter[str] = Counter()
        self.lost: dict[str, str] = {}
        self._last: deque[tuple[int, Counter[str]]] = deque()
        self._examples: dict[str, str] = {}
        self._told = 0

    def passed(self, good: int, bad: Sequence[UnreadableSample]) -> None:
        """Notes one batch: ``good`` samples in it, and what was met on the way that cannot be used.

        Raises:
            DataError: More than the limit; the message names the worst shards.
        """
        for shard, key, reason in bad:
            if not key:
                _log.warning("lost shard skipped: %s", reason)
                self.lost[shard] = reason
                continue
            self._told += 1
            _tell(self._told, f"{key} in {shard}: {reason}")
            self._examples.setdefault(shard, f"{key}: {reason}")
        found = Counter(shard for shard, key, _ in bad if key)
        self.by_shard += found
        self._last.append((good + found.total(), found))
        while sum(count for count, _ in self._last) - self._last[0][0] >= self.recent:
            self._last.popleft()
        if len(self.lost) > self.limit_share * self.shards:
            raise DataError(self._lost_report())
        recent = sum((counts for _, counts in self._last), Counter[str]())
        if recent.total() > self.limit_share * self.recent:
            raise DataError(self._report(recent))

    def _lost_report(self) -> str:
        head = (
            f"{len(self.lost)} of {self.shards} shards cannot be had, more than data.max_bad_share = "
            f"{self.limit_share:g} allows; check the place they are fetched from, or raise data.max_bad_share:"
        )
        return "\n".join([head, *(f"  {reason}" for reason in list(self.lost.values())[:_NAMED])])

    def _report(self, recent: Counter[str]) -> str:
        return _listed(
            f"{recent.total()} of the last {self.recent:,} samples cannot be read, more than data.max_bad_share = "
            f"{self.limit_share:g} allows; repair or remove these shards, or raise data.max_bad_share:",
            [f"{shard}: {count} bad, such as {self._examples[shard]}" for shard, count in recent.most_common()],
            what=" shards",
        )


def _tell(count: int, line: str) -> None:
    if count <= _NAMED:
        _log.warning("bad sample skipped: %s", line)
    elif count == _NAMED + 1:
        _log.warning("more bad samples are skipped and counted, not named")


def _listed(head: str, lines: Sequence[str], *, what: str = "") -> str:
    more = [f"  ... and {len(lines) - _NAMED} more{what}"] if len(lines) > _NAMED else []
    return "\n".join([head, *(f"  {line}" for line in lines[:_NAMED]), *more])
