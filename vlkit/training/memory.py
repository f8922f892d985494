"""What to lower where a training step does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vlkit.distributed.runtime import Runtime
from vlkit.errors import VlkitError
from vlkit.spec.training import LoopSpec

_SIGNS = ("out of memory", "allocate memory")  # of CUDA's and of the CPU's allocator


@contextmanager
def memory_told(loop: LoopSpec, runtime: Runtime) -> Iterator[None]:
    """Turns an allocation that failed inside into what to lower.

    Raises:
        VlkitError: There was too little memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        if not isinstance(error, MemoryError) and not any(sign in said.lower() for sign in _SIGNS):
            raise
        where = f"the memory of {runtime.device}" if runtime.device.type != "cpu" else "memory"
        ways = ", or ".join(_ways(loop, runtime))
        raise VlkitError(f"a step does not fit into {where} ({said[:200] or 'no memory is left'}); {ways}") from error


def _ways(loop: LoopSpec, runtime: Runtime) -> list[str]:
    """What helps, the cheapest first."""
    rows, found = loop.micro_batch or loop.batch_size // runtime.ranks.size, []
    if rows > 1:
        found.append(f"set loop.micro_batch to {rows // 2} (now {rows} rows at a time; the loss stays the same)")
    if not loop.grad_checkpointing:
        found.append("set loop.grad_checkpointing to true")
    if runtime.device.type == "cpu" and loop.precision != "bf16":
        found.append("set loop.precision to bf16")
    if runtime.ranks.size > 1 and loop.parallel != "fsdp":
        found.append("set loop.parallel to fsdp")
    return [*found, "train fewer parts, or an adapter instead of them"]
