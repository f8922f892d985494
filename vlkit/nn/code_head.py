"""Embeddings of an image's codes, and the map from states back to codes: apart from any vocabulary of words.

Shapes: B images, N codes of an image, M = N + 2 places of its block (a mark before and one behind), W width, K codebook
size (code K stands for a hidden one), R chosen places, X any.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    ) -> None:
        super().__init__()
        self.codebook_size, self.grid, self.cap, self.tied = codebook_size, grid, cap, tied
        self.codes = nn.Embedding(codebook_size + 1, width)
        self.marks_MW = nn.Parameter(torch.empty(_MARKS, width))
        nn.init.normal_(self.codes.weight, std=scale)
        nn.init.normal_(self.marks_MW, std=scale)
        self.rows = nn.Embedding(grid[0], width) if places else None
        self.columns = nn.Embedding(grid[1], width) if places else None
        for one in (self.rows, self.columns):
            if one is not None:
                nn.init.zeros_(one.weight)
        self.out = None if tied else nn.Linear(width, codebook_size, bias=False)
        if self.out is not None:
            nn.init.zeros_(self.out.weight)
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
        logits_XK = nn.functional.linear(states_XW.to(table_KW.dtype), table_KW)
        if self.gain is not None:
            logits_XK = logits_XK * self.gain
        return logits_XK if self.cap is None else self.cap * torch.tanh(logits_XK / self.cap)
