"""Text encoders by spec or by name: transformers, open_clip, tiny."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vlkit.parts.image import check_named, split_name
from vlkit.registry import Registry
from vlkit.spec.parts import HfText, OpenClipText, TextEncoderSpec, TinyText

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


def build_text_encoder(spec: TextEncoderSpec, *, saved: Path | None = None, empty: bool = False) -> nn.Module:
    """Builds the encoder a spec describes, with its own tokenizer, in eval mode.

    Args:
        spec: What to build.
        saved: The folder its ``save_config`` wrote: no download, and weights stay unset until a state dict is loaded.
        empty: No weights at all: parameters on the meta device, to count and to show them.

    Returns:
        A module that satisfies ``types.TextEncoder``. Its ``spec`` is resolved: pooling and prefix as found in the
        model's files, where the given spec left them open.

    Raises:
        AssetError: The weights cannot be had.
        VlkitError: The model cannot be built so, or its tokenizer is another model's.
    """
    encoder: nn.Module = TEXT_ENCODERS.get_object(spec.kind).build(spec, saved=saved, empty=empty)
    return encoder.eval()


def text_encoder(name: str, *, pretrained: bool = True) -> nn.Module:
    """Builds a text encoder by name.

    Args:
        name: ``hf:ID``, ``open_clip:MODEL/TAG`` (each also with a folder), or ``tiny``.
        pretrained: Load the weights; False starts from random ones.

    Raises:
        UnknownName: The part before the colon is no kind of encoder.
    """
    kind, name = split_name("text encoder", name, kinds=TEXT_ENCODERS)
    if kind == "tiny":
        return build_text_encoder(TinyText())
    classes: dict[str, type[HfText | OpenClipText]] = {"hf": HfText, "open_clip": OpenClipText}
    check_named(kind, classes)
    return build_text_encoder(classes[kind](name=name, pretrained=pretrained))
