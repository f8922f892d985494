"""What a run measures of itself: speed, time spent waiting for data, shares of languages and sources."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlkit.types import Batch

log = logging.getLogger(__name__)
_WATCHED, _LIMIT = 100, 0.1  # steps over which waiting is judged, and how much of their time it may take


class Meter:
    """Figures of the steps since the last line of the log, and how often each language and source came in the stage.

    ``batch_size`` counts the pairs of all processes; ``workers`` None reads nothing, and is given no advice.
    """

    def __init__(self, batch_size: int, *, workers: int | None) -> None:
        self.batch_size, self.workers = batch_size, workers
        self.languages: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.totals: dict[str, Counter[str]] = {"languages": Counter(), "sources": Counter()}
        self._steps, self._waited, self._since = 0, 0.0, time.monotonic()
        self._watch = (0, 0.0, self._since)  # steps, seconds waited, start
        self._warned = False

    def waiting_for(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; the time until each is there counts as waiting."""
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            now = time.monotonic()
            self._waited += now - start
            self._steps += 1
            self.languages.update(batch.languages)
            self.sources.update(batch.sources)
            self.totals["languages"].update(batch.languages)
            self.totals["sources"].update(batch.sources)
            self._judge(now - start)
            yield batch

    def figures(self) -> dict[str, Any]:
        """This process's part of a line; the next one starts here."""
        now = time.monotonic()
        seconds = max(now - self._since, 1e-9)
        figures = {
            "images_per_s": self._steps * self.batch_size / seconds,
            "data_wait": self._waited / seconds,
            "languages": dict(self.languages),
            "sources": dict(self.sources),
        }
        self.languages, self.sources = Counter(), Counter()
        self._steps, self._waited, self._since = 0, 0.0, now
        return figures

    def state(self) -> dict[str, dict[str, int]]:
        """What a resumed run needs so that its next line and its counts are those of an uninterrupted one."""
        totals = {f"all_{name}": dict(counts) for name, counts in self.totals.items()}
        return {"languages": dict(self.languages), "sources": dict(self.sources), **totals}

    def restore(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Goes on from a ``state``."""
        self.languages, self.sources = Counter(state.get("languages")), Counter(state.get("sources"))
        self.totals = {name: Counter(state.get(f"all_{name}")) for name in self.totals}

    def _judge(self, waited: float) -> None:
        steps, before, start = self._watch
        self._watch = (steps + 1, before + waited, start)
        if steps + 1 < _WATCHED:
            return
        now = time.monotonic()
        share = (before + waited) / max(now - start, 1e-9)
        self._watch = (0, 0.0, now)
        if share > _LIMIT and self.workers is not None and not self._warned:
            self._warned = True
            log.warning(
                "training waited for data in %.0f %% of the time of the last %d steps; raise loop.num_workers (now "
                "%d), store smaller images, or keep the data on a faster disk",
                100 * share, _WATCHED, self.workers,
            )  # fmt: skip


def counted_together(parts: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """The counts of all processes, most frequent first."""
    totals = {name: sum((Counter(part[name]) for part in parts), start=Counter[str]()) for name in parts[0]}
    return {name: dict(sorted(total.items(), key=lambda one: (-one[1], one[0]))) for name, total in totals.items()}


def joined(parts: Sequence[Mapping[str, Any]], *, finite: bool = True) -> dict[str, Any]:
    """The line of all processes: means, the longest wait, shares of all pairs; ``finite`` turns nan into None."""
    line: dict[str, Any] = {}
    for key, value in parts[0].items():
        values = [part[key] for part in parts]
        if isinstance(value, dict):
            total: Counter[str] = sum((Counter(counts) for counts in values), start=Counter())
            if total:
                line[key] = {name: round(count / total.total(), 4) for name, count in total.most_common()}
        elif key == "data_wait":
            line[key] = round(max(values), 4)
        elif key == "images_per_s":
            line[key] = round(sum(values) / len(values), 1)
        else:
            mean = sum(values) / len(values)
            line[key] = mean if math.isfinite(mean) or not finite else None
    return line
