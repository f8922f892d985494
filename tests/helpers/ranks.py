"""Functions on several processes of one gloo group: the processes are started once and kept for the whole session."""

from __future__ import annotations

import atexit
import multiprocessing
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_SECONDS = 120
_pools: dict[int, _Pool] = {}


class RankError(AssertionError):
    """What a rank raised, with its traceback."""


def on_ranks(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """``function(*args)`` on every rank of a gloo group of ``size``; what each returned, in the order of ranks.

    ``function`` is a function of a module that can be imported, args and results can be pickled.

    Raises:
        RankError: A rank raised, died, or was not done in two minutes; the processes are replaced.
    """
    if size not in _pools:
        _pools[size] = _Pool(size)
    try:
        return _pools[size].run(function, args)
    except RankError:
        _pools.pop(size).stop()
        raise


class _Pool:
    def __init__(self, size: int) -> None:
        meeting = Path(tempfile.mkdtemp(prefix="vlkit-ranks-")) / "store"
        self._ends: list[Connection] = []
        self._processes = []
        for rank in range(size):
            here, there = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_serve, args=(there, rank, size, str(meeting)), daemon=True)
            process.start()
            there.close()
            self._ends.append(here)
            self._processes.append(process)
        atexit.register(self.stop)

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> list[Any]:
        for end in self._ends:
            end.send((list(sys.path), function.__module__, function.__qualname__, args))
        answers: dict[int, Any] = {}
        while len(answers) < len(self._ends):
            left = {end: rank for rank, end in enumerate(self._ends) if rank not in answers}
            ready = wait(list(left), timeout=_SECONDS)
            if not ready:
                raise RankError(f"ranks {sorted(left.values())} are not done after {_SECONDS} s")
            for end in ready:
                rank = left[end]  # type: ignore[index]
                try:
                    good, answers[rank] = end.recv()  # type: ignore[union-attr]
                except EOFError:
                    raise RankError(f"rank {rank} died") from None
                if not good:
                    raise RankError(f"rank {rank}:\n{answers[rank]}")
        return [answers[rank] for rank in range(len(self._ends))]

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _serve(end: Connection, rank: int, size: int, meeting: str) -> None:
    import importlib

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=timedelta(seconds=_SECONDS)
    )
    while True:
        try:
            paths, module, name, args = end.recv()
        except EOFError:
            return
        sys.path[:] = paths
        torch.manual_seed(0)
        try:
            found: Any = importlib.import_module(module)
            for step in name.split("."):
                found = getattr(found, step)
            end.send((True, found(*args)))
        except BaseException:
            end.send((False, traceback.format_exc()))
