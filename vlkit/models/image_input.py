"""Images as users and readers hand them over, decoded for any kind of model."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from vlkit.registry import Registry
from vlkit.types import ReducedDecoding

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

AnImage: TypeAlias = "str | PathLike[str] | bytes | Image | np.ndarray[Any, Any]"
READERS = Registry("reader", {"image": "vlkit.data.formats.images:open_image"})
"""Models lie below those who read files, and this name is all that joins them."""


def read_given(image: AnImage) -> Image:
    """A path, PIL image, encoded bytes or array as an RGB image.

    Raises:
        DataError: It cannot be read.
    """
    read = READERS.get_object("image")
    return cast("Image", read(str(image) if isinstance(image, PathLike) else image))


def listed(given: Any) -> list[Any]:
    """One or several of something as a list."""
    return list(given) if isinstance(given, list | tuple) else [given]


def decode(image: Callable[[], Image], *, draft_size: int | None) -> Image:
    """An image of a sample; where its reader can, a large one decoded no larger than ``draft_size`` needs."""
    return image.draft(draft_size) if isinstance(image, ReducedDecoding) else image()
