"""A perceiver resampler: a fixed number of learned queries that look at image tokens and at themselves.

Source: Flamingo (arXiv 2204.14198, section 3.1.1 and appendix A.1.1). Unlike there, image tokens of another width than
the inside are mapped to it first, and the queries have no time to tell: an image stands for itself.

Shapes: B batch, N image tokens, T their width, M queries and model tokens, W inner width, E model width, h heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import ShapeError
from vlkit.nn.multiway import INIT_STD, Recomputing, init_weights
from vlkit.nn.projections import BaseBridge


class ResamplerLayer(nn.Module):
    """Queries look at image tokens and queries together, then a perceptron; both pre-norm, both added."""

    def __init__(self, width: int, heads: int, *, hidden: int) -> None:
        super().__init__()
        if width % heads:
            raise ShapeError(f"width = {width} is no multiple of heads = {heads}; change one of them")
        self.heads = heads
        self.image_norm, self.query_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x_BMW: Tensor, image_BNW: Tensor) -> Tensor:
        """Queries to queries."""
        normed_BMW = self.query_norm(x_BMW)
        source_BSW = torch.cat([self.image_norm(image_BNW), normed_BMW], dim=1)
        query = self.query(normed_BMW).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(source_BSW).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BhMd = F.scaled_dot_product_attention(query, key, value)
        x_BMW = x_BMW + self.out(mixed_BhMd.transpose(1, 2).flatten(2))
        result_BMW: Tensor = x_BMW + self.down(F.gelu(self.up(self.norm(x_BMW))))
        return result_BMW


class Resampler(BaseBridge, Recomputing):
    """Any number of image tokens to ``num_queries`` model tokens.

    ``width`` is W inside, None for E; the perceptrons are ``ffn_factor`` * W wide.
    """

    kind = "resampler"

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        num_queries: int,
        width: int | None,
        layers: int,
        heads: int,
        ffn_factor: int,
    ) -> None:
        super().__init__(in_width, out_width)
        width = width or out_width
        self.queries_MW = nn.Parameter(torch.empty(num_queries, width))
        self.entry: nn.Module = nn.Identity() if in_width == width else nn.Linear(in_width, width)
        self.layers = nn.ModuleList(ResamplerLayer(width, heads, hidden=ffn_factor * width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.exit: nn.Module = nn.Identity() if out_width == width else nn.Linear(width, out_width)
        init_weights(self)
        nn.init.normal_(self.queries_MW, std=INIT_STD)

    def num_tokens(self, count: int) -> int:
        """M, whatever the number of image tokens."""
        return len(self.queries_MW)

    def forward(self, tokens_BNT: Tensor) -> Tensor:
        """tokens_BME."""
        image_BNW: Tensor = self.entry(tokens_BNT)
        x_BMW = self.queries_MW.expand(len(tokens_BNT), -1, -1)
        for layer in self.layers:
            x_BMW = self.run(layer, x_BMW, image_BNW)
        out_BME: Tensor = self.exit(self.norm(x_BMW))
        return out_BME
