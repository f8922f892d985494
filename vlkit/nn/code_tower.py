"""A small transformer over an image's codes whose layers look at states of a text, each at those of a layer of its own.

As in a text-to-image model with cross-attention (Muse, arXiv 2301.00704, section 2.3), but the text's states are those
of several layers of a language model, which are computed once for a prompt and kept.

Shapes: B images, M places, W width, H heads, T text places, E width of the text's states.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vlkit.errors import ShapeError

Kept = tuple[Tensor, ...]
"""Keys and values [B, H, T, W / H] that one layer looks at."""


class HeadNorm(nn.RMSNorm):
    """RMSNorm in the precision of what it is given: under autocast that of the map before it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normed values of the last axis."""
        return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class TowerLayer(nn.Module):
    """All places look at each other, then at the text, then a gated perceptron; norms come first (RMSNorm, SwiGLU).

    What a layer adds is zero at the start.
    """

    def __init__(self, width: int, *, heads: int, ffn: int, text_width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2, self.norm_3 = (nn.RMSNorm(width) for _ in range(3))
        self.text_norm = nn.RMSNorm(text_width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.text_q, self.text_out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.text_kv = nn.Linear(text_width, 2 * width, bias=False)
        self.norm_q, self.norm_k, self.norm_text_q, self.norm_text_k = (HeadNorm(width // heads) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * ffn, bias=False), nn.Linear(ffn, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        for last in (self.out, self.text_out, self.down):
            nn.init.zeros_(last.weight)

    def keep(self, states_BTE: Tensor) -> Kept:
        """Keys and values of a text's states."""
        # widths differ by orders of magnitude in deep language models, above all at the first token
        normed_BTE = self.text_norm(states_BTE.to(self.text_norm.weight.dtype))
        keys, values = self.text_kv(normed_BTE).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.norm_text_k(keys), values

    def forward(self, x_BMW: Tensor, kept: Kept, seen_B11T: Tensor) -> Tensor:
        """Places to places; ``seen_B11T`` is true at real text."""
        query, key, value = self.qkv(self.norm_1(x_BMW)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x_BMW = x_BMW + self.dropout(self.out(_mixed(self.norm_q(query), self.norm_k(key), value)))
        query = self.text_q(self.norm_2(x_BMW)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        looked_BMW = _mixed(self.norm_text_q(query), kept[0], kept[1], seen_B11T)
        x_BMW = x_BMW + self.dropout(self.text_out(looked_BMW))
        gate, inner = self.up(self.norm_3(x_BMW)).chunk(2, dim=-1)
        result_BMW: Tensor = x_BMW + self.dropout(self.down(functional.silu(gate) * inner))
        return result_BMW


class CodeTower(nn.Module):
    """The tower.

    Args:
        width: W; a multiple of ``heads``.
        layers: How many.
        heads: H.
        ffn: Hidden width of the perceptrons.
        text_width: E.
        dropout: Of what each part of a layer adds.
    """

    def __init__(self, width: int, *, layers: int, heads: int, ffn: int, text_width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList(
            TowerLayer(width, heads=heads, ffn=ffn, text_width=text_width, dropout=dropout) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(width)
        self._saves_memory = False

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Whether layers keep no activations in training and compute them again; as timm's models have it."""
        self._saves_memory = on

    def keep(self, states: Sequence[Tensor]) -> tuple[Kept, ...]:
        """What each layer looks at of a text, from its states [B, T, E], one a layer.

        Raises:
            ShapeError: Another number of states than of layers.
        """
        if len(states) != len(self.layers):
            raise ShapeError(f"{len(states)} states of a text for {len(self.layers)} layers; give one a layer")
        return tuple(layer.keep(one_BTE) for layer, one_BTE in zip(self.layers, states, strict=True))  # type: ignore[operator]

    def forward(self, x_BMW: Tensor, kept: Sequence[Kept], mask_BT: Tensor) -> Tensor:
        """states_BMW of places; ``mask_BT`` is 1 at real text, of which each row has some."""
        seen_B11T = mask_BT.bool()[:, None, None, :]
        for layer, one in zip(self.layers, kept, strict=True):
            if self._saves_memory and self.training:
                x_BMW = checkpoint(layer, x_BMW, one, seen_B11T, use_reentrant=False)
            else:
                x_BMW = layer(x_BMW, one, seen_B11T)
        states_BMW: Tensor = self.norm(x_BMW)
        return states_BMW


def spread(layers: int, depth: int) -> tuple[int, ...]:
    """``layers`` numbers of 1..``depth``, evenly spread and rising to the last: what a tower reads if not told."""
    return tuple(max(1, round((number + 1) * depth / layers)) for number in range(layers))


def _mixed(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
    """Attention of [B, H, ...] as [B, places, W]; on a CPU written out, where torch's kernel takes six times as long."""
    key, value = key.to(query.dtype), value.to(query.dtype)
    if query.device.type != "cpu":
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    else:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        scores = scores if seen is None else scores.masked_fill(~seen, -torch.inf)
        mixed = scores.softmax(dim=-1).to(value.dtype) @ value
    return mixed.transpose(1, 2).flatten(2)
