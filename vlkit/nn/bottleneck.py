"""Bottleneck adapters: small perceptrons behind the layers of a model that itself stays as it is.

Sources: Houlsby et al. (arXiv 1902.00751, section 2.1), Pfeiffer et al. (2005.00052).

Shapes: B batch, L length, D width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class WithBottleneck(nn.Module):
    """A sub-layer whose output h becomes h + up(gelu(down(h))); the sub-layer alone, to the bit, as long as up is zero.

    ``base_layer`` gives h_BLD, or a tuple whose first entry that is; ``width`` is D, ``bottleneck`` the width between.
    """

    def __init__(self, base_layer: nn.Module, width: int, *, bottleneck: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        up = nn.Linear(bottleneck, width)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck = nn.Sequential(nn.Linear(width, bottleneck), nn.GELU(), up)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # libraries ask a layer for its weight or its width
            return getattr(super().__getattr__("base_layer"), name)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the sub-layer gives, changed by the bottleneck."""
        given = self.base_layer(*inputs, **options)
        if isinstance(given, tuple):
            return (self._changed(given[0]), *given[1:])
        return self._changed(given)

    def _changed(self, h_BLD: Tensor) -> Tensor:
        place = next(self.bottleneck.parameters())  # held in more bits than the sub-layer, perhaps
        changed_BLD: Tensor = h_BLD + self.bottleneck(h_BLD.to(place.dtype)).to(h_BLD.dtype)
        return changed_BLD
