"""What processes of a group say to each other, without gradients: losses and evaluation build on these few calls.

Every process of a group makes the same calls in the same order. With one process nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from vlkit.errors import VlkitError


@dataclass(frozen=True)
class Ranks:
    """A group of processes and this process's place in it.

    ``rank`` counts from 0 inside the group; ``group`` None is the default group (or no group, with size 1).
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @classmethod
    def world(cls) -> Ranks:
        """All processes of the job; one alone where torch.distributed is not started."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def groups_of(self, size: int) -> Ranks:
        """This process's group, when all are split into groups of ``size`` neighbours; every process must call it.

        Raises:
            VlkitError: ``size`` does not divide the number of processes.
        """
        if size < 1 or self.size % size:
            fits = ", ".join(str(n) for n in range(1, self.size + 1) if self.size % n == 0)
            raise VlkitError(f"groups of {size} do not divide {self.size} processes; group sizes that do: {fits}")
        if size == self.size:
            return self
        if size == 1:
            return Ranks()
        first = self.rank - self.rank % size
        made = [dist.new_group([self._global(start + n) for n in range(size)]) for start in range(0, self.size, size)]
        return Ranks(self.rank % size, size, made[first // size])

    def all_gather(self, x: Tensor) -> Tensor:
        """The tensors of all processes, equal in shape, one after the other in the order of ranks."""
        if self.size == 1:
            return x
        out = x.new_empty((self.size * x.shape[0], *x.shape[1:]))
        dist.all_gather_into_tensor(out, x.contiguous(), group=self.group)
        return out

    def reduce_scatter(self, x: Tensor) -> Tensor:
        """This process's piece of the sum over processes; ``x`` has one piece a rank, in the order of ranks."""
        if self.size == 1:
            return x
        out = x.new_empty((x.shape[0] // self.size, *x.shape[1:]))
        dist.reduce_scatter_tensor(out, x.contiguous(), group=self.group)
        return out

    def all_reduce(self, x: Tensor, op: Literal["sum", "max", "min"] = "sum") -> Tensor:
        """The element-wise sum (or maximum, minimum) over processes, in place; returns ``x``."""
        if self.size > 1:
            dist.all_reduce(x, op=getattr(dist.ReduceOp, op.upper()), group=self.group)
        return x

    def shift(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Hands tensors to the next rank and takes those of the one before, all at the same time."""
        if self.size == 1:
            return tensors
        there, back = self._global((self.rank + 1) % self.size), self._global((self.rank - 1) % self.size)
        taken = tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors)
        sends = [dist.P2POp(dist.isend, x.contiguous(), there, group=self.group) for x in tensors]
        takes = [dist.P2POp(dist.irecv, x, back, group=self.group) for x in taken]
        for work in dist.batch_isend_irecv([*sends, *takes]):
            work.wait()
        return taken

    def gather_objects(self, value: Any) -> list[Any]:
        """Small plain values of all processes, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def barrier(self) -> None:
        """Waits until all processes are here."""
        if self.size > 1:
            dist.barrier(group=self.group)

    def _global(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


@contextmanager
def shared_errors(ranks: Ranks) -> Iterator[None]:
    """Work that one process may fail at: its error is raised in all of them, so that none waits for it forever."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    said = ranks.gather_objects(None if failed is None else f"{type(failed).__name__}: {failed}")
    if failed is not None:
        raise failed
    for rank, message in enumerate(said):
        if message is not None:
            raise VlkitError(f"process {rank} failed: {message}")
