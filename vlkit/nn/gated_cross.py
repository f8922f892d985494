"""Lets the layers of a decoder that was trained without one look at an encoder's states.

Source: Flamingo (arXiv 2204.14198, section 2.2: attention behind a gate tanh(a) with a = 0 at the start), without its
second perceptron; the attention has the sub-LN of ``nn.multiway``.

Shapes: B batch, L length, D decoder width, M states looked at, C their width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vlkit.nn.multiway import Attention, init_weights


class GatedCross(nn.Module):
    """A decoder's layer, and after it attention to what ``look_at`` was given; the layer alone, to the bit, at first.

    ``layer`` gives states_BLD, or a tuple whose first entry they are.
    """

    def __init__(self, layer: nn.Module, width: int, *, source_width: int, heads: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads, source_width=source_width)
        self.gate = nn.Parameter(torch.zeros(()))
        init_weights(self.attention)
        self._source: tuple[Tensor, Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # libraries ask a layer for its kind of attention
            return getattr(super().__getattr__("layer"), name)

    def look_at(self, source_BMC: Tensor | None, keep_BM: Tensor | None) -> None:
        """What the next passes look at, and which of it is real; None for nothing.

        Passes may have some rows for each of the source's, one after the other.
        """
        self._source = None if source_BMC is None or keep_BM is None else (source_BMC, keep_BM)

    def forward(self, states_BLD: Tensor, *inputs: Any, **options: Any) -> Any:
        """What the layer gives, changed by what was looked at."""
        given = self.layer(states_BLD, *inputs, **options)
        if self._source is None:
            return given
        if isinstance(given, tuple):
            return (self._changed(given[0]), *given[1:])
        return self._changed(given)

    def _changed(self, states_BLD: Tensor) -> Tensor:
        source_BMC, keep_BM = self._source  # type: ignore[misc]
        times = len(states_BLD) // len(source_BMC)  # several answers of a row are followed at a time
        if times > 1:
            source_BMC, keep_BM = source_BMC.repeat_interleave(times, dim=0), keep_BM.repeat_interleave(times, dim=0)
        normed_BLD = self.norm(states_BLD.to(self.gate.dtype))
        looked_BLD = self.attention(normed_BLD, source_BMC.to(self.gate.dtype), keep_BM=keep_BM)
        changed_BLD: Tensor = states_BLD + (self.gate.tanh() * looked_BLD).to(states_BLD.dtype)
        return changed_BLD
