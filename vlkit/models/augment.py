"""How a training image is read and varied; each variation is a pure function of its seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vlkit.spec.dataset import AugmentSpec

_WHITE = (255, 255, 255)
_RATIO = (3 / 4, 4 / 3)  # of width to height, as in Inception-style cropping
_FLATTEST = _RATIO[1]  # of the crops' shapes, width to height


@dataclass(frozen=True)
class Augment:
    """``augment(image, seed=...)``: crop, mirror, rotate, change colours, as the spec says; by default nothing.

    The size of a crop is that of its region; the encoder's transform resizes it.
    """

    spec: AugmentSpec

    @property
    def identity(self) -> bool:
        """Whether images stay as they are."""
        return self.spec == AugmentSpec()

    def draft_size(self, side: int) -> int:
        """Pixels that the shorter side of an image has to keep, so that no crop of it is enlarged to ``side``."""
        scale = self.spec.crop_scale
        return side if scale is None else math.ceil(side * math.sqrt(_FLATTEST / scale[0]))

    def __call__(self, image: Image.Image, *, seed: int) -> Image.Image:
        """A varied copy; the same seed gives the same pixels in every process."""
        if self.identity:
            return image
        spec, random = self.spec, np.random.default_rng(seed)
        # Every number is drawn whatever the settings, so that changing one of them leaves the others' draws alone.
        draws = random.random(10).tolist()
        if spec.crop_scale is not None:
            image = _crop(image, spec.crop_scale, draws[:4])
        if draws[4] < spec.flip:
            image = ImageOps.mirror(image)
        if spec.rotate:
            angle = (2 * draws[5] - 1) * spec.rotate
            image = image.rotate(angle, resample=Image.Resampling.BILINEAR, fillcolor=_WHITE)
        if spec.color:
            for enhance, draw in zip(
                (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), draws[6:9], strict=True
            ):
                image = enhance(image).enhance(1 + (2 * draw - 1) * spec.color)
        if draws[9] < spec.grayscale:
            image = image.convert("L").convert("RGB")
        return image


def _crop(image: Image.Image, scale: tuple[float, float], draws: list[float]) -> Image.Image:
    """A random region of a random share of the area, as much of it as the image's shape allows."""
    share = scale[0] + (scale[1] - scale[0]) * draws[0]
    ratio = math.exp(math.log(_RATIO[0]) + (math.log(_RATIO[1]) - math.log(_RATIO[0])) * draws[1])
    area = image.width * image.height * share
    width = max(1, min(image.width, round(math.sqrt(area * ratio))))
    height = max(1, min(image.height, round(area / width)))
    left, top = round((image.width - width) * draws[2]), round((image.height - height) * draws[3])
    return image.crop((left, top, left + width, top + height))
