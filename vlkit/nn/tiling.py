"""Images cut into square tiles, and what an encoder makes of the tiles put together again.

Sources: S2 (arXiv 2403.13043, section 3.1), Centurio (2501.05122, section 2.1).

Shapes: B batch, C channels, H height, W width, m tiles in a row and rows of tiles, S side of a tile, N tokens of a
tile, T their width, M tokens of an image.
"""

from __future__ import annotations

import math

import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor

from vlkit.errors import ShapeError


def cut(pixels_BCHW: Tensor, grid: int) -> Tensor:
    """Tiles of square images, [B * m * m, C, S, S]: those of one image together, row by row.

    Raises:
        ShapeError: The images are no whole number of tiles.
    """
    height, width = pixels_BCHW.shape[-2:]
    if height != width or height % grid:
        raise ShapeError(f"images of {height}x{width} pixels cannot be cut into {grid}x{grid} square tiles")
    batch, channels, side = *pixels_BCHW.shape[:2], height // grid
    rows = pixels_BCHW.reshape(batch, channels, grid, side, grid, side)
    return rows.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, side, side)


def shrunk(pixels_BCHW: Tensor, grid: int) -> Tensor:
    """Whole images at the size of one tile, float32."""
    side = pixels_BCHW.shape[-1] // grid
    return F.interpolate(pixels_BCHW.float(), size=(side, side), mode="bicubic", antialias=True)


def stitch(tokens: Tensor, grid: int) -> Tensor:
    """Tokens of tiles [B * m * m, N, T], as ``cut`` orders them, to those of the images row by row, [B, M, T].

    Raises:
        ShapeError: The tokens of a tile form no square.
    """
    count, width = tokens.shape[1:]
    side = math.isqrt(count)
    if side**2 != count:
        raise ShapeError(
            f"tiles are put together by their tokens' places, and {count} tokens form no square grid; take an encoder "
            f"that gives one"
        )
    tiles = tokens.reshape(-1, grid, grid, side, side, width)
    return tiles.transpose(2, 3).reshape(len(tiles), -1, width)


def averaged(stitched_BMT: Tensor, grid: int) -> Tensor:
    """Tokens of a square, row by row, to the means of squares of m * m of them: [B, N, T]."""
    side, width = math.isqrt(stitched_BMT.shape[1]) // grid, stitched_BMT.shape[2]
    squares = stitched_BMT.reshape(-1, side, grid, side, grid, width)
    return squares.mean(dim=(2, 4)).flatten(1, 2)
