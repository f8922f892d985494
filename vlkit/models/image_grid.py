"""Several images as one: in rows and columns, small ones enlarged so that each pixel can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_SHOWN = 128  # pixels that a small image's side is enlarged to, at least


def image_grid(images: Sequence[Image], columns: int, *, gap: int = 4, shown: int = _SHOWN) -> Image:
    """RGB images of one size in rows of ``columns``, white between them; sides below ``shown`` become whole multiples.

    The last row may be shorter.
    """
    from PIL.Image import Resampling, new

    width, height = images[0].size
    times = -(-shown // min(width, height)) if min(width, height) < shown else 1
    cell = (width * times, height * times)
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    grid = new("RGB", (columns * (cell[0] + gap) - gap, rows * (cell[1] + gap) - gap), "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        grid.paste(image.resize(cell, Resampling.NEAREST), (column * (cell[0] + gap), row * (cell[1] + gap)))
    return grid
