"""What of an image is known before its codes are sampled: to change a part of it, to vary it, to let it grow.

The sampler does the rest: codes that are known stay as they are, to the bit.

Shapes: B images, H rows and W columns of pixels or of codes, N codes of an image row by row, h and w the rows and
columns of codes that a model makes at a time, K codebook size (code K stands for an unknown one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vlkit.errors import ShapeError, VlkitError
from vlkit.nn.code_masks import first_of
from vlkit.nn.code_noise import VARIATION, exponential, place_keys


def touched_codes(mask_BHW: Tensor, grid: tuple[int, int], *, area: float | None) -> Tensor:
    """Which codes belong to the marked pixels of images, bool [B, N].

    Args:
        mask_BHW: True (or above 0) where pixels are marked.
        grid: Rows and columns of codes; each stands for a rectangle of pixels.
        area: The share of a code's pixels, above 0 and up to 1, that have to be marked; None: any of them will do.

    Raises:
        ShapeError: A mask that cannot be cut into that grid.
        VlkitError: ``area`` is out of range.
    """
    rows, columns = grid
    if mask_BHW.ndim != 3 or min(grid) < 1 or mask_BHW.shape[1] % rows or mask_BHW.shape[2] % columns:
        raise ShapeError(
            f"a mask of {list(mask_BHW.shape)} (images, rows, columns) cannot be cut into {rows}x{columns} codes; give "
            f"one of the tokenizer's image size"
        )
    if area is not None and not 0 < area <= 1:
        raise VlkitError(f"area = {area:g} is no share of a code's pixels; give a number above 0 and up to 1, or None")
    high, wide = mask_BHW.shape[1] // rows, mask_BHW.shape[2] // columns
    count_BN = (mask_BHW > 0).reshape(-1, rows, high, columns, wide).sum(dim=(2, 4)).flatten(1)
    least = 1 if area is None else area * high * wide
    return count_BN >= least


def hidden(codes_BN: Tensor, masked_BN: Tensor, *, codebook_size: int) -> Tensor:
    """Codes, K where masked: what is known where a part of an image shall be made anew.

    Raises:
        ShapeError: A mask for other codes.
    """
    if masked_BN.shape != codes_BN.shape:
        raise ShapeError(f"the mask is for codes {list(masked_BN.shape)}, and there are {list(codes_BN.shape)}")
    return codes_BN.masked_fill(masked_BN.bool(), codebook_size)


def varied(codes_BN: Tensor, *, strength: float, seeds: Sequence[int], codebook_size: int) -> Tensor:
    """Codes of which a share, ``strength``, is hidden: sampled again they give variations of the image.

    The share is met exactly (and at least one code is hidden above 0). Which codes they are hangs on an image's seed
    alone, and those of a smaller strength are among those of a larger one.

    Raises:
        ShapeError: Another number of seeds than of images.
        VlkitError: ``strength`` is outside of 0..1.
    """
    if not 0 <= strength <= 1:
        raise VlkitError(f"strength = {strength:g} is no share; give a number in 0..1, 0 for the same image")
    if len(seeds) != len(codes_BN):
        raise ShapeError(f"{len(seeds)} seeds for {len(codes_BN)} images; give one each")
    seeds_B = torch.tensor(list(seeds), dtype=torch.int64, device=codes_BN.device)
    keys_BN = place_keys(seeds_B, stream=VARIATION, window=0, step=0, num_codes=codes_BN.shape[1])
    count = max(round(strength * codes_BN.shape[1]), int(strength > 0))
    return hidden(
        codes_BN, first_of(exponential(keys_BN), torch.full_like(seeds_B, count)), codebook_size=codebook_size
    )


class Margins(NamedTuple):
    """Rows or columns of codes by which an image grows on each side."""

    left: int = 0
    right: int = 0
    up: int = 0
    down: int = 0


def widened(codes_BHW: Tensor, margins: Margins, *, codebook_size: int) -> Tensor:
    """Codes with unknown ones, K, around them.

    Raises:
        ShapeError: A margin below 0.
    """
    if min(margins) < 0:
        raise ShapeError(f"margins {margins._asdict()}: 0 or more rows or columns are added on each side")
    return functional.pad(codes_BHW, tuple(margins), value=codebook_size)


def filled(
    sample_window: Callable[[Tensor, int], Tensor],
    canvas_BHW: Tensor,
    *,
    grid: tuple[int, int],
    offset: tuple[int, int],
    codebook_size: int,
) -> Tensor:
    """Finds all unknown codes of a canvas larger than what a model makes at a time, window by window.

    Windows lie every ``offset`` rows and columns, and at the far edges. The next one is that which knows most, so that
    an image grows from where it is known, to whichever side. Give the sampler the number of the window, else each would
    meet the same noise.

    Args:
        sample_window: From the known codes of a window, [B, h * w], and its number, from 1, to all of its codes.
        canvas_BHW: Codes, K where unknown; the same places in all images.
        grid: h and w.
        offset: By how many rows and columns windows are apart; 1 up to those of the grid. Half of the grid is usual.
        codebook_size: K.

    Raises:
        ShapeError: A canvas smaller than the grid, an offset out of range, or images that are unknown in different
            places.
    """
    canvas_BHW = canvas_BHW.clone()
    unknown_HW = _unknown(canvas_BHW, grid, offset, codebook_size)
    corners = [
        (row, column)
        for row in _starts(canvas_BHW.shape[1], grid[0], offset[0])
        for column in _starts(canvas_BHW.shape[2], grid[1], offset[1])
    ]
    number = 0
    while bool(unknown_HW.any()):
        number += 1
        missing = {corner: int(_window(unknown_HW, corner, grid).sum()) for corner in corners}
        corner = min((corner for corner in corners if missing[corner]), key=lambda one: missing[one])
        window_BHW = _window(canvas_BHW, corner, grid)
        found_BN = sample_window(window_BHW.flatten(1), number)
        window_BHW.copy_(found_BN.reshape(-1, *grid))
        _window(unknown_HW, corner, grid).fill_(False)
    return canvas_BHW


def _window(of_XHW: Tensor, corner: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """A view of the codes below and right of a corner."""
    (row, column), (rows, columns) = corner, grid
    return of_XHW[..., row : row + rows, column : column + columns]


def _starts(length: int, window: int, offset: int) -> Iterator[int]:
    """Where windows begin along one side, the last one at its end."""
    yield from range(0, length - window, offset)
    yield length - window


def _unknown(canvas_BHW: Tensor, grid: tuple[int, int], offset: tuple[int, int], codebook_size: int) -> Tensor:
    """Where a canvas has to be filled, bool [H, W]."""
    if canvas_BHW.ndim != 3 or any(have < need for have, need in zip(canvas_BHW.shape[1:], grid, strict=True)):
        raise ShapeError(
            f"a canvas of {list(canvas_BHW.shape)} (images, rows, columns) is smaller than the {grid[0]}x{grid[1]} "
            f"codes that are made at a time"
        )
    if not all(1 <= step <= size for step, size in zip(offset, grid, strict=True)):
        raise ShapeError(
            f"offset = {offset[0]}, {offset[1]}: windows of {grid[0]}x{grid[1]} codes lie 1 to {grid[0]} rows and 1 to "
            f"{grid[1]} columns apart"
        )
    unknown_BHW = canvas_BHW == codebook_size
    if not bool((unknown_BHW == unknown_BHW[:1]).all()):
        raise ShapeError("the images of a canvas are unknown in different places; fill them one by one")
    return unknown_BHW[0].clone() if len(unknown_BHW) else unknown_BHW.new_zeros(canvas_BHW.shape[1:])
