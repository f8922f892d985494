"""Which blocks of an image encoder give its tokens, and how those of several become one token each.

Shapes: B batch, N image tokens, T their width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlkit.errors import ShapeError, VlkitError

LAST = (-1,)
"""The last block alone."""


class TokenLayers:
    """The blocks that give the tokens.

    Args:
        layers: Of the spec: 1 is the first block, -1 the last.
        count: Blocks that there are.
        where: What the encoder is called in messages.

    Raises:
        VlkitError: There is no such block.
    """

    def __init__(self, layers: Sequence[int], *, count: int, where: str) -> None:
        self.where, self.count, self.named = where, count, tuple(layers)
        for layer in layers:
            if layer == 0 or abs(layer) > count:
                raise VlkitError(
                    f"{where}: layers = {list(layers)} names block {layer}; allowed: 1 to {count}, or -1 (the last) to "
                    f"-{count}"
                )
        self.numbers = tuple(layer if layer > 0 else count + 1 + layer for layer in layers)
        """From 1, in the order of ``layers``."""

    @property
    def needs_last(self) -> bool:
        """Whether the last block is among them."""
        return self.count in self.numbers

    def of(self, states: Sequence[Tensor] | dict[int, Tensor]) -> Tensor:
        """tokens_BNT joined on their channels, in the order of ``layers``.

        ``states`` are those of all blocks in order, or of the chosen ones by number.

        Raises:
            ShapeError: The blocks give different numbers of tokens.
        """
        chosen = [states[number] if isinstance(states, dict) else states[number - 1] for number in self.numbers]
        if len(counts := {tokens.shape[1] for tokens in chosen}) > 1:
            raise ShapeError(
                f"{self.where}: layers = {list(self.named)} give {', '.join(map(str, sorted(counts)))} tokens, which "
                f"cannot be joined; choose blocks of one resolution"
            )
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=-1)
