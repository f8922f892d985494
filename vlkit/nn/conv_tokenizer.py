"""Convolutional encoder and decoder of a small image tokenizer, plain torch.

Sides are halved by moving squares of 2x2 places into channels (space to depth), and doubled the other way round, so
that most work is done where there are few places.

Shapes: B batch, C channels, H height, W width, N places at the codes, D channels there, q channels of a code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import ShapeError

_GROUP = 16  # channels that are normed together


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each behind a GroupNorm and SiLU, added to what came in; it starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = _norm(width), _norm(width)
        self.conv_1, self.conv_2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        _start_at_zero(self.conv_2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Channels to channels."""
        inner_BCHW = self.conv_1(F.silu(self.norm_1(x_BCHW)))
        result_BCHW: Tensor = x_BCHW + self.conv_2(F.silu(self.norm_2(inner_BCHW)))
        return result_BCHW


class PlaceAttention(nn.Module):
    """All places of an image look at each other, then a perceptron; pre-norm, both start as the identity."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ShapeError(f"width = {width} is no multiple of heads = {heads}; change one of them")
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        _start_at_zero(self.out)
        _start_at_zero(self.down)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Channels to channels."""
        x_BND = x_BCHW.flatten(2).transpose(1, 2)
        query, key, value = self.qkv(self.norm_1(x_BND)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BND = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x_BND = x_BND + self.out(mixed_BND)
        x_BND = x_BND + self.down(F.gelu(self.up(self.norm_2(x_BND))))
        result_BCHW: Tensor = x_BND.transpose(1, 2).reshape(x_BCHW.shape)
        return result_BCHW


class ConvEncoder(nn.Module):
    """Images to ``out_channels`` values a place.

    Squares of ``patch`` pixels a side are moved into channels first; each of ``widths`` but the first halves the sides
    again. ``blocks`` are the residual blocks at each of them, ``attention`` the layers of attention behind the last.
    """

    def __init__(self, widths: Sequence[int], out_channels: int, *, patch: int, blocks: int, attention: int) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.PixelUnshuffle(patch), nn.Conv2d(3 * patch**2, widths[0], 3, padding=1)]
        for number, width in enumerate(widths):
            if number:
                stages += [nn.PixelUnshuffle(2), nn.Conv2d(4 * widths[number - 1], width, 1)]
            stages += [ResidualBlock(width) for _ in range(blocks)]
        stages += [PlaceAttention(widths[-1], _heads(widths[-1])) for _ in range(attention)]
        self.stages = nn.Sequential(*stages)
        self.norm, self.out = _norm(widths[-1]), nn.Conv2d(widths[-1], out_channels, 1)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """latents_BqHW of pixels in -1..1."""
        latents_BqHW: Tensor = self.out(F.silu(self.norm(self.stages(pixels_BCHW))))
        return latents_BqHW


class ConvDecoder(nn.Module):
    """``in_channels`` values a place to images; the reverse of a ``ConvEncoder`` with the same arguments."""

    def __init__(self, widths: Sequence[int], in_channels: int, *, patch: int, blocks: int, attention: int) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Conv2d(in_channels, widths[-1], 3, padding=1)]
        stages += [PlaceAttention(widths[-1], _heads(widths[-1])) for _ in range(attention)]
        for number in reversed(range(len(widths))):
            stages += [ResidualBlock(widths[number]) for _ in range(blocks)]
            if number:
                stages += [nn.Conv2d(widths[number], 4 * widths[number - 1], 1), nn.PixelShuffle(2)]
        self.stages = nn.Sequential(*stages)
        self.patch = patch
        self.norm, self.out = _norm(widths[0]), nn.Conv2d(widths[0], 3 * patch**2, 3, padding=1)

    def forward(self, latents_BqHW: Tensor) -> Tensor:
        """pixels_BCHW, of which -1..1 are colours; values may lie outside."""
        packed_BCHW: Tensor = self.out(F.silu(self.norm(self.stages(latents_BqHW))))
        return F.pixel_shuffle(packed_BCHW, self.patch)


def _start_at_zero(last: nn.Module) -> None:
    for weight in last.parameters():
        nn.init.zeros_(weight)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // _GROUP if width % _GROUP == 0 else 1, width)


def _heads(width: int) -> int:
    return width // 32 if width % 32 == 0 else 1
