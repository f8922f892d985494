"""From a spec to a model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from vlkit.adapt.inject import add_adapter
from vlkit.errors import UnknownName
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.parts.bridges import build_decoder, build_head
from vlkit.parts.image import build_image_encoder
from vlkit.parts.text import build_text_encoder
from vlkit.spec.model import DualEncoderSpec, ModelSpec, SavedSpec
from vlkit.spec.parts import HeadSpec
from vlkit.types import SharesLayers


def build(spec: ModelSpec, *, saved: Path | None = None) -> DualEncoder:
    """The model that ``spec`` describes.

    Args:
        spec: What to build.
        saved: A model folder; encoders are built from the configuration in it, with weights unset until a state dict is
            loaded, and nothing is downloaded.

    Raises:
        VlkitError: A part cannot be had, or parts do not fit each other.
    """
    if isinstance(spec, SavedSpec):
        from vlkit.models.folder import load

        return add_adapters(load(spec.path), spec)
    return _build(spec, saved=saved, empty=False)


def build_meta(spec: ModelSpec, *, saved: Path | None = None) -> DualEncoder:
    """The model on the meta device: all shapes, no weights. For dry runs; ``saved`` as for ``build``."""
    if isinstance(spec, SavedSpec):
        from vlkit.models.folder import load_meta

        model = load_meta(spec.path)
        with torch.device("meta"):
            return add_adapters(model, spec)
    with torch.device("meta"):
        return _build(spec, saved=saved, empty=True)


def _build(spec: DualEncoderSpec, *, saved: Path | None, empty: bool) -> DualEncoder:
    if not isinstance(spec, DualEncoderSpec):
        raise UnknownName("model", type(spec).__name__, allowed=("dual_encoder", "saved"))
    image = build_image_encoder(spec.image, saved=saved and saved / "image", empty=empty)
    text = build_text_encoder(spec.text, saved=saved and saved / "text", empty=empty)
    if isinstance(text, SharesLayers):
        text.join(image)
    model = DualEncoder(
        image,
        text,
        embed_dim=spec.embed_dim,
        image_head=_head(spec.image_head, image.width, spec.embed_dim, saved=saved is not None and not empty),
        text_head=_head(spec.text_head, text.width, spec.embed_dim, saved=saved is not None and not empty),
        init_scale=spec.init_scale,
        max_scale=spec.max_scale,
        init_bias=spec.init_bias,
        decoder=None if spec.decoder is None else build_decoder(spec.decoder, image, text),
    )
    return add_adapters(model, spec)


def add_adapters(model: DualEncoder, spec: ModelSpec) -> DualEncoder:
    """Adds the adapters of a spec to its model, in place.

    Raises:
        VlkitError: An encoder has one already, or no layer that takes it.
    """
    for name, adapter in (("image", spec.image_adapter), ("text", spec.text_adapter)):
        if adapter is not None:
            add_adapter(model.get_submodule(name), adapter)
    return model


def _head(spec: HeadSpec, in_width: int, out_width: int, *, saved: bool) -> nn.Module:
    if not saved:
        return build_head(spec, in_width, out_width)
    with torch.device("meta"):  # orthogonal first weights take a second, and all of a head is in the state dict
        head = build_head(spec, in_width, out_width)
    return head.to_empty(device="cpu")
