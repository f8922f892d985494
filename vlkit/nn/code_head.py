"""Embeddings of an image's codes, and the map from states back to codes: apart from any vocabulary of words.

Codes of quantisers without a learned codebook are made of levels, one a channel: level_0 + L_0 * (level_1 + ...).
What is learned of a level serves all codes that have it; what is learned of a code alone comes on top.

Shapes: B images, N codes of an image, M = N + 2 places of its block (a mark before and one behind), W width, K codebook
size (code K stands for a hidden one), C channels, S the sum of their levels, R chosen places, X any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vlkit.errors import ShapeError

_MARKS = 2  # the block's first and last place


class CodeHead(nn.Module):
    """Codes to what a body reads, and its states to logits of codes.

    The map begins at zero, so that a new head gives each code the same chance: its loss is ln K.

    Args:
        codebook_size: K.
        grid: Rows and columns of an image's codes.
        width: W of the body.
        scale: Standard deviation of the embeddings at the start: that of the word embeddings where a language model's
            own layers read them.
        places: Add an embedding of each code's row and column; zero at the start.
        tied: The embeddings are the map, too, times a learned factor.
        cap: Logits are held within -cap..cap by a tanh; None leaves them.
        levels: Of each channel of a code; () for codes that share nothing.
    """

    def __init__(
        self,
        codebook_size: int,
        grid: tuple[int, int],
        width: int,
        *,
        scale: float,
        places: bool,
        tied: bool,
        cap: float | None,
        levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.codebook_size, self.grid, self.cap, self.tied = codebook_size, grid, cap, tied
        self.codes = nn.Embedding(codebook_size + 1, width)
        self.marks_MW = nn.Parameter(torch.empty(_MARKS, width))
        self.levels = tuple(levels)
        if self.levels and math.prod(self.levels) != codebook_size:
            raise ShapeError(f"levels {self.levels} make {math.prod(self.levels)} codes, not {codebook_size}")
        nn.init.normal_(self.codes.weight, std=scale)
        self.shared = nn.Embedding(sum(self.levels), width) if self.levels else None
        if self.shared is not None:
            nn.init.zeros_(self.codes.weight[:-1])  # levels tell codes apart at first
            nn.init.normal_(self.shared.weight, std=scale / len(self.levels) ** 0.5)
        nn.init.normal_(self.marks_MW, std=scale)
        self.rows = nn.Embedding(grid[0], width) if places else None
        self.columns = nn.Embedding(grid[1], width) if places else None
        for one in (self.rows, self.columns):
            if one is not None:
                nn.init.zeros_(one.weight)
        self.out = None if tied else nn.Linear(width, codebook_size, bias=False)
        if self.out is not None:
            nn.init.zeros_(self.out.weight)
        self.shared_out = nn.Linear(width, sum(self.levels), bias=False) if self.levels and not tied else None
        if self.shared_out is not None:
            nn.init.zeros_(self.shared_out.weight)
        self.gain = nn.Parameter(torch.zeros(1)) if tied else None

    @torch.no_grad()
    def at_grid(self, grid: tuple[int, int]) -> None:
        """Goes on with another number of rows and columns; embeddings of places are interpolated (linear)."""
        for name, side in (("rows", grid[0]), ("columns", grid[1])):
            if (old := getattr(self, name)) is not None:
                table_1WR = old.weight.T.unsqueeze(0)
                weight_1WR = nn.functional.interpolate(table_1WR, size=side, mode="linear", align_corners=False)
                new = nn.Embedding(side, old.embedding_dim, device=old.weight.device, dtype=old.weight.dtype)
                new.weight.copy_(weight_1WR[0].T)
                setattr(self, name, new)
        self.grid = grid

    def block(self, codes_BN: Tensor) -> Tensor:
        """block_BMW of codes in 0..K: what a body reads, between two marks."""
        x_BNW = self.codes(codes_BN)
        if self.shared is not None:
            known_BN1 = (codes_BN < self.codebook_size).unsqueeze(-1)
            x_BNW = x_BNW + known_BN1 * self.shared(self._levels_of(codes_BN)).sum(dim=-2)
        if self.rows is not None and self.columns is not None:
            x_BNW = x_BNW + (self.rows.weight.unsqueeze(1) + self.columns.weight).flatten(0, 1)
        marks_BMW = self.marks_MW.to(x_BNW.dtype).expand(len(codes_BN), -1, -1)
        return torch.cat([marks_BMW[:, :1], x_BNW, marks_BMW[:, 1:]], dim=1)

    @staticmethod
    def inner(states_BMW: Tensor) -> Tensor:
        """states_BNW of a block's codes, without those of its marks."""
        return states_BMW[:, 1:-1]

    def forward(self, states_XW: Tensor) -> Tensor:
        """Logits [X, K] of states."""
        table_KW = self.codes.weight[:-1] if self.out is None else self.out.weight
        states_XW = states_XW.to(table_KW.dtype)
        logits_XK = nn.functional.linear(states_XW, table_KW)
        table = self.shared if self.out is None else self.shared_out
        if table is not None:
            logits_XK = logits_XK + self._joined(nn.functional.linear(states_XW, table.weight))
        if self.gain is not None:
            logits_XK = logits_XK * self.gain
        return logits_XK if self.cap is None else self.cap * torch.tanh(logits_XK / self.cap)

    def _levels_of(self, codes_X: Tensor) -> Tensor:
        """The rows [X, C] of ``shared`` that codes are made of; of a hidden one those of code 0."""
        rest_X, first, rows = torch.where(codes_X < self.codebook_size, codes_X, 0), 0, []
        for level in self.levels:
            rows.append(rest_X % level + first)
            rest_X, first = rest_X // level, first + level
        return torch.stack(rows, dim=-1)

    def _joined(self, logits_XS: Tensor) -> Tensor:
        """Logits [X, K] of codes that are the sums of their levels'."""
        first, *others = torch.split(logits_XS, list(self.levels), dim=-1)
        for other in others:
            first = (other.unsqueeze(-1) + first.unsqueeze(-2)).flatten(-2)
        return first
