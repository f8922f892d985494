"""What decides embeddings: a digest of a model's weights, of its transform, of its tokenizer. Caches go by these."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import nn

from vlkit.errors import VlkitError
from vlkit.evaluation.embed.callables import TwoCallables
from vlkit.evaluation.embed.encode import Embedder, marks_language
from vlkit.files import digest
from vlkit.models.digest import tensor_digest, weights_digest
from vlkit.types import Sample

UNKNOWN = "not known"
_PROBES = ("A photo of a polar bear, 1.", "белый медведь", "北极熊")


def model_digest(model: Embedder) -> str:
    """What stands for the weights in results: their digest, or the name that was given to a pair of functions."""
    if isinstance(model, nn.Module):
        return weights_digest(model)
    return (model.name if isinstance(model, TwoCallables) else "") or UNKNOWN


def features_key(model: Embedder, samples: Sequence[Sample]) -> str:
    """Digest of all that decides the embeddings of images: weights, transform, precision, and which images.

    The transform is known by what it makes of two test images, the images by their keys and by the pixels of the first,
    the middle and the last one.

    Raises:
        VlkitError: The model's weights cannot be known.
    """
    ramp = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3)
    tests = [Image.fromarray((ramp * step % 251).astype(np.uint8)) for step in (7, 31)]
    probes = [samples[place].image() for place in sorted({0, len(samples) // 2, len(samples) - 1})]
    return digest(
        {
            **_weights(model),
            "transform": [] if isinstance(model, TwoCallables) else [tensor_digest(model.transform(t)) for t in tests],
            "images": [sample.key for sample in samples],
            "pixels": [digest([probe.size, zlib.crc32(probe.convert("RGB").tobytes())]) for probe in probes],
        }
    )


def texts_key(model: Embedder) -> str:
    """Digest of all that decides the embeddings of texts: weights, precision, and tokens of three test texts.

    Raises:
        VlkitError: The model's weights cannot be known.
    """
    tokens: list[object] = []
    if not isinstance(model, TwoCallables):
        language = "en" if marks_language(model) else None
        tokens = [[side.tolist() for side in model.tokenize([text], language=language)] for text in _PROBES]
    return digest({**_weights(model), "tokens": tokens})


def _weights(model: Embedder) -> dict[str, object]:
    if isinstance(model, TwoCallables) and model.name:
        return {"name": model.name}
    if not isinstance(model, nn.Module):
        hint = "give it a name, or " if isinstance(model, TwoCallables) else ""
        raise VlkitError(
            f"the features of a {type(model).__name__} cannot be kept: only of a torch.nn.Module are the weights "
            f"known; {hint}leave cache out"
        )
    return {
        "weights": weights_digest(model),
        "precision": sorted({str(parameter.dtype) for parameter in model.parameters()}),
    }
