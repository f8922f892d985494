"""The arithmetic of the softmax contrastive loss, tile by tile: the M x N matrix of logits is never whole in memory.

The seam with kernels: ``kernels.py`` offers ``log_sums`` and ``gradients`` with the same arguments and results for
CUDA, and ``usable(image_MD)`` to say whether it takes a tensor.

* Logits are S = scale * image_MD @ text_ND.T. Rows of both sides have length 1, so |S| <= scale; that is relied on.
* Inputs are contiguous, equal in dtype (float64, float32, bfloat16, float16). Products are summed, exponentials taken
  and gradients given in float32 whatever the inputs are, in float64 for float64 inputs.
* Log sums are float64 (float32 on devices without): near the end of training a probability is 1 - 1e-4, and a float32
  log sum near 100 would err by 1e-5. In the backward pass exp(c - row) is taken in float64, then rounded.
* ``ids``, where given, are int64 ids_M of the rows and ids_N of the columns: a pair of equal ids is left out (its
  exponential counts 0). A row or column of which nothing is left has log sum -inf.
* Pairs that belong together are not known here: what a loss adds for them is O(b d) and is the caller's. It leaves own
  pairs out by their numbers as ids, and adds them in float64: late in training their weight in G is nearly the 2 that
  their target takes away, and the difference would be lost in float32 (and more so in kernels, which round G to the
  inputs' own type).
* ``tile`` is a hint for this module (edge of a square tile); kernels choose their own blocks.

One exponential a logit: E = exp(S - c) with one constant c = max(0, scale - 70) cannot overflow, and gives sums of rows
and of columns alike. Where sums fall so low that small terms were lost, the call is done again with running maxima.

Shapes: M images of this process, N texts, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

Ids = tuple[Tensor, Tensor]

TOP = 70.0
"""exp(70) = 2.5e30: the sum of 1e8 of them is still a float32."""
LOST = 1e-25
"""Terms below float32's 1e-38 matter to no sum above this one, were there a million."""
DEEP = -60.0
"""exp(60) = 1e26, times exp(70) still a float32."""


class LogSums(NamedTuple):
    """Log-sum-exp of each row and of each column of S, and the largest logit of each row (float32)."""

    row_lse_M: Tensor
    col_lse_N: Tensor
    row_max_M: Tensor


def log_sums(
    image_MD: Tensor,
    text_ND: Tensor,
    scale: Tensor,
    *,
    tile: int,
    ids: Ids | None = None,
    keep_MN: Tensor | None = None,
) -> LogSums:
    """Log sums of the rows and columns of S in one pass.

    ``keep_MN`` is filled with S, for ``gradients`` to read; not offered by kernels.
    """
    tiles = _Tiles(image_MD, text_ND, scale, tile=tile, ids=ids, logits_MN=keep_MN)
    found = _sums_below(tiles, max(0.0, tiles.scale - TOP))
    return found or _running_sums(tiles)


