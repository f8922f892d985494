"""Bridges that look at each image token alone, or at squares of them: what each model token is made of stands in place.

Shapes: B batch, N image tokens, T their width, M model tokens, E their width, H height and W width of a grid, h and w
those of a square in it.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import ShapeError


class BaseBridge(nn.Module):
    """What all bridges of vlkit share: their two widths, and as many model tokens as image tokens unless they say so.

    ``in_width`` is T of the image tokens, ``out_width`` E of the model tokens.
    """

    kind: ClassVar[str]
    spec: Any  # what builds it again; whoever builds from a spec sets it

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.in_width, self.out_width = in_width, out_width

    def num_tokens(self, count: int) -> int:
        """M for ``count`` image tokens."""
        return count


class LinearBridge(BaseBridge):
    """One linear map of each image token (LLaVA, arXiv 2304.08485, section 4.1)."""

    kind = "linear"

    def __init__(self, in_width: int, out_width: int, *, bias: bool) -> None:
        super().__init__(in_width, out_width)
        self.map = nn.Linear(in_width, out_width, bias=bias)

    def forward(self, tokens_BNT: Tensor) -> Tensor:
        """tokens_BNE."""
        out_BNE: Tensor = self.map(tokens_BNT)
        return out_BNE


class MlpBridge(BaseBridge):
    """Linear maps of each image token with GELU between them (LLaVA 1.5, arXiv 2310.03744, section 3.2).

    ``layers`` are the linear maps, all but the first from E to E. With ``norm`` a LayerNorm follows each of them,
    before the GELU (Yi-VL, 2403.04652, section 7.2).
    """

    kind = "mlp"

    def __init__(self, in_width: int, out_width: int, *, layers: int, norm: bool) -> None:
        super().__init__(in_width, out_width)
        self.maps = nn.ModuleList(nn.Linear(out_width if place else in_width, out_width) for place in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(out_width) for _ in range(layers)) if norm else None

    def forward(self, tokens_BNT: Tensor) -> Tensor:
        """tokens_BNE."""
        x_BNE = tokens_BNT
        for place, one in enumerate(self.maps):
            x_BNE = one(F.gelu(x_BNE) if place else x_BNE)
            if self.norms is not None:
                x_BNE = self.norms[place](x_BNE)
        return x_BNE


class PixelShuffleBridge(BaseBridge):
    """Squares of neighbouring image tokens joined on their channels, then a linear map (nanoVLM; Idefics3, 2408.12637).

    The tokens are those of a square grid, row by row. ``factor`` is the side of the squares; where the grid's side is
    no multiple of it, rows of zeros are added at the bottom and columns of zeros on the right, so that no token is
    lost. Within a square the tokens stand row by row.
    """

    kind = "pixel_shuffle"

    def __init__(self, in_width: int, out_width: int, *, factor: int, bias: bool) -> None:
        super().__init__(in_width, out_width)
        self.factor = factor
        self.map = nn.Linear(in_width * factor**2, out_width, bias=bias)

    def num_tokens(self, count: int) -> int:
        """M: squares in a square grid of ``count`` image tokens.

        Raises:
            ShapeError: They form no square grid.
        """
        side: int = math.ceil(_side(count) / self.factor)
        return side**2

    def forward(self, tokens_BNT: Tensor) -> Tensor:
        """tokens_BME, row by row.

        Raises:
            ShapeError: The image tokens form no square grid.
        """
        side = _side(tokens_BNT.shape[1])
        missing, (count, factor) = -side % self.factor, (len(tokens_BNT), self.factor)
        grid_BHWT = F.pad(tokens_BNT.reshape(count, side, side, -1), (0, 0, 0, missing, 0, missing))
        grid_BHhWwT = grid_BHWT.reshape(count, -1, factor, (side + missing) // factor, factor, self.in_width)
        joined_BMT = grid_BHhWwT.transpose(2, 3).flatten(3).flatten(1, 2)
        out_BME: Tensor = self.map(joined_BMT)
        return out_BME


def _side(count: int) -> int:
    side = math.isqrt(count)
    if side**2 != count:
        raise ShapeError(
            f"a pixel_shuffle bridge joins neighbours of a square grid, and {count} image tokens form none; take "
            f"another bridge, or an encoder that gives a grid (of a tiled one, merge: channels)"
        )
    return side
