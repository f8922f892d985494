"""Whatever happens in a process that makes items, the job hears of it and ends, and the process with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from multiprocessing import active_children
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from vlkit.data.batches.workers import WorkerError, in_workers
from vlkit.errors import DataError, MissingPackage

GONE = r"^a process that reads data is gone \(.*\): killed, perhaps for want of memory; use fewer of them"


class Items(Dataset[Any]):
    def __init__(self, fail: Callable[[], Any] | None = None) -> None:
        self.fail = fail

    def __getitem__(self, index: int) -> Any:
        if index == 3 and self.fail is not None:
            return self.fail()
        return torch.full((2,), index)


class Stream(IterableDataset[Any]):
    def __init__(self, fail: Callable[[], Any] | None = None) -> None:
        self.items = Items(fail)

    def __iter__(self) -> Iterator[Any]:
        for index in range(4):
            yield self.items[index]


def local_error() -> None:
    class Odd(Exception):  # noqa: N818
        """Which no other process knows."""

    raise Odd("odd")


def throw(error: BaseException) -> Any:
    raise error


FAILURES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: throw(ZeroDivisionError("nobody foresaw it")), WorkerError, "^ZeroDivisionError: nobody foresaw it$"),
    (local_error, WorkerError, r"Odd: odd$"),
    (lambda: lambda: 1, WorkerError, "Can't pickle local object"),
    (lambda: throw(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")), WorkerError, "^UnicodeDecodeError: .*: bad$"),
    (lambda: throw(DataError("said\nin two lines")), DataError, "^said\nin two lines$"),
    (
        lambda: throw(MissingPackage("a", purpose="b", extra="c")),
        MissingPackage,
        "^b needs the package 'a', which is not",
    ),
    (lambda: os.kill(os.getpid(), signal.SIGKILL), DataError, GONE),
    (lambda: os._exit(0), DataError, GONE),
    (lambda: sys.exit(3), DataError, GONE),
]


def left_over(before: Iterable[Any]) -> set[Any]:
    """Processes that were not there before and do not end within seconds; those of other tests may end meanwhile."""
    until = time.monotonic() + 20
    while (found := set(active_children()) - set(before)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fail", "kind", "said"), FAILURES)
def test_a_failure_is_told_and_no_process_stays(
    fail: Callable[[], Any], kind: type[Exception], said: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds
    items: Dataset[Any] = Stream(fail) if stream else Items(fail)
    before = active_children()
    with pytest.raises(kind, match=said):
        for item in in_workers(items, 1, order=None if stream else range(9)):
            assert isinstance(item, torch.Tensor)
    assert not left_over(before)


def test_an_unforeseen_error_brings_its_trace() -> None:
    with pytest.raises(WorkerError) as caught:
        list(in_workers(Items(local_error), 2, order=range(9)))
    assert "in local_error" in str(caught.value.__cause__)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_items_come_in_their_order(workers: int) -> None:
    order = [5, 1, 4, 0, 2]
    assert [int(item[0]) for item in in_workers(Items(), workers, order=order)] == order
    assert [int(item[0]) for item in in_workers(Stream(), min(workers, 1))] == [0, 1, 2, 3]


def test_workers_end_when_nobody_wants_their_items_and_hear_no_signal_before(tmp_path: Any) -> None:
    before = active_children()
    with closing(in_workers(Items(), 2, order=range(100))) as items:
        assert [int(next(items)[0]) for _ in range(2)] == [0, 1]  # both have begun
        for worker in set(active_children()) - set(before):
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(int(worker.pid or 0), number)
        assert [int(next(items)[0]) for _ in range(20)] == list(range(2, 22))
    assert not left_over(before)


@pytest.mark.parametrize("error", ["in a worker", "in the job"])
def test_a_job_that_fails_ends(error: str) -> None:
    code = (
        "from tests.data.batches.test_workers import *\n"
        f"for item in in_workers(Items(local_error if {error == 'in a worker'} else None), 2, order=range(99)):\n"
        f"    if {error == 'in the job'}: raise DataError('in the job')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("odd" if error == "in a worker" else "in the job")
