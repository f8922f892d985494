"""Paths and texts to embeddings in one call, as NumPy arrays.

N images, T texts, E embedding width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from vlkit import languages as language_table
from vlkit.data.formats.images import LazyImage
from vlkit.errors import DataError, VlkitError, some
from vlkit.evaluation.abilities import EMBEDS, require
from vlkit.evaluation.embed.encode import Embedder
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.given_images import ImageLike, call_images, list_images, read_image
from vlkit.evaluation.embed.image_features import image_features
from vlkit.evaluation.embed.texts import embed_texts as text_tensor
from vlkit.paths import local_path
from vlkit.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

Floats: TypeAlias = npt.NDArray[np.float32]
_log = logging.getLogger(__name__)


def embed_images(
    model: Embedder,
    images: ImageLike | Iterable[ImageLike],
    *,
    batch_size: int = 64,
    cache: str | PathLike[str] | None = None,
    skip_broken: bool = False,
    quiet: bool = False,
) -> Floats:
    """L2-normalised image_NE of one image or several, float32, in their order: dot products are cosines.

    Files are read by several threads while others are encoded.

    Args:
        model: Any image-text model, or a pair of functions (``TwoCallables``).
        images: Paths, encoded bytes, PIL images, arrays (height, width, channels) or tensors (channels, height, width).
        batch_size: Images a forward pass.
        cache: A folder in which embeddings are kept by what images hold and by all of the model that decides them;
            what is known there is not computed again.
        skip_broken: Rows of images that cannot be read are NaN, which a warning tells; else they are an error.
        quiet: Show no progress.

    Raises:
        DataError: Images that cannot be read; the message names the first few, and says how many there are.
        VlkitError: No image, a model that embeds none, or an embedding that is not finite.
    """
    require(model, EMBEDS, of="embed_images")
    listed = list_images(images, to="encode")
    names = call_images(listed)
    samples = [Sample(name, (_opener(image, name),), captions={}) for image, name in zip(listed, names, strict=True)]
    encoding = Encoding(batch_size=batch_size, cache=None if cache is None else local_path(cache), quiet=quiet)
    unreadable: dict[int, str] = {}
    with image_features(model, samples, encoding=encoding, unreadable=unreadable) as features:
        if unreadable:
            said = f"{len(unreadable)} of {len(listed)} images cannot be read: {some(unreadable.values(), most=3)}"
            if not skip_broken:
                raise DataError(f"{said}; leave them out, or give skip_broken=True for rows of NaN")
            _log.warning("%s; their rows are NaN", said)
        image_NE: Floats = features[torch.arange(len(listed))].numpy()
    image_NE[sorted(unreadable)] = np.nan
    return image_NE


def embed_texts(
    model: Embedder,
    texts: str | Sequence[str],
    *,
    language: str | None = None,
    batch_size: int = 256,
    cache: str | PathLike[str] | None = None,
    quiet: bool = False,
) -> Floats:
    """L2-normalised text_TE of one text or several of one language, float32, in their order.

    Equal texts are encoded once, and texts of like length together; the result is the same.

    Args:
        model: As for ``embed_images``.
        texts: In any language that the model reads.
        language: Theirs, BCP 47 or any other code that ``vlkit list languages`` shows; only tokenizers that mark the
            language of their input (NLLB's) need to know.
        batch_size: Texts a forward pass.
        cache: See ``embed_images``.
        quiet: Show no progress.

    Raises:
        UnknownName: No such language.
        VlkitError: No text, a blank one, a model that embeds none, or an embedding that is not finite.
    """
    require(model, EMBEDS, of="embed_texts")
    listed = [texts] if isinstance(texts, str) else list(texts)
    for number, text in enumerate(listed, 1):
        if not isinstance(text, str) or not text.strip():
            raise VlkitError(f"text number {number} is {text!r}; give strings that are not blank")
    encoding = Encoding(text_batch_size=batch_size, cache=None if cache is None else local_path(cache), quiet=quiet)
    tag = None if language is None else language_table.normalize(language)
    text_TE: Floats = text_tensor(model, listed, language=tag, encoding=encoding).numpy()
    return text_TE


def _opener(image: Any, name: str) -> Callable[[], Image]:
    """What decodes an image when called; files are known by their bytes."""
    if isinstance(image, str | Path):
        return LazyImage(local_path(image), name)
    return partial(read_image, image, name=name)
