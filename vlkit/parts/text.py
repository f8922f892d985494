"""Text encoders by spec or by name: transformers, open_clip, multiway, tiny."""

from __future__ import annotations

from pathlib import Path

from vlkit.parts.building import build_part, spec_by_name
from vlkit.registry import Registry
from vlkit.spec.parts import Dtype, HfText, OpenClipText, TextEncoderSpec, TinyText
from vlkit.types import TextEncoder

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
_NAMED: dict[str, type[HfText | OpenClipText | TinyText]] = {"hf": HfText, "open_clip": OpenClipText, "tiny": TinyText}


def build_text_encoder(spec: TextEncoderSpec, *, saved: Path | None = None, empty: bool = False) -> TextEncoder:
    """Builds the encoder a spec describes, with its own tokenizer, in eval mode.

    Arguments are those of ``build_image_encoder``.

    Returns:
        A torch module. Its ``spec`` is resolved: pooling and prefix as found in the model's files, where the given spec
        left them open.

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
    return build_text_encoder(spec_by_name(name, kinds=TEXT_ENCODERS, named=_NAMED, pretrained=pretrained, dtype=dtype))
