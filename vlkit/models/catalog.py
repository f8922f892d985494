"""Lists what there is to load: whole models for ``vlkit.load``, parts for ``vlkit.image_encoder`` and its like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlkit.parts.assets.weights_table import ASSETS
from vlkit.registry import matches
from vlkit.spec.base import Spec
from vlkit.spec.bridges import BridgeSpec
from vlkit.spec.describe import doc
from vlkit.spec.language import TinyLanguage
from vlkit.spec.parts import TinyImage, TinyText
from vlkit.spec.schema import shape_of

PartKind = Literal["image encoder", "text encoder", "bridge", "language model"]
_KINDS: dict[str, PartKind] = {"timm": "image encoder", "hf": "text encoder"}
_WRITE = ("HuggingFaceTB/SmolLM2-135M-Instruct", "google/gemma-3-270m")  # language models, which can encode texts, too
_TINY: dict[PartKind, type[Spec]] = {
    "image encoder": TinyImage,
    "text encoder": TinyText,
    "language model": TinyLanguage,
}
_FORMS = {
    "tiny": "A small model with random weights, for trials and tests.",
    "hf:openai/clip-vit-base-patch32": "transformers: any CLIP-like model, by its id or folder; this is one of them.",
    "hf:Gregor/mblip-mt0-xl": "transformers: any BLIP-2 model, mBLIP's too, by its id or folder; this is one of them.",
    "hf:llava-hf/llava-1.5-7b-hf": "transformers: any LLaVA model, by its id or folder; this is one of them.",
    "hf-hub:timm/ViT-B-16-SigLIP": "The hub: any open_clip or vlkit model, by its id; this is one of them.",
}


@dataclass(frozen=True)
class ModelCard:
    """What is known of a whole model before it is loaded: its name, as ``vlkit.load`` takes it, and what it is."""

    name: str
    about: str


@dataclass(frozen=True)
class PartCard:
    """What is known of a part before it is loaded.

    ``name`` is as ``image_encoder``, ``text_encoder``, ``language_model`` and ``bridge`` take it, ``license`` an SPDX
    identifier (``none`` where there are no weights), ``about`` whose work it is.
    """

    name: str
    kind: PartKind
    license: str
    about: str


def list_models(pattern: str = "*") -> list[ModelCard]:
    """Whole models that ``vlkit.load`` takes: the tiny one, those of open_clip, and one of each sort on the hub.

    Model folders are taken, too, wherever they lie. All but the tiny one are fetched where they are not in a cache.
    ``pattern`` is a part of the name, or a pattern with ``*`` and ``?``; case does not matter.
    """
    import open_clip

    cards = [ModelCard(*form) for form in _FORMS.items()]
    cards += [
        ModelCard(f"open_clip:{model}/{tag}", f"open_clip: {model} with the weights {tag}.")
        for model, tag in open_clip.list_pretrained()
    ]
    return [card for card in cards if matches(card.name, pattern)]


def list_parts(pattern: str = "*", *, kind: PartKind | None = None) -> list[PartCard]:
    """Parts that can be loaded without a hub, the kinds of bridges, and the tiny twins; no model is imported.

    Any other name of timm, open_clip or the hub works too, where the hub can be reached. ``pattern`` is a part of the
    name, or a pattern with ``*`` and ``?``; case does not matter.
    """
    cards = [
        PartCard(f"{asset.library}:{asset.name}", _KINDS[asset.library], asset.license, asset.source)
        for asset in ASSETS
        if asset.library != "data"
    ]
    cards += [
        PartCard(f"{asset.library}:{asset.name}", "language model", asset.license, asset.source)
        for asset in ASSETS
        if asset.name in _WRITE
    ]
    cards += [PartCard(name, "bridge", "none", doc(spec)) for name, spec in shape_of(BridgeSpec).kinds.items()]
    cards += [PartCard("tiny", side, "none", doc(spec)) for side, spec in _TINY.items()]
    return [card for card in cards if matches(card.name, pattern) and kind in (None, card.kind)]
