"""One progress display: a bar on a terminal or in a notebook, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from vlkit import notebook
from vlkit.foreign import printable
from vlkit.notebook import Markup
from vlkit.terminal import console

T = TypeVar("T")
_LINE_EVERY = 10.0  # seconds between plain lines
_shown: list[Any] = []  # the display on the terminal, where there is one
_SIZES = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


class Bar(Protocol):
    """What a long job reports to."""

    def advance(self, count: int = 1, **fields: object) -> None:
        """Moves on by ``count`` units (0: a start that is shown) with ``fields`` (``loss="1.23"``) beside the rate."""


class _Quiet:
    def advance(self, count: int = 1, **fields: object) -> None:
        """Says nothing."""


class _Lines:
    every = _LINE_EVERY

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done, self.start = 0, time.monotonic()
        self.last = self.start
        self.fields: dict[str, object] = {}

    def advance(self, count: int = 1, **fields: object) -> None:
        self.done += count
        self.fields = fields or self.fields
        now = time.monotonic()
        if now - self.last >= self.every or not (count or self.done):
            self.last = now
            self.show()

    def show(self, *, ended: bool = False) -> None:
        sys.stderr.write(f"{self.line(ended=ended)}\n")
        sys.stderr.flush()

    def line(self, *, ended: bool) -> str:
        """What is said of the job now."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        said = [self._count()]
        if self.unit != "%" and (self.done or ended):
            said.append(_rate(self.done / seconds, self.unit))
        if ended:
            said.append(f"took {seconds:.1f} s")
        elif self.total and 0 < self.done < self.total:
            said.append(f"{(self.total - self.done) * seconds / self.done:.0f} s left")
        said += [f"{name} {value}" for name, value in self.fields.items()]
        return f"{printable(self.description)}: {printable(', '.join(said))}"

    def _count(self) -> str:
        if self.unit == "%":
            return f"{self.done} %"
        if self.unit == "bytes":
            name, size = _size(self.total or self.done)
            done, total = (f"{count / size:.1f}" for count in (self.done, self.total or 0))
            return f"{done}/{total} {name}" if self.total else f"{done} {name}"
        return f"{self.done}/{self.total} {self.unit}" if self.total else f"{self.done} {self.unit}"


class _Cell(_Lines):
    """A bar in the output of a notebook's cell, which becomes one line at its end."""

    every = 0.25

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        super().__init__(description, total, unit)
        self.place: Any = None
        self.show()

    def show(self, *, ended: bool = False) -> None:
        line = self.line(ended=ended)
        share = Markup("") if ended or not self.total else notebook.bar(self.done / self.total)
        self.place = notebook.put(f"{share} {notebook.quiet(line)}", text=line, place=self.place)


def _size(count: float) -> tuple[str, int]:
    return next(((name, size) for name, size in _SIZES if count >= size), ("bytes", 1))


def _rate(per_second: float, unit: str) -> str:
    name, size = _size(per_second) if unit == "bytes" else (unit, 1)
    return f"{per_second / size:.1f} {name}/s"


class _Rich:
    def __init__(self, progress: Any, task: Any) -> None:
        self.progress, self.task = progress, task

    def advance(self, count: int = 1, **fields: object) -> None:
        shown = {"extra": "  ".join(f"{name} {value}" for name, value in fields.items())} if fields else {}
        self.progress.update(self.task, advance=count, **shown)


@contextmanager
def bar(description: str, *, total: int | None, unit: str = "items", quiet: bool = False) -> Iterator[Bar]:
    """A progress display for one job, on standard error.

    ``total`` is None when unknown; ``unit`` is what is counted ("images", "steps"): "bytes" are shown in MB, and "%"
    has no rate.
    """
    if quiet:
        yield _Quiet()
    elif notebook.in_notebook():
        cell = _Cell(description, total, unit)
        yield cell
        cell.show(ended=True)
    elif sys.stderr.isatty():
        with _rich_bar(description, total, unit) as shown:
            yield shown
    else:
        lines = _Lines(description, total, unit)
        yield lines
        lines.show(ended=True)


@contextmanager
def _rich_bar(description: str, total: int | None, unit: str) -> Iterator[Bar]:
    """A bar of its own, or below the one that is shown already: a terminal holds one display at a time."""
    if _shown:
        progress = _shown[-1]
        task = progress.add_task(description, total=total, extra="", rate="", unit=unit)
        try:
            yield _Rich(progress, task)
        finally:
            progress.remove_task(task)
        return
    with _display(unit) as progress:
        _shown.append(progress)
        try:
            yield _Rich(progress, progress.add_task(description, total=total, extra="", rate="", unit=unit))
        finally:
            _shown.pop()


def _display(unit: str) -> Any:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: list[Any] = [TextColumn("{task.description}", markup=False), BarColumn()]
    if unit == "bytes":
        columns += [DownloadColumn(), TransferSpeedColumn()]
    else:
        columns += [MofNCompleteColumn(), TextColumn("{task.fields[rate]}")]
    columns += [TimeRemainingColumn(), TextColumn("{task.fields[extra]}", markup=False)]

    class WithRate(Progress):
        def get_renderables(self) -> Iterator[Any]:
            for task in self.tasks:
                task.fields["rate"] = _rate(task.speed, task.fields["unit"]) if task.speed else ""
            yield from super().get_renderables()

    return WithRate(*columns, console=console(stderr=True))


def track(
    items: Iterable[T], description: str, *, total: int | None = None, unit: str = "items", quiet: bool = False
) -> Iterator[T]:
    """Iterates over ``items`` under a progress display; ``total`` defaults to their length where they have one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(description, total=total, unit=unit, quiet=quiet) as shown:
        for item in items:
            yield item
            shown.advance()
