"""Decoders for training alone: one reads texts with the help of an image's states, one images with that of a text's.

Sources: CoCa (arXiv 2205.01917, section 3.2: the multimodal decoder), MAE (2111.06377, section 3: patches as targets).
Unlike CoCa's, the text decoder has token embeddings of its own and does not continue the text encoder, so that it fits
text encoders of all kinds, and those that see all of a text cannot give the next token away.

Shapes: B batch, C channels, H height, W width, L text length, N patches, K hidden patches, P values of a patch,
M tokens looked at, E their width, D decoder width, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import ShapeError
from vlkit.nn.multiway import INIT_STD, Attention, Perceptron, Recomputing, init_weights

_VARIANCE_FLOOR = 1e-6  # of a patch of one colour


class DecoderBlock(nn.Module):
    """Self-attention, attention to the other side, perceptron; pre-norm with sub-LN."""

    def __init__(self, width: int, heads: int, *, hidden: int, source_width: int) -> None:
        super().__init__()
        self.norm_1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm_2, self.cross = nn.LayerNorm(width), Attention(width, heads, source_width=source_width)
        self.norm_3, self.mlp = nn.LayerNorm(width), Perceptron(width, hidden)

    def forward(
        self,
        x_BND: Tensor,
        source_BME: Tensor,
        *,
        keep_BN: Tensor | None = None,
        keep_BM: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Tokens to tokens; keys where ``keep`` is false are not looked at, nor later ones where ``causal``."""
        normed_BND = self.norm_1(x_BND)
        x_BND = x_BND + self.attention(normed_BND, normed_BND, keep_BM=keep_BN, causal=causal)
        x_BND = x_BND + self.cross(self.norm_2(x_BND), source_BME, keep_BM=keep_BM)
        result_BND: Tensor = x_BND + self.mlp(self.norm_3(x_BND))
        return result_BND


class _Stack(Recomputing):
    """Blocks between a LayerNorm of what is looked at and one of the result."""

    def __init__(self, width: int, heads: int, *, hidden: int, layers: int, source_width: int) -> None:
        super().__init__()
        self.source_norm, self.norm = nn.LayerNorm(source_width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, heads, hidden=hidden, source_width=source_width) for _ in range(layers)
        )

    def forward(self, x_BND: Tensor, source_BME: Tensor, **options: Any) -> Tensor:
        """See ``DecoderBlock``."""
        source_BME = self.source_norm(source_BME)
        for block in self.blocks:
            x_BND = self.run(block, x_BND, source_BME, **options)
        normed_BND: Tensor = self.norm(x_BND)
        return normed_BND


class TextDecoder(nn.Module):
    """Token ids and an image's states to states, whose product with ``output_map`` gives logits.

    ``vocab_size`` is V of the text encoder; two rows are added to it, a start and a mask. ``stack``: ``hidden`` width
    of the perceptrons, ``layers``, ``source_width`` E of the image encoder's states.
    """

    def __init__(self, width: int, heads: int, *, vocab_size: int, **stack: int) -> None:
        super().__init__()
        self.start, self.mask, self.vocab_size = vocab_size, vocab_size + 1, vocab_size
        self.embedding = nn.Embedding(vocab_size + 2, width)
        self.stack = _Stack(width, heads, **stack)
        init_weights(self)

    @property
    def output_map(self) -> Tensor:
        """weight_VD of the logits, which is the embedding's."""
        return self.embedding.weight[: self.vocab_size]

    def forward(self, ids_BL: Tensor, mask_BL: Tensor, image_BME: Tensor, *, causal: bool) -> Tensor:
        """states_BLD of tokens, ``start`` and ``mask`` among them, given the image encoder's states.

        ``mask_BL`` is 1 for real tokens, which come first. Where ``causal``, state l depends on the first l + 1 alone.
        """
        x_BLD = self.embedding(ids_BL)
        places_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        x_BLD = x_BLD + INIT_STD * sinusoids(places_L, x_BLD.shape[-1]).to(x_BLD)
        states_BLD: Tensor = self.stack(x_BLD, image_BME, keep_BN=mask_BL > 0, causal=causal)
        return states_BLD


