"""Names as numbers that all processes agree on."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor


def ids_of(names: Sequence[str], *, rank: int) -> Tensor:
    """int64 ids_B, equal where names are, on every process; an empty name is equal to no other.

    ``rank`` is this process's number.
    """
    # The hash of Python's own differs from process to process.
    keys = [f"={name}" if name else f"{rank} {row}" for row, name in enumerate(names)]
    digests = [int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big", signed=True) for key in keys]
    return torch.tensor(digests, dtype=torch.int64)
