"""Image and text encoders by spec or by name: timm, open_clip, transformers, multiway, tiny."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vlkit.parts.building import build_part, spec_by_name
from vlkit.registry import Registry
from vlkit.spec import parts as specs
from vlkit.spec.parts import Dtype, ImageEncoderSpec, TextEncoderSpec
from vlkit.types import ImageEncoder, TextEncoder

IMAGE_ENCODERS = Registry(
    "image encoder",
    {
        "timm": "vlkit.parts.timm_image:TimmImageEncoder",
        "open_clip": "vlkit.parts.open_clip_parts:OpenClipImageEncoder",
        "hf": "vlkit.parts.hf_image:HfImageEncoder",
        "multiway": "vlkit.parts.multiway_encoders:MultiwayImageEncoder",
        "tiny": "vlkit.parts.tiny:TinyImageEncoder",
        "tiled": "vlkit.parts.tiled_image:TiledImageEncoder",
    },
    hint="Names read 'timm:NAME', 'open_clip:MODEL/TAG', 'hf:ID', 'tiny'.",
)
TEXT_ENCODERS = Registry(
    "text encoder",
    {
        "hf": "vlkit.parts.hf_text:HfTextEncoder",
        "open_clip": "vlkit.parts.open_clip_parts:OpenClipTextEncoder",
        "multiway": "vlkit.parts.multiway_encoders:MultiwayTextEncoder",
        "tiny": "vlkit.parts.tiny:TinyTextEncoder",
    },
    hint="Names read 'hf:ID', 'open_clip:MODEL/TAG', 'tiny'.",
)
_IMAGE_SPECS: dict[str, type[specs.TimmImage | specs.OpenClipImage | specs.HfImage | specs.TinyImage]] = {
    "timm": specs.TimmImage, "open_clip": specs.OpenClipImage, "hf": specs.HfImage, "tiny": specs.TinyImage,
}  # fmt: skip
_TEXT_SPECS: dict[str, type[specs.HfText | specs.OpenClipText | specs.TinyText]] = {
    "hf": specs.HfText, "open_clip": specs.OpenClipText, "tiny": specs.TinyText,
}  # fmt: skip


def build_image_encoder(spec: ImageEncoderSpec, *, saved: Path | None = None, empty: bool = False) -> ImageEncoder:
    """Builds the encoder a spec describes, in eval mode: a torch module that has ``spec``, too.

    Args:
        spec: What to build.
        saved: The folder its ``save_config`` wrote: no download, and weights stay unset until a state dict is loaded.
        empty: No weights at all: parameters on the meta device, to count and to show them.

    Raises:
        AssetError: The weights cannot be had.
        VlkitError: The model cannot be built so.
    """
    encoder: ImageEncoder = build_part(IMAGE_ENCODERS, spec, saved=saved, empty=empty)
    return encoder


def image_encoder(
    name: str,
    *,
    image_size: int | None = None,
    pretrained: bool | None = None,
    dtype: Dtype | None = None,
    layers: tuple[int, ...] | None = None,
    fit: Literal["own", "squash", "pad"] | None = None,
) -> ImageEncoder:
    """Builds an image encoder by name; what is None is as in its spec.

    Args:
        name: ``timm:NAME``, ``open_clip:MODEL/TAG``, ``hf:ID`` (each also with a folder), or ``tiny``.
        image_size: Side of the square input in pixels, instead of the weights' own.
        pretrained: False starts from random weights.
        dtype: Precision in which the weights are held.
        layers: Blocks whose states are the tokens, instead of the last: ``(-2,)``.
        fit: How an image becomes square.

    Raises:
        UnknownName: The part before the colon is no kind of encoder.
    """
    options = {"image_size": image_size, "pretrained": pretrained, "dtype": dtype, "layers": layers, "fit": fit}
    return build_image_encoder(spec_by_name(name, kinds=IMAGE_ENCODERS, named=_IMAGE_SPECS, **options))


def build_text_encoder(spec: TextEncoderSpec, *, saved: Path | None = None, empty: bool = False) -> TextEncoder:
    """Builds the encoder a spec describes, with its own tokenizer, in eval mode.

    Arguments are those of ``build_image_encoder``. The module's ``spec`` is resolved: pooling and prefix as found in
    the model's files, where the given spec left them open.

    Raises:
        AssetError: The weights cannot be had.
        VlkitError: The model cannot be built so, or its tokenizer is another model's.
    """
    encoder: TextEncoder = build_part(TEXT_ENCODERS, spec, saved=saved, empty=empty)
    return encoder


def text_encoder(name: str, *, pretrained: bool | None = None, dtype: Dtype | None = None) -> TextEncoder:
    """Builds a text encoder by name; what is None is as in its spec.

    Args:
        name: ``hf:ID``, ``open_clip:MODEL/TAG`` (each also with a folder), or ``tiny``.
        pretrained: False starts from random weights.
        dtype: Precision in which the weights are held.

    Raises:
        UnknownName: The part before the colon is no kind of encoder.
    """
    options = {"pretrained": pretrained, "dtype": dtype}
    return build_text_encoder(spec_by_name(name, kinds=TEXT_ENCODERS, named=_TEXT_SPECS, **options))
