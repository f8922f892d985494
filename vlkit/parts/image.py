"""Image encoders by spec or by name: timm, open_clip, transformers, tiny."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from torch import nn

from vlkit.errors import UnknownName, VlkitError
from vlkit.registry import Registry
from vlkit.spec.parts import HfImage, ImageEncoderSpec, OpenClipImage, TimmImage, TinyImage

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


def build_image_encoder(spec: ImageEncoderSpec, *, saved: Path | None = None, empty: bool = False) -> nn.Module:
    """Builds the encoder a spec describes, in eval mode.

    Args:
        spec: What to build.
        saved: The folder its ``save_config`` wrote: no download, and weights stay unset until a state dict is loaded.
        empty: No weights at all: parameters on the meta device, to count and to show them.

    Returns:
        A module that satisfies ``types.ImageEncoder`` and has ``spec`` and ``image_size``.

    Raises:
        AssetError: The weights cannot be had.
        VlkitError: The model cannot be built so.
    """
    encoder: nn.Module = IMAGE_ENCODERS.get_object(spec.kind).build(spec, saved=saved, empty=empty)
    return encoder.eval()


def image_encoder(name: str, *, image_size: int | None = None, pretrained: bool = True) -> nn.Module:
    """Builds an image encoder by name.

    Args:
        name: ``timm:NAME``, ``open_clip:MODEL/TAG``, ``hf:ID`` (each also with a folder), or ``tiny``.
        image_size: Side of the square input in pixels; None takes the weights' own.
        pretrained: Load the weights; False starts from random ones.

    Raises:
        UnknownName: The part before the colon is no kind of encoder.
    """
    kind, name = split_name("image encoder", name, kinds=IMAGE_ENCODERS)
    if kind == "tiny":
        return build_image_encoder(TinyImage() if image_size is None else TinyImage(image_size=image_size))
    classes: dict[str, type[TimmImage | OpenClipImage | HfImage]] = {
        "timm": TimmImage, "open_clip": OpenClipImage, "hf": HfImage,
    }  # fmt: skip
    check_named(kind, classes)
    return build_image_encoder(classes[kind](name=name, image_size=image_size, pretrained=pretrained))


def check_named(kind: str, named: Container[str]) -> None:
    """Refuses a kind of encoder that has no names.

    Raises:
        VlkitError: It is one.
    """
    if kind not in named:
        raise VlkitError(f"a {kind} encoder has no weights to name; build it from its spec (vlkit.spec.parts)")


def split_name(what: str, name: str, *, kinds: Registry) -> tuple[str, str]:
    """Splits ``KIND:NAME``; ``tiny`` stands alone.

    Raises:
        UnknownName: There is no such kind.
        VlkitError: The name after the colon is missing.
    """
    kind, colon, rest = name.partition(":")
    if kind not in kinds:
        raise UnknownName(what, name if not colon else kind, allowed=kinds, hint=kinds.hint)
    if kind == "tiny":
        if rest:
            raise VlkitError(f"{what} {name!r}: tiny takes no name; write 'tiny'")
    elif not rest:
        raise VlkitError(f"{what} {name!r} lacks a name after the colon. {kinds.hint}")
    return kind, rest
