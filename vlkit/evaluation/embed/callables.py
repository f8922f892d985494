"""A model that is two functions: anything that turns images and texts into vectors of one space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vlkit.errors import VlkitError

if TYPE_CHECKING:
    from PIL.Image import Image


class TwoCallables:
    """What evaluation needs of a model, made of two functions: a service, another framework, a library's own pipeline.

    Results are L2-normalised by the evaluation; they need not be.

    Args:
        images: Takes a list of B RGB images; gives image_BE (tensor, array or lists).
        texts: Takes a list of B texts and the BCP 47 tag of their language; gives text_BE.
        name: Of the model and its revision. It stands for the weights in results and in the caches of embeddings,
            which are not kept without it.
        marks_language: Whether ``texts`` gives one text different vectors in different languages. If not, a name that
            several languages share is encoded once.
        scale: What cosines are multiplied by before the softmax.
    """

    def __init__(
        self,
        images: Callable[[list[Image]], Any],
        texts: Callable[[list[str], str | None], Any],
        *,
        name: str = "",
        marks_language: bool = True,
        scale: float = 100.0,
    ) -> None:
        self.images, self.texts = images, texts
        self.name, self.marks_language, self.scale = name, marks_language, scale

    def embed_images(self, images: Sequence[Image]) -> Tensor:
        """image_BE, float32 on the CPU."""
        return _matrix(self.images(list(images)), len(images), what="images")

    def embed_texts(self, texts: Sequence[str], *, language: str | None) -> Tensor:
        """text_BE, float32 on the CPU."""
        return _matrix(self.texts(list(texts), language), len(texts), what="texts")


def _matrix(given: Any, count: int, *, what: str) -> Tensor:
    found = given.detach() if isinstance(given, Tensor) else torch.from_numpy(np.array(given, dtype=np.float32))
    if found.ndim != 2 or len(found) != count:
        raise VlkitError(
            f"{what}: for {count} of them the function gave an array of shape {tuple(found.shape)}; expected "
            f"({count}, width)"
        )
    return found.float().cpu()
