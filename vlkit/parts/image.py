"""Image encoders by spec or by name: timm, open_clip, transformers, multiway, tiny."""

from __future__ import annotations

from pathlib import Path

from vlkit.parts.building import build_part, spec_by_name
from vlkit.registry import Registry
from vlkit.spec.parts import Dtype, HfImage, ImageEncoderSpec, OpenClipImage, TimmImage, TinyImage
from vlkit.types import ImageEncoder

IMAGE_ENCODERS = Registry(
    "image encoder",
    {
        "timm": "vlkit.parts.timm_image:TimmImageEncoder",
        "open_clip": "vlkit.parts.open_clip_parts:OpenClipImageEncoder",
        "hf": "vlkit.parts.hf_image:HfImageEncoder",
        "multiway": "vlkit.parts.multiway_encoders:MultiwayImageEncoder",
        "tiny": "vlkit.parts.tiny:TinyImageEncoder",
    },
    hint="Names read 'timm:NAME', 'open_clip:MODEL/TAG', 'hf:ID', 'tiny'.",
)
_NAMED: dict[str, type[TimmImage | OpenClipImage | HfImage | TinyImage]] = {
    "timm": TimmImage, "open_clip": OpenClipImage, "hf": HfImage, "tiny": TinyImage,
}  # fmt: skip


def build_image_encoder(spec: ImageEncoderSpec, *, saved: Path | None = None, empty: bool = False) -> ImageEncoder:
    """Builds the encoder a spec describes, in eval mode.

    Args:
        spec: What to build.
        saved: The folder its ``save_config`` wrote: no download, and weights stay unset until a state dict is loaded.
        empty: No weights at all: parameters on the meta device, to count and to show them.

    Returns:
        A torch module that has ``spec``, too.

    Raises:
        AssetError: The weights cannot be had.
        VlkitError: The model cannot be built so.
    """
    encoder: ImageEncoder = build_part(IMAGE_ENCODERS, spec, saved=saved, empty=empty)
    return encoder


def image_encoder(
    name: str, *, image_size: int | None = None, pretrained: bool | None = None, dtype: Dtype | None = None
) -> ImageEncoder:
    """Builds an image encoder by name; what is None is as in its spec.

    Args:
        name: ``timm:NAME``, ``open_clip:MODEL/TAG``, ``hf:ID`` (each also with a folder), or ``tiny``.
        image_size: Side of the square input in pixels, instead of the weights' own.
        pretrained: False starts from random weights.
        dtype: Precision in which the weights are held.

    Raises:
        UnknownName: The part before the colon is no kind of encoder.
    """
    options = {"image_size": image_size, "pretrained": pretrained, "dtype": dtype}
    return build_image_encoder(spec_by_name(name, kinds=IMAGE_ENCODERS, named=_NAMED, **options))
