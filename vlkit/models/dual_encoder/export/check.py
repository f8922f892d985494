"""Exported models loaded in their library and compared with what they came from.

Shapes: B batch, C channels, H height, W width, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from PIL import Image
from torch import Tensor

from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.parts.hf_common import never_asking
from vlkit.parts.hf_image import HfImageEncoder
from vlkit.parts.language_marks import marks_language, set_language

TEXTS = ("a photo of a cat", "ein sehr großer Hund", "雪山の写真", "صورة قطة", "a very long text " * 40)
LANGUAGE = "en"
_SEEDS = range(3)


class Differences(NamedTuple):
    """Largest absolute differences between a model and its export, over the values of L2-normalised embeddings.

    ``pixels``: of equal pixels; ``images``: of equal images through the library's own preprocessing; ``texts``: of
    equal strings through its own tokenizer; ``similarity``: of scale and bias, relative.
    """

    pixels: float
    images: float
    texts: float
    similarity: float


class _Peer(NamedTuple):
    """A model of another library, and how it takes images, texts and pixels."""

    whole: Any
    image: Callable[[Tensor], Tensor]
    text: Callable[[Sequence[str]], Tensor]
    pixels: Callable[[Image.Image], Tensor]


class Probe(NamedTuple):
    """What a model gives for a few images and texts; made before anything of it is rewritten for an export."""

    pixels_BCHW: Tensor
    image_BE: Tensor
    text_BE: Tensor
    scale: float
    bias: float | None


@torch.no_grad()
def probe(model: DualEncoder) -> Probe:
    """Embeds the images and texts of the comparison; the model must be in eval mode on the CPU."""
    pixels_BCHW = torch.stack([model.transform(_noise(seed)) for seed in _SEEDS])
    text_BE = model.encode_text(model.tokenize(TEXTS, language=LANGUAGE))
    bias = None if model.bias is None else float(model.bias)
    return Probe(pixels_BCHW, model.encode_image(pixels_BCHW), text_BE, float(model.scale), bias)


@torch.no_grad()
def compare(model: DualEncoder, folder: Path, *, own: Probe, library: str) -> Differences:
    """Loads an export in its library and compares it with what it came from.

    ``own`` is what the model gave; ``library`` is ``open_clip`` or ``transformers``.
    """
    with never_asking():
        theirs = _open_clip(folder) if library == "open_clip" else _transformers(model, folder)
    similarity = abs(float(theirs.whole.logit_scale.exp()) / own.scale - 1)
    bias = getattr(theirs.whole, "logit_bias", None)
    if own.bias is not None and bias is not None:
        similarity = max(similarity, abs(float(bias) - own.bias) / max(1, abs(own.bias)))
    pixels_BCHW = torch.stack([theirs.pixels(_noise(seed)) for seed in _SEEDS])
    return Differences(
        pixels=_distance(theirs.image(own.pixels_BCHW), own.image_BE),
        images=_distance(theirs.image(pixels_BCHW), own.image_BE),
        texts=_distance(theirs.text(TEXTS), own.text_BE),
        similarity=similarity,
    )


def _distance(features_BE: Tensor, embeddings_BE: Tensor) -> float:
    return float((F.normalize(features_BE.float(), dim=-1) - embeddings_BE).abs().max())


def _noise(seed: int) -> Image.Image:
    size = (140, 100)
    draw = torch.Generator().manual_seed(seed)
    pixels_HWC = torch.randint(0, 256, (*reversed(size), 3), generator=draw, dtype=torch.uint8)
    return Image.fromarray(pixels_HWC.numpy()).resize((35, 25)).resize(size)  # smooth, as pictures are


def _open_clip(folder: Path) -> _Peer:
    import open_clip

    name = f"local-dir:{folder}"
    whole, transform = open_clip.create_model_from_pretrained(name, pretrained_text=False)
    whole.eval()
    tokenizer = open_clip.get_tokenizer(name)

    def text(texts: Sequence[str]) -> Tensor:
        if marks_language(inner := getattr(tokenizer, "tokenizer", None)):
            set_language(inner, LANGUAGE, where=str(folder))
        features: Tensor = whole.encode_text(tokenizer(list(texts)))
        return features

    return _Peer(whole, whole.encode_image, text, transform)


def _transformers(model: DualEncoder, folder: Path) -> _Peer:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    whole = AutoModel.from_pretrained(str(folder)).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(str(folder)), AutoImageProcessor.from_pretrained(str(folder))
    options: dict[str, Any] = model.image.options if isinstance(model.image, HfImageEncoder) else {}
    rules: Any = model.text.tokenizer  # type: ignore[attr-defined]

    def text(texts: Sequence[str]) -> Tensor:
        padding = "max_length" if rules.fixed_length else True
        tokens = tokenizer(
            list(texts), padding=padding, truncation=True, max_length=rules.max_length, return_tensors="pt"
        )
        mask = None if rules.fixed_length else tokens["attention_mask"]  # as SigLIP's own processor
        return _features(whole.get_text_features(input_ids=tokens["input_ids"], attention_mask=mask))

    def pixels(image: Image.Image) -> Tensor:
        made: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return made

    def image(pixels_BCHW: Tensor) -> Tensor:
        return _features(whole.get_image_features(pixel_values=pixels_BCHW, **options))

    return _Peer(whole, image, text, pixels)


def _features(output: Any) -> Tensor:
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features
