"""Lists what there is to load: whole models for ``vlkit.load``, parts for ``vlkit.image_encoder`` and its like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlkit.parts.assets.weights_table import ASSETS
from vlkit.registry import matches
from vlkit.spec.describe import doc
from vlkit.spec.language import TinyLanguage
from vlkit.spec.parts import TinyImage, TinyText

PartKind = Literal["image encoder", "text encoder", "language model"]
_KINDS: dict[str, PartKind] = {"timm": "image encoder", "hf": "text encoder"}
_FORMS = {
    "tiny": "A small model with random weights, for trials and tests.",
    "hf:openai/clip-vit-base-patch32": "transformers: any CLIP-like model, by its id or folder; this is one of them.",
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

    ``name`` is as ``image_encoder``, ``text_encoder`` and ``language_model`` take it, ``license`` an SPDX identifier or
    the name of terms of use (``none`` where there are no weights), ``about`` whose work it is.
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
    """Parts that can be loaded without a hub, and the tiny twins; no model is imported.

    Any other name of timm, open_clip or the hub works too, where the hub can be reached. ``pattern`` is a part of the
    name, or a pattern with ``*`` and ``?``; case does not matter.
    """
    cards: list[PartCard] = []
    for asset in ASSETS:
        # what a language model makes of a text can be taken as a feature, too
        kinds: list[PartKind] = [_KINDS[asset.library]] if asset.library != "data" else []
        kinds += ["language model"] if asset.writes else []
        cards += [PartCard(f"{asset.library}:{asset.name}", one, asset.license, asset.source) for one in kinds]
    cards.append(PartCard("tiny", "image encoder", "none", doc(TinyImage)))
    cards.append(PartCard("tiny", "text encoder", "none", doc(TinyText)))
    cards.append(PartCard("tiny", "language model", "none", doc(TinyLanguage)))
    return [card for card in cards if matches(card.name, pattern) and kind in (None, card.kind)]
