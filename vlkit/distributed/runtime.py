"""Device, precision, and the processes of a job: how they start, take turns and end."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.spec.training import LoopSpec

_FAILED = "vlkit/failed"
_LONG = timedelta(days=7)  # one process encodes a data set or writes a checkpoint while the others wait


def choose_device(spec: LoopSpec) -> torch.device:
    """The device that ``loop.device`` asks for.

    Raises:
        VlkitError: It is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if spec.device == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[spec.device]:
        usable = ", ".join(name for name, found in there.items() if found)
        raise VlkitError(f"loop.device = {spec.device}, but this machine has none; there are: {usable}")
    return torch.device(spec.device)


def autocast(spec: LoopSpec, device: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast where ``loop.precision`` asks for it or, on auto, where it pays."""
    if spec.precision == "bf16" or (spec.precision == "auto" and device.type == "cuda"):
        # The cache would keep the cast weights of all blocks, which fsdp holds one after the other.
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=spec.parallel != "fsdp")
    return nullcontext()


def process_count() -> int:
    """How many processes this one was started with (by torchrun)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share_of(batch_size: int, processes: int) -> int:
    """Pairs of a step that each process takes.

    Raises:
        VlkitError: They cannot be dealt out evenly.
    """
    share, rest = divmod(batch_size, processes)
    if rest or not share:
        near = [processes * count for count in ((share,) if share else ()) + (share + 1,)]
        raise VlkitError(
            f"loop.batch_size = {batch_size} cannot be dealt out evenly to {processes} processes; use "
            f"{' or '.join(f'loop.batch_size={size}' for size in near)}"
        )
    return share


@dataclass(frozen=True)
class Runtime:
    """Where a process runs, and with which others.

    ``ranks`` are the processes that share a batch; ``host`` the same ones for plain values, where waiting takes as long
    as it takes. ``turn`` is 0 on rank 0, 1 on the first process of each other machine, 2 on all others.
    """

    device: torch.device
    ranks: Ranks = field(default_factory=Ranks)
    host: Ranks = field(default_factory=Ranks)
    turn: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.ranks.rank == 0

    def first(self, act: Callable[[], object]) -> None:
        """Rank 0 acts while the others wait.

        Raises:
            VlkitError: What rank 0 raised; all processes raise it.
        """
        error: Exception | None = None
        if self.leads:
            try:
                act()
            except (VlkitError, OSError) as problem:
                if self.ranks.size == 1:
                    raise
                error = problem
        (message, *_) = self.host.gather_objects(None if error is None else str(error))
        if error is not None:
            raise error
        if message is not None:
            raise VlkitError(message)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Rank 0 goes first, then one process of each other machine, then all others: nothing is computed twice."""
        for _ in range(self.turn):
            self.host.barrier()
        try:
            yield
        finally:
            for _ in range(self.turn, 2):
                self.host.barrier()


@contextmanager
def started(spec: LoopSpec) -> Iterator[Runtime]:
    """The runtime of this process; joins the job that torchrun started, or the group that is there already.

    In a job of torchrun's, an error ends the process at once with its message on standard error: whatever waited for
    the others would wait in vain.

    Raises:
        VlkitError: The device is not there.
    """
    if dist.is_available() and dist.is_initialized():
        with _joined(choose_device(spec)) as runtime:
            yield runtime
    elif process_count() == 1:
        yield Runtime(choose_device(spec))
    else:
        yield from _launched(spec)


def _launched(spec: LoopSpec) -> Iterator[Runtime]:
    store: Any = None
    try:
        device = _own_device(choose_device(spec))
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=spec.timeout)))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("vlkit", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=spec.timeout),
        )
        with _joined(device) as runtime:
            yield runtime
            runtime.host.barrier()
    except BaseException as error:
        _leave(error, store)
    dist.destroy_process_group()


@contextmanager
def _joined(device: torch.device) -> Iterator[Runtime]:
    ranks = Ranks.world()
    group = dist.new_group(backend="gloo", timeout=_LONG)
    turn = 0 if ranks.rank == 0 else 1 if os.environ.get("LOCAL_RANK", str(ranks.rank)) == "0" else 2
    yield Runtime(device, ranks, replace(ranks, group=group), turn)
    dist.destroy_process_group(group)


def _own_device(device: torch.device) -> torch.device:
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "mps":
        raise VlkitError("loop.device = mps takes one process; start without torchrun")
    if device.type != "cuda":
        return device
    if local >= torch.cuda.device_count():
        raise VlkitError(
            f"process {local + 1} of this machine finds only {torch.cuda.device_count()} GPUs; start "
            f"--nproc-per-node {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _leave(error: BaseException, store: Any) -> NoReturn:
    """Says what went wrong, unless another process has said the same, and ends this process."""
    rank = os.environ.get("RANK", "?")
    expected = isinstance(error, VlkitError | OSError | KeyboardInterrupt)
    text = str(error) if expected else "".join(traceback.format_exception(error)).rstrip()
    if _lost_others(error):
        if _told(store):
            os._exit(1)
        text = (
            f"another process of the job is gone and left no message: killed, perhaps for want of memory, or cut off "
            f"({str(error).splitlines()[0]}); go on with --resume"
        )
    elif not _is_news(store, rank, str(error)):
        text = ""
    if text:
        sys.stderr.write(text + "\n" if isinstance(error, KeyboardInterrupt) else f"rank {rank}: {text}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130 if isinstance(error, KeyboardInterrupt) else 2 if expected else 1)


def _lost_others(error: BaseException) -> bool:
    """Whether an error is only the echo of another process's end."""
    if isinstance(error, dist.DistError):
        return True
    signs = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out waiting")
    return type(error) is RuntimeError and any(sign in str(error).lower() for sign in signs)


def _is_news(store: Any, rank: str, message: str) -> bool:
    with suppress(Exception):
        mine = f"{rank} {message}"
        first: str = store.compare_set(_FAILED, "", mine).decode()
        return first == mine or first.partition(" ")[2] != message
    return True


def _told(store: Any, seconds: float = 5.0) -> bool:
    """Whether a process has said why it ends; it may be about to."""
    until = time.monotonic() + seconds
    with suppress(Exception):
        while time.monotonic() < until:
            if store.check([_FAILED]):
                return True
            time.sleep(0.1)
    return False
