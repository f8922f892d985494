"""Triton kernels of the softmax contrastive loss; imported only where they run (Triton is a part of torch for CUDA).

One program makes one BM x BN tile of the products image_MD @ text_ND.T, summed over D in slices of BD in float32, and
works on it in registers; the matrix of logits is never in memory. Programs are numbered so that GROUP row blocks share
their column blocks while these are in the cache.

Shapes: M images, N texts, D width.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def tile_kernel(  # noqa: PLR0913
    image_MD: tl.tensor,
    text_ND: tl.tensor,
    row_M: tl.tensor,
    col_N: tl.tensor,
    out: tl.tensor,
    row_id_M: tl.tensor,
    col_id_N: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    D: tl.tensor,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
    GROUP: tl.constexpr,
    SUMS: tl.constexpr,
    IDS: tl.constexpr,
    EVEN: tl.constexpr,
    WIDEN: tl.constexpr,
) -> None:
    """Works on a tile of P = exp(scale * product - shift); with IDS, P is 0 for pairs of equal ids.

    With SUMS it adds the sums of P to row_M and col_N, and out [M] keeps the largest logit of each row. Else it writes
    P * (row_M + col_N) to out [M, N], in its element type.

    The sums of tiles meet in float32 atomics: their order, and with it the last bit, may differ from call to call.
    """
    rows, cols = tile_of_program(M, N, BM, BN, GROUP)
    logits = scale * products(image_MD, text_ND, rows, cols, M, N, D, BM, BN, BD, EVEN, WIDEN)
    inside = (rows[:, None] < M) & (cols[None, :] < N)
    counts = inside
    if IDS:
        row_id = tl.load(row_id_M + rows, mask=rows < M, other=0)
        col_id = tl.load(col_id_N + cols, mask=cols < N, other=0)
        counts = inside & (row_id[:, None] != col_id[None, :])
    if SUMS or IDS:
        logits = tl.where(counts, logits, -float("inf"))
    powers = tl.exp2((logits - shift) * 1.4426950408889634)
    if SUMS:
        tl.atomic_add(row_M + rows, tl.sum(powers, 1), mask=rows < M, sem="relaxed")
        tl.atomic_add(col_N + cols, tl.sum(powers, 0), mask=cols < N, sem="relaxed")
        tl.atomic_max(out + rows, tl.max(logits, 1), mask=rows < M, sem="relaxed")
    else:
        row_factor = tl.load(row_M + rows, mask=rows < M, other=0.0)
        col_factor = tl.load(col_N + cols, mask=cols < N, other=0.0)
        weight = powers * (row_factor[:, None] + col_factor[None, :])
        place = out + rows.to(tl.int64)[:, None] * N + cols[None, :]
        tl.store(place, weight.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def tile_of_program(M: tl.tensor, N: tl.tensor, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr) -> tl.tensor:
    """The rows and columns of this program's tile."""
    program = tl.program_id(0)
    col_blocks = tl.cdiv(N, BN)
    first = program // (GROUP * col_blocks) * GROUP
    height = min(tl.cdiv(M, BM) - first, GROUP)
    within = program % (GROUP * col_blocks)
    rows = (first + within % height) * BM + tl.arange(0, BM)
    cols = within // height * BN + tl.arange(0, BN)
    return rows, cols


@triton.jit  # type: ignore[untyped-decorator]
def products(  # noqa: PLR0913
    image_MD: tl.tensor,
    text_ND: tl.tensor,
    rows: tl.tensor,
    cols: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    D: tl.tensor,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
    EVEN: tl.constexpr,
    WIDEN: tl.constexpr,
) -> tl.tensor:
    """The inner products of a tile, float32. Rows and columns outside repeat others: the caller leaves them out."""
    width = tl.arange(0, BD)
    image = image_MD + (rows % M).to(tl.int64)[:, None] * D + width[None, :]
    text = text_ND + (cols % N).to(tl.int64)[None, :] * D + width[:, None]
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, D, BD):
        if EVEN:
            left, right = tl.load(image), tl.load(text)
        else:
            left = tl.load(image, mask=width[None, :] < D - start, other=0.0)
            right = tl.load(text, mask=width[:, None] < D - start, other=0.0)
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision="ieee")
        image += BD
        text += BD
    return total
