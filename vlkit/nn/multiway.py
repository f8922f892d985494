"""Transformer layers with a second LayerNorm inside each branch, and stacks of them, for multiway encoders.

Sources: Magneto (arXiv 2210.06423, section 2: sub-LN), BEiT-3 (2208.10442, section 2.1), VLMo (2111.02358).

Shapes: B batch, N tokens, D width, M tokens looked at, C their width, F hidden width of the perceptron, h heads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlkit.errors import ShapeError

INIT_STD = 0.02


class Attention(nn.Module):
    """Multi-head attention with a LayerNorm before the output map (sub-LN).

    D is the width of the tokens that look, ``source_width`` C that of those that are looked at; None for D.
    """

    def __init__(self, width: int, heads: int, *, source_width: int | None = None) -> None:
        super().__init__()
        if width % heads:
            raise ShapeError(f"width = {width} is no multiple of heads = {heads}")
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(source_width or width, 2 * width)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(
        self, x_BND: Tensor, source_BMC: Tensor, *, keep_BM: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Tokens that look at those of a source, to tokens of the same shape.

        ``keep_BM`` is false for those of the source that nothing looks at. Where ``causal``, token n looks at the first
        n + 1 of the source only, and ``keep_BM`` is not used.
        """
        query = self.query(x_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(source_BMC).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if keep_BM is None or causal else keep_BM[:, None, None, :]
        mixed_BhNd = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        out_BND: Tensor = self.out(self.norm(mixed_BhNd.transpose(1, 2).flatten(2)))
        return out_BND


class Perceptron(nn.Module):
    """Linear, GELU, LayerNorm (sub-LN), linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.Linear(hidden, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Tokens to tokens."""
        out_BND: Tensor = self.down(self.norm(F.gelu(self.up(x_BND))))
        return out_BND


class SubLayerNormBlock(nn.Module):
    """A pre-norm transformer block with a second LayerNorm inside each of its two branches.

    ``depth`` is the block's place in the whole encoder, from 1: the branches' last maps start smaller the deeper it is,
    by 1 / sqrt(2 * depth). ``drop_path`` is the share of rows for which a branch is left out in training.
    """

    def __init__(self, width: int, heads: int, *, hidden: int, depth: int, drop_path: float) -> None:
        from timm.layers import DropPath

        super().__init__()
        self.norm_1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm_2, self.mlp = nn.LayerNorm(width), Perceptron(width, hidden)
        self.drop_path = DropPath(drop_path)
        init_weights(self)
        with torch.no_grad():
            for last in (self.attention.out, self.mlp.down):
                last.weight.div_(math.sqrt(2 * depth))

    def forward(self, x_BND: Tensor, keep_BN: Tensor | None = None) -> Tensor:
        """Tokens to tokens; keys where ``keep_BN`` is false are not looked at."""
        normed_BND = self.norm_1(x_BND)
        x_BND = x_BND + self.drop_path(self.attention(normed_BND, normed_BND, keep_BM=keep_BN))
        result_BND: Tensor = x_BND + self.drop_path(self.mlp(self.norm_2(x_BND)))
        return result_BND


class Recomputing(nn.Module):
    """What runs blocks one after the other, and keeps all of their activations or their inputs alone."""

    def __init__(self) -> None:
        super().__init__()
        self._recompute = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keeps each block's input only and runs the block again in the backward pass."""
        self._recompute = enable

    def run(self, block: nn.Module, *inputs: Tensor | None, **options: Any) -> Tensor:
        """What a block gives."""
        again = self._recompute and torch.is_grad_enabled()
        out: Tensor = checkpoint(block, *inputs, use_reentrant=False, **options) if again else block(*inputs, **options)
        return out


class BlockStack(Recomputing):
    """Blocks one after the other.

    ``depths`` are the blocks' places in the whole encoder, from 1, of ``total`` blocks. ``drop_path`` is that of its
    last block; it grows linearly from 0 at the first.
    """

    def __init__(self, width: int, heads: int, *, hidden: int, depths: range, total: int, drop_path: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SubLayerNormBlock(
                width, heads, hidden=hidden, depth=depth, drop_path=drop_path * (depth - 1) / max(1, total - 1)
            )
            for depth in depths
        )

    def forward(self, x_BND: Tensor, keep_BN: Tensor | None = None) -> Tensor:
        """Tokens to tokens; keys where ``keep_BN`` is false are not looked at."""
        for block in self.blocks:
            x_BND = self.run(block, x_BND, keep_BN)
        return x_BND


class SharedLayers(nn.Module):
    """The layers that both modalities go through, with the final LayerNorm.

    Images and texts alike take the first expert. ``spare`` holds the second one, where it is asked for: released
    weights have it, for text in passes over both modalities at once, and embedding never runs it.
    """

    def __init__(self, width: int, stack: BlockStack, *, spare: BlockStack | None) -> None:
        super().__init__()
        self.stack, self.norm, self.spare = stack, nn.LayerNorm(width), spare

    def forward(self, x_BND: Tensor, keep_BN: Tensor | None = None) -> Tensor:
        """Tokens to normalised tokens."""
        normed_BND: Tensor = self.norm(self.stack(x_BND, keep_BN))
        return normed_BND


def init_weights(module: nn.Module) -> None:
    """Truncated normal weights of deviation 0.02 and zero biases for all linear maps, embeddings and convolutions."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding, nn.Conv2d)):
            nn.init.trunc_normal_(part.weight, std=INIT_STD)
            if getattr(part, "bias", None) is not None:
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]