def gradients(
    image_MD: Tensor,
    text_ND: Tensor,
    scale: Tensor,
    row_lse_M: Tensor,
    col_lse_N: Tensor,
    *,
    tile: int,
    ids: Ids | None = None,
    kept_MN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``G @ text_ND`` and ``G.T @ image_MD`` for G = exp(S - row) + exp(S - col), the gradient of all log sums in S.

    Times ``scale`` they are the gradients in image_MD and text_ND; the sum of the first one's product with image_MD is
    that in ``scale``. The log sums may be of more rows and columns than these (of all processes), which makes
    them larger, never smaller.

    Returns:
        pull_MD and pull_ND, float32 (float64 for float64).
    """
    tiles = _Tiles(image_MD, text_ND, scale, tile=tile, ids=ids, logits_MN=kept_MN, kept=kept_MN is not None)
    shift = max(0.0, tiles.scale - TOP)
    one = min(row_lse_M.min().item(), col_lse_N.min().item()) > shift + DEEP
    image_pull_MD = torch.zeros(image_MD.shape, dtype=tiles.dtype, device=image_MD.device)
    text_pull_ND = torch.zeros(text_ND.shape, dtype=tiles.dtype, device=text_ND.device)
    row_M1, col_1N = row_lse_M[:, None], col_lse_N[None, :]
    if one:
        row_M1, col_1N = (shift - row_M1).exp_(), (shift - col_1N).exp_()
    row_M1, col_1N = row_M1.to(tiles.dtype), col_1N.to(tiles.dtype)
    other_TT = tiles.buffer()
    for rows, cols, S in tiles:
        spare = other_TT[: S.numel()].view_as(S)
        if one:
            torch.add(row_M1[rows], col_1N[:, cols], out=spare)
            G = _exp(S, shift, out=S if tiles.own else tiles.like(S)).mul_(spare)
        else:
            torch.sub(S, row_M1[rows], out=spare)
            G = torch.sub(S, col_1N[:, cols], out=S if tiles.own else tiles.like(S)).exp_().add_(spare.exp_())
        image_pull_MD[rows].addmm_(G, tiles.text(cols))
        text_pull_ND[cols].addmm_(G.T, tiles.image(rows))
    return image_pull_MD, text_pull_ND


def statistics(device: torch.device) -> torch.dtype:
    """What log sums are kept in."""
    return torch.float32 if device.type == "mps" else torch.float64


class _Tiles:
    """Tiles of S as (rows, columns, values), in one buffer that the caller may overwrite.

    With ``logits_MN`` all of S is in it, filled on the way or read (``kept``); tiles are then not the caller's own.
    """

    def __init__(
        self,
        image_MD: Tensor,
        text_ND: Tensor,
        scale: Tensor,
        *,
        tile: int,
        ids: Ids | None,
        logits_MN: Tensor | None,
        kept: bool = False,
    ) -> None:
        self.image_MD, self.text_ND, self.scale, self.ids = image_MD, text_ND, scale.item(), ids
        self.logits_MN, self.kept, self.own = logits_MN, kept, logits_MN is None
        self.dtype = torch.float64 if image_MD.dtype == torch.float64 else torch.float32
        self.rows = slices(len(image_MD), tile)
        self.cols = slices(len(text_ND), tile)
        self._ranges = None if ids is None else (_ranges(ids[0], self.rows), _ranges(ids[1], self.cols))
        self._buffer = self.buffer()

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        for col, cols in enumerate(self.cols):
            text_TD = self.text(cols)
            for row, rows in enumerate(self.rows):
                S = self._logits(rows, cols, text_TD)
                if not self.kept and self.ids is not None and self._may_meet(row, col):
                    S.masked_fill_(self.ids[0][rows, None] == self.ids[1][None, cols], -torch.inf)
                yield rows, cols, S

    def image(self, rows: slice) -> Tensor:
        """Images in the precision of sums."""
        return self.image_MD[rows].to(self.dtype)

    def text(self, cols: slice) -> Tensor:
        """Texts in the precision of sums."""
        return self.text_ND[cols].to(self.dtype)

    def buffer(self) -> Tensor:
        """Room for one tile."""
        largest = self.rows[0].stop * self.cols[0].stop
        return torch.empty(largest, dtype=self.dtype, device=self.image_MD.device)

    def like(self, tile: Tensor) -> Tensor:
        """The buffer in the shape of a tile."""
        return self._buffer[: tile.numel()].view_as(tile)

    def _logits(self, rows: slice, cols: slice, text_TD: Tensor) -> Tensor:
        if self.logits_MN is None:
            S = self._buffer[: (rows.stop - rows.start) * len(text_TD)].view(-1, len(text_TD))
        else:
            S = self.logits_MN[rows, cols]
            if self.kept:
                return S
        # The scale goes onto the smaller operand: one pass over the tile is saved.
        return torch.mm(self.image(rows) * self.scale, text_TD.T, out=S)

    def _may_meet(self, row: int, col: int) -> bool:
        """Whether ids of these rows and columns overlap in range; numbers of pairs do on the diagonal only."""
        if self._ranges is None:
            return False
        (row_low, row_high), (col_low, col_high) = self._ranges[0][row], self._ranges[1][col]
        return row_low <= col_high and col_low <= row_high


def slices(count: int, tile: int) -> list[slice]:
    """``count`` rows in pieces of ``tile``."""
    return [slice(start, min(start + tile, count)) for start in range(0, count, tile)]


def _ranges(ids: Tensor, pieces: list[slice]) -> list[tuple[int, int]]:
    return [(low, high) for low, high in torch.stack([torch.stack(ids[piece].aminmax()) for piece in pieces]).tolist()]


def _exp(S: Tensor, shift: float, *, out: Tensor) -> Tensor:
    if shift:
        return torch.sub(S, shift, out=out).exp_()
    return torch.exp(S, out=out)


def _sums_below(tiles: _Tiles, shift: float) -> LogSums | None:
    device, dtype = tiles.image_MD.device, tiles.dtype
    row_M = torch.zeros(len(tiles.image_MD), dtype=dtype, device=device)
    max_M = torch.full_like(row_M, -torch.inf)
    col_N = torch.zeros(len(tiles.text_ND), dtype=dtype, device=device)
    for rows, cols, S in tiles:
        torch.maximum(max_M[rows], S.amax(1), out=max_M[rows])
        E = _exp(S, shift, out=S if tiles.own else tiles.like(S))
        row_M[rows] += E.sum(1)
        col_N[cols] += E.sum(0)
    return trusted(row_M, col_N, max_M, shift)


def trusted(row_M: Tensor, col_N: Tensor, max_M: Tensor, shift: float) -> LogSums | None:
    """Log sums from sums of exp(S - shift); None where one is too small to be trusted."""
    if min(row_M.min().item(), col_N.min().item()) < LOST:
        return None
    fine = statistics(row_M.device)
    return LogSums(row_M.to(fine).log_().add_(shift), col_N.to(fine).log_().add_(shift), max_M)


def _running_sums(tiles: _Tiles) -> LogSums:
    device, fine = tiles.image_MD.device, statistics(tiles.image_MD.device)
    row_M = torch.full((len(tiles.image_MD),), -torch.inf, dtype=fine, device=device)
    col_N = torch.full((len(tiles.text_ND),), -torch.inf, dtype=fine, device=device)
    max_M = torch.full_like(row_M, -torch.inf, dtype=tiles.dtype)
    for rows, cols, S in tiles:
        torch.maximum(max_M[rows], S.amax(1), out=max_M[rows])
        row_M[rows] = torch.logaddexp(row_M[rows], S.logsumexp(1).to(fine))
        col_N[cols] = torch.logaddexp(col_N[cols], S.logsumexp(0).to(fine))
    return LogSums(row_M, col_N, max_M)
