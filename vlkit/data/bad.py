"""Samples that cannot be read: counted, named, tolerated up to a share."""

from __future__ import annotations

import logging

from vlkit.errors import DataError

_log = logging.getLogger(__name__)
_NAMED = 5


class BadSamples:
    """Counts distinct unreadable samples and stops when there are too many.

    Args:
        limit_share: Largest share of bad samples, 0 to 1 (``data.max_bad_share``).
        total: How many samples there are, good and bad.
    """

    def __init__(self, limit_share: float, *, total: int) -> None:
        self.limit_share, self.total = limit_share, total
        self.reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.reasons)

    def record(self, name: str, reason: str) -> None:
        """Notes one bad sample; the same name counts once, however often it is met.

        Raises:
            DataError: The share of bad samples is now above the limit.
        """
        if name in self.reasons:
            return
        self.reasons[name] = reason
        if len(self.reasons) <= _NAMED:
            _log.warning("bad sample skipped: %s: %s", name, reason)
        elif len(self.reasons) == _NAMED + 1:
            _log.warning("more bad samples are skipped and counted, not named")
        if len(self.reasons) > self.limit_share * self.total:
            raise DataError(self.report())

    def report(self) -> str:
        """What is wrong, with the first few samples named."""
        named = [f"  {name}: {reason}" for name, reason in list(self.reasons.items())[:_NAMED]]
        more = [f"  ... and {len(self) - _NAMED} more"] if len(self) > _NAMED else []
        head = (
            f"{len(self)} of {self.total} samples cannot be read, more than data.max_bad_share = {self.limit_share:g} "
            "allows; repair or remove them, or raise data.max_bad_share:"
        )
        return "\n".join([head, *named, *more])
