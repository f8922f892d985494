"""How this process was started, alone or as one of a job, as torchrun's environment variables say; without torch."""

from __future__ import annotations

import os
from typing import NamedTuple

from vlkit.errors import VlkitError

_MEETING = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # what processes of a job need to find each other


class Launch(NamedTuple):
    """A process's place: ``rank`` of ``size`` processes of the job, ``local_rank`` of ``local_size`` on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0


def launched() -> Launch:
    """Reads the place of this process; alone where ``WORLD_SIZE`` is 1 or missing, whatever else is left over.

    Raises:
        VlkitError: Variables that are missing, no numbers, or do not go together.
    """
    size = _number("WORLD_SIZE", 1, low=1)
    if size == 1:
        return Launch()
    if missing := [name for name in _MEETING if not os.environ.get(name)]:
        raise VlkitError(
            f"the environment has WORLD_SIZE={size} and no {' and no '.join(missing)}, without which the processes of "
            f"a job do not find each other; start with: torchrun --nproc-per-node {size} -m vlkit ..., or for one "
            f"process: unset WORLD_SIZE"
        )
    rank = _number("RANK", 0, below=size)
    _number("MASTER_PORT", 1, low=1, below=1 << 16)
    local_size = _number("LOCAL_WORLD_SIZE", size, low=1)
    return Launch(rank, size, _number("LOCAL_RANK", rank), local_size)


def _number(name: str, usual: int, *, low: int = 0, below: int | None = None) -> int:
    given = os.environ.get(name, "").strip()
    if not given:
        return usual
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else -1
    if number < low or (below is not None and number >= below):
        wanted = f"{low} or more" if below is None else f"{low} to {below - 1}"
        raise VlkitError(
            f"the environment has {name}={given}; it must be a whole number, {wanted}: start with torchrun, which sets "
            f"it, or unset WORLD_SIZE to run one process"
        )
    return number
