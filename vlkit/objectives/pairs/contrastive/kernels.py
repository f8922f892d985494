"""The tile arithmetic of ``tiles.py`` for CUDA, with Triton; the same two functions.

``log_sums`` is one kernel: products, exponentials and both sums of a tile never leave the registers. ``gradients``
makes the weights G = exp(S - row) + exp(S - col) of one large block at a time, rounded to the inputs' element type, and
leaves the two products with G to the vendor's matrix library. (A row block of gradients, 128 x 768 float32, does not
fit the registers of a multiprocessor: a single kernel would make the logits again for each slice of the width, or send
more bytes through atomics than the block of weights has.) 8 M N D operations in all; the extra memory is that block,
64 MiB for two-byte inputs, and the results.

Rounded weights near 2 minus a target of 2 would keep no digit: with two-byte inputs the caller leaves the pairs that
belong together out, by ``ids``, and adds them itself.

What the kernels do not do falls back to ``tiles.py``: float64, kept logits, sums that underflow.

Shapes: M images of this process, N texts, D embedding width.
"""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlkit.objectives.pairs.contrastive import tiles
from vlkit.objectives.pairs.contrastive.tiles import Ids, LogSums

_ROWS, _COLS = 4096, 8192
"""Block of weights that is in memory at a time."""
_HALF_GAIN = 2.0**14
"""Lifts weights out of float16's subnormal range; they are at most 2, so 2 * 2^14 is still finite."""


class _Blocks(NamedTuple):
    """Tile of a program, its slice of the width, and how a program runs."""

    BM: int
    BN: int
    BD: int
    num_warps: int
    num_stages: int


# 128 x 128 x 64: two-byte slices fill 128 bytes of shared memory a row, three stages hide the loads (Hopper, Ampere).
# Float32 products run outside the matrix units and need the registers for themselves.
_TWO_BYTES, _FOUR_BYTES = _Blocks(128, 128, 64, 8, 3), _Blocks(64, 64, 32, 4, 2)
_GROUP = 8


def usable(image_MD: Tensor) -> bool:
    """Whether the kernels take this tensor: CUDA, Ampere or later, at most four bytes an element, Triton at hand."""
    return (
        image_MD.is_cuda
        and image_MD.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and importlib.util.find_spec("triton") is not None
        and torch.cuda.get_device_capability(image_MD.device) >= (8, 0)
    )


def log_sums(image_MD: Tensor, text_ND: Tensor, scale: Tensor, *, ids: Ids | None = None, **options: Any) -> LogSums:
    """See ``tiles.log_sums``."""
    if options.get("keep_MN") is not None or image_MD.dtype == torch.float64:
        return tiles.log_sums(image_MD, text_ND, scale, ids=ids, **options)
    shift = max(0.0, scale.item() - tiles.TOP)
    row_M = torch.zeros(len(image_MD), device=image_MD.device)
    col_N = torch.zeros(len(text_ND), device=image_MD.device)
    max_M = torch.full_like(row_M, -torch.inf)
    _launch(image_MD, text_ND, (row_M, col_N, max_M), (scale.item(), shift), ids, sums=True)
    found = tiles.trusted(row_M, col_N, max_M, shift)
    return found or tiles.log_sums(image_MD, text_ND, scale, ids=ids, **options)


def gradients(
    image_MD: Tensor,
    text_ND: Tensor,
    scale: Tensor,
    row_lse_M: Tensor,
    col_lse_N: Tensor,
    *,
    ids: Ids | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """See ``tiles.gradients``; the weights are rounded to the inputs' element type before the products."""
    shift = max(0.0, scale.item() - tiles.TOP)
    lowest = min(row_lse_M.min().item(), col_lse_N.min().item())
    if options.get("kept_MN") is not None or image_MD.dtype == torch.float64 or lowest <= shift + tiles.DEEP:
        return tiles.gradients(image_MD, text_ND, scale, row_lse_M, col_lse_N, ids=ids, **options)
    gain = _HALF_GAIN if image_MD.dtype == torch.float16 else 1.0
    row_factor_M, col_factor_N = ((shift - lse).exp_().mul_(gain).float() for lse in (row_lse_M, col_lse_N))
    image_pull_MD = torch.zeros(image_MD.shape, device=image_MD.device)
    text_pull_ND = torch.zeros(text_ND.shape, device=image_MD.device)
    room = image_MD.new_empty(min(_ROWS, len(image_MD)) * min(_COLS, len(text_ND)))
    for rows in tiles.slices(len(image_MD), _ROWS):
        for cols in tiles.slices(len(text_ND), _COLS):
            image, text = image_MD[rows], text_ND[cols]
            weight = room[: len(image) * len(text)].view(len(image), len(text))
            block_ids = None if ids is None else (ids[0][rows], ids[1][cols])
            factors = (row_factor_M[rows], col_factor_N[cols], weight)
            _launch(image, text, factors, (scale.item(), shift), block_ids, sums=False)
            image_pull_MD[rows] += _product(weight, text)
            text_pull_ND[cols] += _product(weight.T, image)
    if gain != 1:
        image_pull_MD, text_pull_ND = image_pull_MD.div_(gain), text_pull_ND.div_(gain)
    return image_pull_MD, text_pull_ND


def _launch(
    image_MD: Tensor,
    text_ND: Tensor,
    tensors: tuple[Tensor, Tensor, Tensor],
    numbers: tuple[float, float],
    ids: Ids | None,
    *,
    sums: bool,
) -> None:
    """One program a tile; ``tensors`` are of rows, of columns and what else is written."""
    from vlkit.objectives.pairs.contrastive.triton_kernels import tile_kernel

    kernel: Any = tile_kernel
    blocks = _FOUR_BYTES if image_MD.dtype == torch.float32 else _TWO_BYTES
    (M, D), N = image_MD.shape, len(text_ND)
    row_id, col_id = (image_MD, text_ND) if ids is None else ids  # not read without ids
    grid = (-(-M // blocks.BM) * -(-N // blocks.BN),)
    # Triton's interpreter, for machines without a GPU, cannot multiply bfloat16.
    widen = not image_MD.is_cuda
    kernel[grid](
        image_MD, text_ND, *tensors, row_id, col_id, *numbers, M, N, D,
        **blocks._asdict(), GROUP=_GROUP, SUMS=sums, IDS=ids is not None, EVEN=D % blocks.BD == 0, WIDEN=widen,
    )  # fmt: skip


def _product(left: Tensor, right: Tensor) -> Tensor:
    """A matrix product in float32 of operands of two or four bytes."""
    if left.dtype == torch.float32 or not left.is_cuda:
        return left.float() @ right.float()
    return torch.mm(left, right, out_dtype=torch.float32)
