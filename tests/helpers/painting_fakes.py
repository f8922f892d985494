"""Small models that draw, by the protocol alone, and a judge that looks at colours."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from vlkit.evaluation.embed.callables import TwoCallables
from vlkit.types import Sample

PALETTE: Mapping[tuple[str, str, str], tuple[int, int, int]] = {
    ("red", "rot", "红色"): (220, 20, 20),
    ("green", "grün", "绿色"): (20, 200, 20),
    ("blue", "blau", "蓝色"): (20, 20, 220),
    ("yellow", "gelb", "黄色"): (220, 220, 20),
    ("pink", "rosa", "粉色"): (240, 120, 200),
    ("cyan", "türkis", "青色"): (20, 210, 210),
    ("black", "schwarz", "黑色"): (5, 5, 5),
    ("grey", "grau", "灰色"): (120, 120, 120),
}
LANGUAGES = ("en", "de", "zh")
COLOR_OF = {name: rgb for names, rgb in PALETTE.items() for name in names}


class DrawsColors(nn.Module):
    """A shape on white in the colour that the prompt names, a little other for each seed; grey noise for others.

    ``blind`` are languages whose prompts it does not understand; ``calls`` are the prompts, batch by batch.
    """

    def __init__(self, *, blind: Iterable[str] = (), size: int = 24) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.blind, self.size = frozenset(blind), size
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        language: str,
        seed: int = 0,
        num_images: int = 1,
        brightness: float = 1.0,
    ) -> list[Image.Image]:
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        self.calls.append((language, tuple(prompts)))
        return [self._image(one, language, number, brightness)
                for one in prompts for number in range(seed, seed + num_images)]  # fmt: skip

    def _image(self, prompt: str, language: str, seed: int, brightness: float) -> Image.Image:
        draw = random.Random(seed)
        noise = np.random.default_rng(seed).integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)
        found = next((rgb for name, rgb in COLOR_OF.items() if name in prompt), None)
        if found is None or language in self.blind:
            return Image.fromarray(noise)
        shade = tuple(min(255, int(brightness * (part + draw.randrange(-9, 10)))) for part in found)
        image = Image.new("RGB", (self.size, self.size), shade)
        ImageDraw.Draw(image).ellipse((2, 2, 6 + seed % 4, 8), fill="white")
        return image


def color_judge() -> TwoCallables:
    """Sees the mean colour of an image, and knows the colours by their names in three languages."""

    def images(shown: list[Image.Image]) -> Any:
        return _centred([np.asarray(one.convert("RGB"), dtype=np.float32).mean((0, 1)) for one in shown])

    def texts(said: list[str], language: str | None) -> Any:
        known = [next((rgb for name, rgb in COLOR_OF.items() if name in one), (90, 90, 91)) for one in said]
        return _centred([np.asarray(rgb, dtype=np.float32) for rgb in known])

    return TwoCallables(images, texts, name="colors", marks_language=False)


def _centred(rgb: Sequence[Any]) -> Any:
    values = (np.stack(rgb) - 110) / 110
    return np.concatenate([values, np.full((len(values), 1), 0.4, dtype=np.float32)], axis=1)


def color_samples(*, split: str = "test") -> list[Sample]:
    """A picture of each colour, with its names in three languages."""
    return [
        Sample(names[0], (_plain(rgb),), {tag: (name,) for tag, name in zip(LANGUAGES, names, strict=True)},
               concept=names[0], split=split)
        for names, rgb in PALETTE.items()
    ]  # fmt: skip


class _plain:  # noqa: N801 - a function that can be copied into a process
    def __init__(self, rgb: tuple[int, int, int]) -> None:
        self.rgb = rgb

    def __call__(self) -> Image.Image:
        return Image.new("RGB", (8, 8), self.rgb)
