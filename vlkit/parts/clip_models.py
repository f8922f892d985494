"""Loads CLIP-like models of other libraries as two encoders, already in their shared space: no heads are needed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from vlkit.errors import VlkitError
from vlkit.parts import assets
from vlkit.parts.building import foreign_errors
from vlkit.parts.hf_common import is_two_tower, load_model, read_config, unusable
from vlkit.parts.hf_image import HfImageEncoder, load_processor, refuse_patches
from vlkit.parts.hf_text import HfTextEncoder, resolve_spec
from vlkit.parts.open_clip_files import OpenClipName, load_whole
from vlkit.parts.open_clip_parts import OpenClipImageEncoder, OpenClipTextEncoder
from vlkit.parts.tokenizers import load_tokenizer
from vlkit.spec.parts import HfImage, HfText, OpenClipImage, OpenClipText


class ScaleBias(NamedTuple):
    """Similarity of two normalised embeddings = scale * cosine + bias (0 where it is None)."""

    scale: float
    bias: float | None


def load_open_clip(name_or_folder: str) -> tuple[OpenClipImageEncoder, OpenClipTextEncoder, ScaleBias]:
    """Loads an open_clip model once and returns its two towers.

    The name is ``MODEL/TAG``, ``MODEL/FILE`` (a local weights file), ``hf-hub:ORG/NAME``, or a folder in hub layout.

    Raises:
        UnknownName: There is no such model or tag.
        AssetError: The weights or the tokenizer cannot be had.
    """
    name = OpenClipName.parse(name_or_folder)
    model: Any = load_whole(name)
    image = OpenClipImageEncoder.from_whole(model, name, spec=OpenClipImage(name=name_or_folder))
    text = OpenClipTextEncoder.from_whole(model, name, spec=OpenClipText(name=name_or_folder))
    return image.eval(), text.eval(), _scale_bias(model)


def load_hf_clip(folder_or_id: str) -> tuple[HfImageEncoder, HfTextEncoder, ScaleBias]:
    """Loads a two-tower model of transformers once and returns its two sides.

    By the hub id or folder of a CLIP, SigLIP, Chinese-CLIP, AltCLIP or VisionTextDualEncoder model.

    Raises:
        AssetError: The files cannot be had or read.
        VlkitError: It is no two-tower model, or its tokenizer does not fit.
    """
    folder = assets.resolve(folder_or_id, library="hf")
    config = read_config(folder)
    refuse_patches(config, folder=folder)
    if not is_two_tower(config):
        raise VlkitError(
            f"{folder_or_id}: model_type = {config.model_type!r} is no two-tower model; "
            f"use it as one encoder: vlkit.image_encoder('hf:...') or vlkit.text_encoder('hf:...')"
        )
    image_spec = HfImage(name=folder_or_id)
    model, _ = load_model(folder, config, spec=image_spec)
    tokenizer = load_tokenizer(folder)
    longest = int(getattr(config.text_config, "max_position_embeddings", 512))
    text_spec = resolve_spec(HfText(name=folder_or_id, max_length=longest), folder, config=config)
    if not hasattr(model, "logit_scale") and not hasattr(model, "temperature"):
        raise VlkitError(
            f"{folder_or_id}: model_type = {config.model_type!r} has no scale of similarities, so its images and texts "
            f"are in no shared space; use it as one encoder: vlkit.image_encoder('hf:...')"
        )
    processor = load_processor(folder, image_size=None)
    with foreign_errors(unusable(config, where=folder_or_id), error=VlkitError):
        image = HfImageEncoder(model, config, processor=processor, spec=image_spec)
        text = HfTextEncoder(model, config, tokenizer=tokenizer, spec=text_spec)
    return image.eval(), text.eval(), _scale_bias(model)


def _scale_bias(model: Any) -> ScaleBias:
    bias = getattr(model, "logit_bias", None)
    if hasattr(model, "logit_scale"):
        scale = math.exp(float(model.logit_scale.detach()))
    else:
        scale = 1 / float(model.temperature.detach())  # ALIGN divides by it
    return ScaleBias(scale, None if bias is None else float(bias.detach()))
