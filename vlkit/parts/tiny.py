"""Tiny twins: small random transformers in plain torch, for tests of everything that joins encoders.

Shapes: B batch, C channels, H height, W width, L text length in bytes, N image tokens, D encoder width,
T width of an image token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlkit.parts.building import (
    ImageTransform,
    OwnEncoder,
    check_patches,
    compact,
    given,
    image_facts,
    resize_to_square,
    taken,
)
from vlkit.parts.token_layers import TokenLayers
from vlkit.parts.tokenizers import check_texts, pad_rows
from vlkit.parts.vocabulary import byte_vocabulary
from vlkit.spec.parts import TinyImage, TinyText
from vlkit.types import ImageFacts, TextBatch, Vocabulary

# ids of the byte-level vocabulary: a byte is its value, then these
_END, _PAD, _ROWS = 256, 257, 258


class _Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 16 if width % 16 == 0 else 1
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x_BND: Tensor, keep_B11N: Tensor | None = None) -> Tensor:
        """Tokens to tokens; keys where ``keep`` is false are not looked at."""
        query, key, value = self.qkv(self.norm_1(x_BND)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=keep_B11N)
        x_BND = x_BND + self.out(mixed.transpose(1, 2).flatten(2))
        result: Tensor = x_BND + self.mlp(self.norm_2(x_BND))
        return result


class TinyImageEncoder(OwnEncoder):
    """A small vision transformer: patches, positions, blocks, mean of the tokens."""

    def __init__(self, spec: TinyImage) -> None:
        super().__init__()
        check_patches(spec.image_size, spec.patch_size, where="tiny image encoder")
        self.layers = TokenLayers(spec.layers, count=spec.depth, where="tiny image encoder")
        self.spec, self.width, self.token_width = spec, spec.width, spec.width * len(spec.layers)
        self.image_size = self.resized_to = spec.image_size
        count = self.num_tokens(spec.image_size)
        self.patches = nn.Conv2d(3, spec.width, spec.patch_size, stride=spec.patch_size)
        self.positions_ND = nn.Parameter(torch.randn(count, spec.width) * 0.02)
        self.blocks = nn.ModuleList(_Block(spec.width) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.width)
        self.transform = self.transform_at(spec.image_size)

    def transform_at(self, size: int) -> ImageTransform:
        """Its preprocessing for square images of another size."""
        return ImageTransform(partial(resize_to_square, size=size), {"library": "vlkit-tiny", "size": size})

    def facts(self) -> ImageFacts:
        """See ``types.TellsFacts``."""
        return image_facts(self, extra_tokens=0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def num_tokens(self, size: int) -> int:
        """N of ``tokens``."""
        return (size // self.spec.patch_size) ** 2

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """tokens_BNT of all patches."""
        return self.pooled_and_states(pixels_BCHW)[1]

    def pooled_and_states(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """features_BD and ``tokens`` in one pass."""
        x_BND = self.patches(taken(pixels_BCHW, self)).flatten(2).transpose(1, 2) + self.positions_ND
        states = []
        for block in self.blocks:
            x_BND = block(x_BND)
            states.append(x_BND)
        last_BND = given(self.norm(x_BND), self.spec)
        return last_BND.mean(dim=1), self.layers.of([*(given(x_BND, self.spec) for x_BND in states[:-1]), last_BND])


class TinyTextEncoder(OwnEncoder):
    """A small byte-level transformer: UTF-8 bytes and an end token, mean over the real tokens."""

    marks_language = False

    def __init__(self, spec: TinyText) -> None:
        super().__init__()
        self.spec, self.width, self.token_width, self.max_length = spec, spec.width, spec.width, spec.max_length
        self.embedding = nn.Embedding(_ROWS, spec.width, padding_idx=_PAD)
        self.positions_LD = nn.Parameter(torch.randn(spec.max_length, spec.width) * 0.02)
        self.blocks = nn.ModuleList(_Block(spec.width) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.width)

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Bytes and an end token, cut to ``max_length``; the language is not used.

        Raises:
            DataError: No texts, or one that is no string.
        """
        rows = [[*text.encode()[: self.max_length - 1], _END] for text in check_texts(texts)]
        return pad_rows(rows, pad_id=_PAD)

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding."""
        return _ROWS

    def vocabulary(self) -> Vocabulary:
        """What the ids mean."""
        return byte_vocabulary(_ROWS)

    def pooled_and_states(self, tokens: TextBatch) -> tuple[Tensor, Tensor]:
        """features_BD and states_BLD of the tokens, the real ones first, in one pass."""
        ids_BL, mask_BL = compact(*tokens)
        x_BLD = self.embedding(ids_BL) + self.positions_LD[: ids_BL.shape[1]]
        for block in self.blocks:
            x_BLD = block(x_BLD, mask_BL[:, None, None, :] > 0)
        states_BLD = given(self.norm(x_BLD), self.spec)
        weight_BL1 = mask_BL.unsqueeze(-1).to(states_BLD.dtype)
        return (states_BLD * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1), states_BLD
