"""Images as callers hand them over, one or several: paths, bytes, PIL images, arrays or tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import Tensor

from vlkit.data.formats.images import open_image
from vlkit.errors import DataError, VlkitError
from vlkit.paths import local

if TYPE_CHECKING:
    from PIL.Image import Image

ImageLike: TypeAlias = Any  # str | Path | bytes | PIL image | numpy array | tensor


def list_images(images: ImageLike | Iterable[ImageLike], *, to: str) -> list[ImageLike]:
    """One image or several as a list; ``to`` is what shall be done with them, for errors.

    Raises:
        DataError: It is neither.
        VlkitError: There is none.
    """
    single = isinstance(images, str | Path | bytes) or hasattr(images, "convert")  # PIL images have no common iterable
    if isinstance(images, np.ndarray | Tensor):
        single = images.ndim <= 3
    if single:
        return [images]
    if not isinstance(images, Iterable):
        raise DataError(
            f"images is a {type(images).__name__}; give a path, a PIL image, an array, a tensor, or a list of these"
        )
    listed = list(images)
    if not listed:
        raise VlkitError(f"no images to {to}; give at least one")
    return listed


def call_images(images: Sequence[ImageLike]) -> tuple[str, ...]:
    """What to call images: their paths, or "image 1" and so on."""
    return tuple(
        str(image) if isinstance(image, str | Path) else f"image {number}" for number, image in enumerate(images, 1)
    )


def read_image(image: ImageLike, *, name: str) -> Image:
    """An RGB image from a path, bytes, a PIL image, an array (H, W[, C]) or a tensor ([C,] H, W).

    Raises:
        DataError: Cannot be read, or its shape or values are not those of an image.
    """
    if isinstance(image, Tensor):
        if image.ndim == 3 and image.shape[0] not in (1, 3, 4):
            raise DataError(
                f"{name} is a tensor of shape {tuple(image.shape)}; expected (channels, height, width) with 1, 3 or 4 "
                f"channels"
            )
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    return open_image(local(image) if isinstance(image, str) else image, name=name)
