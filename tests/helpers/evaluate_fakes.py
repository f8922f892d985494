"""A small image-text model that counts what it encodes, and a task to go with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlkit.types import Sample, TextBatch


class CountingModel(nn.Module):
    """Byte-level text, pooled pixels; random but fixed weights; outputs are not normalised (evaluation must do it)."""

    def __init__(self, *, seed: int = 0, scale: float | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.bytes_VD = nn.Parameter(torch.randn(257, 16, generator=generator))
        self.positions_LD = nn.Parameter(torch.randn(64, 16, generator=generator))
        self.pixels_DE = nn.Parameter(torch.randn(48, 16, generator=generator))
        self.norm = nn.BatchNorm1d(16)  # tells whether the model is in evaluation mode
        self.images_seen = 0
        self.texts_seen: list[str] = []
        self.languages_seen: list[str | None] = []
        if scale is not None:
            self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def transform(self, image: Image.Image) -> Tensor:
        array = np.asarray(image.resize((4, 4)), dtype=np.float32)
        return torch.from_numpy(array / 255 - 0.5).permute(2, 0, 1)

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        self.images_seen += len(pixels_BCHW)
        return self.norm(pixels_BCHW.flatten(1) @ self.pixels_DE)

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        self.texts_seen += texts
        self.languages_seen.append(language)
        raw = [list(text.encode())[:64] for text in texts]
        ids_BL = torch.full((len(raw), max(map(len, raw))), 256)
        for row, values in enumerate(raw):
            ids_BL[row, : len(values)] = torch.tensor(values)
        return TextBatch(ids_BL, (ids_BL != 256).long())

    def encode_text(self, tokens: TextBatch) -> Tensor:
        hidden_BLD = self.bytes_VD[tokens.ids_BL] * self.positions_LD[: tokens.ids_BL.shape[1]]
        return (hidden_BLD * tokens.mask_BL[..., None]).sum(1)


class BrokenModel(CountingModel):
    """Gives NaN for black images and for texts with an exclamation mark."""

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        dark_B1 = (pixels_BCHW.flatten(1) == -0.5).all(1, keepdim=True)
        return super().encode_image(pixels_BCHW).masked_fill(dark_B1, float("nan"))

    def encode_text(self, tokens: TextBatch) -> Tensor:
        loud_B1 = (tokens.ids_BL == ord("!")).any(1, keepdim=True)
        return super().encode_text(tokens).masked_fill(loud_B1, float("nan"))


class OracleModel(CountingModel):
    """Knows colours: the image of colour c and any text listed for c have the same embedding."""

    def __init__(self, colors: dict[str, int]) -> None:
        super().__init__()
        self.colors = colors

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        self.images_seen += len(pixels_BCHW)
        codes = ((pixels_BCHW[:, 0, 0, 0] + 0.5) * 255).round().long()
        return nn.functional.one_hot(codes, 256).float()

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        codes = torch.tensor([[self.colors[text]] for text in texts])
        return TextBatch(codes, torch.ones_like(codes))

    def encode_text(self, tokens: TextBatch) -> Tensor:
        return nn.functional.one_hot(tokens.ids_BL[:, 0], 256).float()


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8))


def plain(gray: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (gray, gray, gray))


def sample(number: int, **captions: str) -> Sample:
    return Sample(
        key=f"key-{number}",
        images=(lambda: plain(number),),
        captions={tag: (text,) for tag, text in captions.items()},
        concept=f"concept-{number}",
        split="test",
    )
