"""Processes that make items for this one: they end with it, however it ends, and say what went wrong in them."""

from __future__ import annotations

import atexit
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from vlkit.errors import DataError, VlkitError

T = TypeVar("T")
_STOPS = (signal.SIGINT, signal.SIGTERM)


class WorkerError(RuntimeError):
    """An error that nobody foresaw, in a process that makes items; its cause has the trace from there."""


class _Failed(NamedTuple):
    """What comes in the place of an item; with its trace where nobody foresaw it."""

    error: VlkitError | None
    trace: str = ""


class _Packed:
    """An item that is pickled where it is made: what fails in a queue's thread is lost, and waited for in vain."""

    def __init__(self, item: Any) -> None:
        self.raw = bytes(ForkingPickler.dumps(item))

    def __reduce__(self) -> tuple[Any, ...]:
        return ForkingPickler.loads, (self.raw,)


def in_workers(
    items: Dataset[T], workers: int, *, order: Iterable[int] | None = None, ahead: int = 2
) -> Generator[T, None, None]:
    """Items as they are, made in ``workers`` processes (0: in this one), each so many ``ahead`` of the last.

    To be closed where it may be left before its end: the workers are stopped then.

    Raises:
        VlkitError: As it was raised in a worker; or a worker was killed.
        WorkerError: Another error in a worker.
    """
    if not workers:
        yield from items if isinstance(items, IterableDataset) else map(items.__getitem__, order or ())
        return
    careful = _CarefulStream(items) if isinstance(items, IterableDataset) else _Careful(items)
    loader = DataLoader(
        careful,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        collate_fn=_as_is,
        prefetch_factor=ahead,
        worker_init_fn=_start,
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the run's own generator
    )
    with ExitStack() as stack:
        with _signals_held():
            others = active_children()
            running: Any = iter(loader)
            end = partial(_end, running, [one for one in active_children() if one not in others])
            atexit.register(end)  # where an error holds on to this generator until the process ends
            stack.callback(atexit.unregister, end)
            stack.callback(end)
        while (item := _next(running)) is not None:
            yield item


def _next(running: Iterator[Any]) -> Any:
    try:
        found = next(running, None)
    except (RuntimeError, OSError, EOFError) as error:  # the loader's, and of memory that went with a worker
        why = str(error).partition("\n")[0]
        raise DataError(
            f"a process that reads data is gone ({why}): killed, perhaps for want of memory; use fewer of them "
            f"(loop.num_workers, --workers)"
        ) from error
    if not isinstance(found, _Failed):
        return found
    if found.error is not None:
        raise found.error
    raise WorkerError(found.trace.strip().splitlines()[-1]) from RuntimeError(found.trace)


class _Careful(Dataset[Any]):
    def __init__(self, items: Dataset[Any]) -> None:
        self.items = items

    def __getitem__(self, index: int) -> Any:
        return _made(lambda: self.items[index])


class _CarefulStream(IterableDataset[Any]):
    def __init__(self, items: IterableDataset[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        running = iter(self.items)
        while (made := _made(lambda: next(running, None))) is not None:
            yield made
            if isinstance(made, _Failed):
                return


def _made(make: Callable[[], Any]) -> _Packed | _Failed | None:
    try:
        item = make()
        return None if item is None else _Packed(item)
    except VlkitError as error:
        return _Failed(error)
    except Exception as error:
        return _Failed(None, "".join(traceback.format_exception(error)))


def _as_is(item: Any) -> Any:
    return item


@contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM act behind the block: a process that just came to be would end with a page of text.

    Of a worker's end the loader hears when it waits for an item, not by a signal, which raises errors anywhere.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone hears signals
        yield
        return
    heard: list[int] = []
    of_children = signal.getsignal(signal.SIGCHLD)
    before = {number: signal.signal(number, lambda number, frame: heard.append(number)) for number in _STOPS}
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, of_children)
        for number, handler in before.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])


def _start(worker: int) -> None:
    """Workers share the cores with each other, and read on when the job is asked to stop."""
    torch.set_num_threads(1)
    # Ctrl-C and SIGTERM go to the whole process group, and the step under way still needs its batch.
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)


def _end(running: Any, workers: Sequence[BaseProcess]) -> None:
    running._shutdown_workers()
    for worker in workers:
        if worker.is_alive():  # busy for longer than the loader waits
            worker.kill()