class PatchDecoder(nn.Module):
    """The visible patches of an image and a text's states to the values of the hidden patches.

    ``stack``: ``hidden`` width of the perceptrons, ``layers``, ``source_width`` E of the text encoder's states.
    """

    def __init__(self, width: int, heads: int, *, patch_size: int, **stack: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        values = 3 * patch_size**2
        self.embedding, self.out = nn.Linear(values, width), nn.Linear(width, values)
        self.stack = _Stack(width, heads, **stack)
        self.mask_D = nn.init.trunc_normal_(nn.Parameter(torch.empty(width)), std=INIT_STD)
        init_weights(self)

    def patches(self, pixels_BCHW: Tensor) -> Tensor:
        """patches_BNP, row by row from the top.

        Raises:
            ShapeError: The image is no whole number of patches.
        """
        height, width = pixels_BCHW.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ShapeError(
                f"images of {height}x{width} pixels have no whole number of patches of model.decoder.patch_size = "
                f"{self.patch_size}; set it to a divisor"
            )
        return F.unfold(pixels_BCHW, self.patch_size, stride=self.patch_size).transpose(1, 2)

    def forward(
        self, patches_BNP: Tensor, hidden_BK: Tensor, text_BME: Tensor, keep_BM: Tensor, *, columns: int
    ) -> Tensor:
        """Values of the hidden patches ``hidden_BK``, predicted_BKP, given the text encoder's states.

        Of ``patches_BNP``, which are all, the hidden ones are not looked at. ``keep_BM`` is true for states of real
        tokens; ``columns`` are the patches in a row of the image.
        """
        x_BND = self.embedding(patches_BNP)
        hidden_BN1 = torch.zeros_like(x_BND[..., :1], dtype=torch.bool).scatter(1, hidden_BK[..., None], True)
        x_BND = torch.where(hidden_BN1, self.mask_D.to(x_BND), x_BND)
        places_N = torch.arange(x_BND.shape[1], device=x_BND.device)
        half = x_BND.shape[-1] // 2
        rows_ND = sinusoids(places_N // columns, half)
        columns_ND = sinusoids(places_N % columns, x_BND.shape[-1] - half)
        x_BND = x_BND + INIT_STD * torch.cat([rows_ND, columns_ND], dim=-1).to(x_BND)
        states_BND = self.stack(x_BND, text_BME, keep_BM=keep_BM)
        predicted_BKP: Tensor = self.out(take(states_BND, hidden_BK))
        return predicted_BKP


class Decoder(nn.Module):
    """The decoders of a dual encoder; either may be missing."""

    spec: Any  # what builds it again; whoever builds from a spec sets it

    def __init__(self, text: TextDecoder | None, image: PatchDecoder | None) -> None:
        super().__init__()
        self.text, self.image = text, image


def sinusoids(places_N: Tensor, width: int) -> Tensor:
    """Positions as sines and cosines, float32 [N, width] (arXiv 1706.03762, section 3.5)."""
    half = (width + 1) // 2
    rates = torch.exp(torch.arange(half, device=places_N.device) * (-math.log(10000.0) / max(1, half - 1)))
    angles_NH = places_N[:, None].float() * rates
    return torch.cat([angles_NH.sin(), angles_NH.cos()], dim=1)[:, :width]


def take(x_BND: Tensor, rows_BK: Tensor) -> Tensor:
    """The chosen rows of each of a batch, [B, K, D]."""
    return x_BND.gather(1, rows_BK[..., None].expand(-1, -1, x_BND.shape[-1]))


def normalized_patches(patches_BNP: Tensor) -> Tensor:
    """Each patch with mean 0 and variance 1 (MAE, section 4.1)."""
    variance, mean = torch.var_mean(patches_BNP.float(), dim=-1, keepdim=True)
    return (patches_BNP.float() - mean) / (variance + _VARIANCE_FLOOR).sqrt()
