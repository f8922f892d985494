"""What all image tokenizers check and prepare: images of one size and range, and codes that exist.

Shapes: B batch, C channels, H height, W width, N codes of an image.
"""

from __future__ import annotations

from functools import partial

import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from vlkit.errors import ShapeError, VlkitError
from vlkit.parts.building import ImageTransform

_SLACK = 0.05  # what resizing may overshoot


def square_transform(size: int, *, low: float) -> ImageTransform:
    """The shorter side resized (bicubic, antialiased), the middle cut out, values in ``low``..1; as Show-o does."""
    settings = {"library": "vlkit-tokenizer", "size": size, "low": low}
    return ImageTransform(partial(_cut_out, size=size, low=low), settings)


def _cut_out(image: Image, *, size: int, low: float) -> Tensor:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    small = image.crop((left, top, left + side, top + side)).resize((size, size), Resampling.BICUBIC)
    pixels_HWC = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(size, size, 3)
    return pixels_HWC.permute(2, 0, 1).float() / 255 * (1 - low) + low


def check_pixels(pixels_BCHW: Tensor, *, size: int, low: float, where: str) -> None:
    """Refuses images of another size or range than a tokenizer reads.

    Args:
        pixels_BCHW: The images.
        size: Side in pixels.
        low: Values lie between this and 1.
        where: What reads them; it begins the message.

    Raises:
        ShapeError: Another shape.
        VlkitError: No floating point numbers, values that are not finite, or outside the range.
    """
    wanted = (3, size, size)
    if pixels_BCHW.ndim != 4 or tuple(pixels_BCHW.shape[1:]) != wanted:
        raise ShapeError(
            f"{where} reads pixels of shape [batch, 3, {size}, {size}] and was given {list(pixels_BCHW.shape)}; "
            f"its transform makes them"
        )
    if not pixels_BCHW.is_floating_point():
        raise VlkitError(f"{where} reads floating point pixels in {low:g}..1 and was given {pixels_BCHW.dtype}")
    if not pixels_BCHW.numel() or pixels_BCHW.is_meta:
        return
    least, most = (float(value) for value in pixels_BCHW.detach().aminmax())
    if not (low - _SLACK <= least and most <= 1 + _SLACK):  # NaN fails, too
        raise VlkitError(
            f"{where} reads pixels in {low:g}..1 and was given values from {least:g} to {most:g}; its transform makes "
            f"them"
        )


def check_codes(codes_BN: Tensor, *, codebook_size: int, grid: tuple[int, int], where: str) -> None:
    """Refuses codes that a tokenizer does not have.

    Args:
        codes_BN: The codes.
        codebook_size: How many there are.
        grid: Rows and columns of an image.
        where: Whose they should be; it begins the message.

    Raises:
        ShapeError: Not N = rows * columns of them.
        VlkitError: No whole numbers, or some outside 0..codebook_size - 1.
    """
    rows, columns = grid
    if codes_BN.ndim != 2 or codes_BN.shape[1] != rows * columns:
        raise ShapeError(
            f"{where} decodes codes of shape [batch, {rows * columns}] ({rows} rows of {columns}) and was given "
            f"{list(codes_BN.shape)}"
        )
    if codes_BN.dtype not in (torch.int64, torch.int32):
        raise VlkitError(f"{where} decodes int64 codes and was given {codes_BN.dtype}")
    if not codes_BN.numel() or codes_BN.is_meta:
        return
    least, most = (int(value) for value in codes_BN.aminmax())
    if least < 0 or most >= codebook_size:
        wrong = least if least < 0 else most
        raise VlkitError(
            f"{where} has the codes 0..{codebook_size - 1} and was given {wrong}; a code that is still unknown (the "
            f"mask) cannot be decoded"
        )
