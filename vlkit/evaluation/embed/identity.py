"""What decides embeddings and answers: weights, transform, tokenizer. Caches go by digests of these."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image
from torch import nn

from vlkit.errors import VlkitError
from vlkit.evaluation.embed.callables import TwoCallables
from vlkit.evaluation.embed.encode import Embedder, evaluating, marks_language
from vlkit.files import digest
from vlkit.models.digest import tensor_digest, weights_digest
from vlkit.spec.language import GenerationSpec
from vlkit.types import AnswersQuestions, Painter, Question

UNKNOWN = "not known"
_PROBES = (
    "A photo of a polar bear, 1.",
    "белый медведь",
    "北极熊",
    "İSTANBUL straße nai\u0308ve ﬁne “x”—1½ العَرَبِيَّة हिन्दी ภาษาไทย 한국어 🐻",  # what tokenizers fold, or do not
    "bear " * 600,  # where they cut
)


def model_digest(model: object) -> str:
    """What stands for the weights in results: their digest, or the name that was given to a pair of functions."""
    if isinstance(model, nn.Module):
        return weights_digest(model)
    return (model.name if isinstance(model, TwoCallables) else "") or UNKNOWN


def images_key(model: Embedder) -> str:
    """Digest of all that decides the embedding of an image but the image: weights, precision and transform.

    The transform is known by what it makes of three test images: small ones are scaled up, a large one down.

    Raises:
        VlkitError: The model's weights cannot be known.
    """
    tests = [_test_image(64, 48, step=7), _test_image(64, 48, step=31), _test_image(640, 720, step=31)]
    transform = [] if isinstance(model, TwoCallables) else [tensor_digest(model.transform(one)) for one in tests]
    return digest({**_weights(model), "transform": transform})


def _test_image(width: int, height: int, *, step: int) -> Image.Image:
    """Noise, which falls off to the right lest its mean is the same everywhere."""
    noise = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3) * step % 251
    return Image.fromarray((noise * np.linspace(1, 0.2, width)[:, None]).astype(np.uint8))


def texts_key(model: Embedder) -> str:
    """Digest of all that decides the embeddings of texts: weights, precision, and tokens of some test texts.

    Raises:
        VlkitError: The model's weights cannot be known.
    """
    tokens: list[object] = []
    if not isinstance(model, TwoCallables):
        language = "en" if marks_language(model) else None
        tokens = [[side.tolist() for side in model.tokenize([text], language=language)] for text in _PROBES]
    return digest({**_weights(model), "tokens": tokens})


def answers_key(model: AnswersQuestions) -> str:
    """Digest of all that decides answers but the questions: weights, precision, and how images and texts are taken.

    The latter is known by what the model answers about two test images, and by how many tokens it has for test texts.

    Raises:
        VlkitError: The model's weights cannot be known.
    """
    known = _weights(model)
    images = [_test_image(64, 48, step=7), _test_image(640, 720, step=31)]
    asked = [Question("?", images=(image,), language="en") for image in images]
    texts = _PROBES[:-1]
    with evaluating(model):
        said = model.answer(asked, generation=GenerationSpec(max_tokens=8))
        counts_N = model.log_likelihoods([Question("?", language="en")] * len(texts), texts)[:, 1]
    return digest({**known, "answers": said, "tokens": counts_N.long().tolist()})


def painter_key(model: Painter) -> str:
    """Digest of all that decides images but prompts and seeds: weights, precision, and how the model samples.

    The latter is known by what the model makes of one prompt.

    Raises:
        VlkitError: The model's weights cannot be known.
    """
    known = _weights(model)
    with evaluating(model):
        (image,) = model.generate("polar bear", language="en", seed=0, num_images=1)
    drawn = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    return digest({**known, "drawn": [image.size, drawn]})


def _weights(model: object) -> dict[str, object]:
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
