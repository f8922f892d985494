"""What an objective may need to know beside its spec and the model."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlkit.distributed.collectives import Ranks
from vlkit.types import FrozenTables


@dataclass(frozen=True)
class Context:
    """Where a run computes its losses.

    ``ranks`` are the processes that share a batch; ``frozen`` what frozen parts made of the data, where it is looked
    up.
    """

    ranks: Ranks = field(default_factory=Ranks)
    frozen: FrozenTables | None = None
