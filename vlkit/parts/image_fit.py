"""Images made square before a library's own preprocessing: with borders of one colour, so that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL.Image import Image, Resampling
from PIL.Image import new as new_image
from torch import Tensor

_LARGEST = 4096  # pixels of a side, so that a strip of an image does not become a square that no memory holds


class Padded:
    """Puts an image into the middle of a square of the mean colour, as LLaVA 1.5 does, then goes on with ``steps``.

    ``mean`` are the three values in 0..1 that the preprocessing subtracts: borders become zeros. The square is as wide
    as the image's longer side.
    """

    def __init__(self, steps: Callable[[Image], Tensor], mean: Sequence[float]) -> None:
        self.steps = steps
        self.color = tuple(int(255 * value) for value in mean)

    def __call__(self, image: Image) -> Tensor:
        """An RGB image to pixels_CHW."""
        side = max(image.size)
        if side > _LARGEST:
            width, height = (max(1, round(one * _LARGEST / side)) for one in image.size)
            image, side = image.resize((width, height), Resampling.BICUBIC), _LARGEST
        square = new_image("RGB", (side, side), self.color)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return self.steps(square)
