"""Device, precision, and the processes of a job: how they start, take turns and end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vlkit.distributed.collectives import Ranks
from vlkit.distributed.launch import Launch, launched
from vlkit.errors import Stopped, VlkitError
from vlkit.foreign import printable
from vlkit.spec.training import LoopSpec

_FAILED, _PROCESS = "vlkit/failed", "vlkit/process/{rank}"  # keys that the processes of a job share
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
    elif (launch := launched()).size == 1:
        yield Runtime(choose_device(spec))
    else:
        yield from _in_job(spec, launch)


def _in_job(spec: LoopSpec, launch: Launch) -> Iterator[Runtime]:
    store: Any = None
    try:
        device = _own_device(choose_device(spec), launch.local_rank)
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=spec.timeout)))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("vlkit", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=spec.timeout),
        )
        store.set(_PROCESS.format(rank=rank), f"{os.getpid()} {socket.gethostname()}")
        with _joined(device) as runtime:
            yield runtime
            runtime.host.barrier()
    except BaseException as error:
        _leave(error, store, launch)
    dist.destroy_process_group()


@contextmanager
def _joined(device: torch.device) -> Iterator[Runtime]:
    ranks = Ranks.world()
    group = dist.new_group(backend="gloo", timeout=_LONG)
    local = os.environ.get("LOCAL_RANK", str(ranks.rank))
    turn = 0 if ranks.rank == 0 else 1 if local == "0" else 2
    yield Runtime(device, ranks, replace(ranks, group=group), turn)
    dist.destroy_process_group(group)


def _own_device(device: torch.device, local: int) -> torch.device:
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


def _leave(error: BaseException, store: Any, launch: Launch) -> NoReturn:
    """Says what went wrong, unless another process has said the same, and ends this process."""
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, when one process is gone: this one is ending
    stopped = isinstance(error, KeyboardInterrupt)
    expected = stopped or isinstance(error, VlkitError | OSError)
    text = str(error) if expected else "".join(traceback.format_exception(error)).rstrip()
    text = text or "stopped; what is whole is kept: run the same command again, with --resume where it had begun"
    if (lost := _lost_others(error)) or (stopped and _gone(store, launch)):
        if _told(store, seconds=0.0 if _gone(store, launch, seconds=2.0) else 5.0):
            os._exit(1)
        text = _gone(store, launch) or (
            f"another process of the job is gone and left no message: killed, perhaps for want of memory, or cut off "
            f"({str(error).splitlines()[0] if lost else 'stopped'})"
        )
        text, stopped = f"{text}; go on with --resume", True
    if _is_news(store, str(launch.rank), text if lost else str(error)):
        sys.stderr.write(f"{printable(text)}\n" if stopped else f"rank {launch.rank}: {printable(text)}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    number = error.number if isinstance(error, Stopped) else int(signal.SIGINT)
    os._exit(128 + number if isinstance(error, KeyboardInterrupt) else 2 if expected else 1)


def _gone(store: Any, launch: Launch, *, seconds: float = 0.0) -> str:
    """Which process of this machine has ended, and of what, in words; "" where none is known to within a time."""
    until = time.monotonic() + seconds
    while True:
        with suppress(Exception):  # the store may have been the other's
            for rank in range(launch.size):
                key = _PROCESS.format(rank=rank)
                if rank == launch.rank or not store.check([key]):
                    continue
                pid, host = store.get(key).decode().split(" ", 1)
                if host == socket.gethostname() and (how := _how_ended(int(pid))):
                    return f"rank {rank} (process {pid}) {how}"
        if time.monotonic() >= until:
            return ""
        time.sleep(0.05)


def _how_ended(pid: int) -> str:
    """How a process ended, where the system still knows; "" for one that lives."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    except FileNotFoundError:
        return "is gone and left no message: killed, perhaps for want of memory" if Path("/proc/self").exists() else ""
    if state not in "ZX":
        return ""
    code = os.waitstatus_to_exitcode(int(fields[48]))  # proc(5): field 52, for who may look; else 0
    if code < 0:
        why = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{why}"
    return f"ended with code {code} and left no message" if code else "is gone and left no message"


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
