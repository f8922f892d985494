"""Image tokenizers by spec: vlkit's own, and those of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vlkit.errors import VlkitError
from vlkit.registry import Registry
from vlkit.spec.image_tokenizers import BaseTokenizerSpec, ConvTokenizerSpec
from vlkit.types import ImageTokenizer

IMAGE_TOKENIZERS = Registry(
    "image tokenizer",
    {
        "conv": "vlkit.parts.conv_tokenizer:ConvImageTokenizer",
        "diffusers_vq": "vlkit.parts.library_tokenizers:DiffusersVq",
        "janus": "vlkit.parts.library_tokenizers:JanusTokenizer",
        "torchscript": "vlkit.parts.torchscript_tokenizer:TorchScriptTokenizer",
    },
)


def build_image_tokenizer(spec: BaseTokenizerSpec, *, saved: Path | None = None, empty: bool = False) -> ImageTokenizer:
    """Builds the image tokenizer a spec describes, in eval mode: a torch module that has ``spec``, too.

    Weights stay float32 and images are decoded in float32 under autocast, too: several known tokenizers give NaN in
    float16.

    Args:
        spec: What to build. The module's own ``spec`` is resolved: what it left to be read off weights stands in it.
        saved: The folder its ``save_config`` wrote: no download, and weights stay unset until a state dict is loaded.
        empty: No weights at all: parameters on the meta device, to count and to show them.

    Raises:
        AssetError: The weights cannot be had.
        VlkitError: The tokenizer cannot be built so.
    """
    built = IMAGE_TOKENIZERS.get_object(spec.kind).build(spec, saved=saved, empty=empty)
    tokenizer: ImageTokenizer = built.eval()
    return tokenizer


def resized(tokenizer: Any, size: int) -> Any:
    """The same tokenizer for square images of ``size`` pixels a side: equal weights, more or fewer codes.

    Raises:
        VlkitError: It takes no other size, or not this one.
    """
    spec = getattr(tokenizer, "spec", None)
    if not isinstance(spec, ConvTokenizerSpec):
        raise VlkitError(f"model.image_size = {size}: the {type(tokenizer).__name__} takes no other size; leave it out")
    try:
        new = ConvTokenizerSpec(**{**spec.model_dump(), "image_size": size, "weights": None})
    except ValidationError as error:
        raise VlkitError(f"model.{error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    built: Any = build_image_tokenizer(new)
    built.load_state_dict(tokenizer.state_dict())
    return built.to(next(tokenizer.parameters()).device).train(tokenizer.training)
