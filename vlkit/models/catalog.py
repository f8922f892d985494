"""The pretrained parts that work without a model hub, as cards; listing them imports no model."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

from vlkit.parts.assets.table import ASSETS
from vlkit.spec.describe import doc
from vlkit.spec.parts import TinyImage, TinyText

Kind = Literal["image", "text"]
_KINDS: dict[str, Kind] = {"timm": "image", "hf": "text"}


@dataclass(frozen=True)
class ModelCard:
    """What is known of a part before it is loaded.

    Args:
        name: As ``image_encoder`` and ``text_encoder`` take it: ``"timm:tf_efficientnet_lite0.in1k"``.
        kind: What it encodes.
        license: SPDX identifier of the weights; ``"none"`` where there are none.
        about: Whose work it is.
    """

    name: str
    kind: Kind
    license: str
    about: str


def list_models(pattern: str = "*", *, kind: Kind | None = None) -> list[ModelCard]:
    """Parts that can be loaded without a hub, and the tiny twins.

    Any other name of timm, open_clip or the hub works too, where the hub can be reached.

    Args:
        pattern: A part of the name, or a pattern with ``*`` and ``?``; case does not matter.
        kind: Only image or only text encoders.
    """
    cards = [
        ModelCard(f"{asset.library}:{asset.name}", _KINDS[asset.library], asset.license, asset.source)
        for asset in ASSETS
        if asset.library != "data"
    ]
    cards.append(ModelCard("tiny", "image", "none", doc(TinyImage)))
    cards.append(ModelCard("tiny", "text", "none", doc(TinyText)))
    wanted = pattern.lower() if any(sign in pattern for sign in "*?[") else f"*{pattern.lower()}*"
    return [card for card in cards if fnmatch(card.name.lower(), wanted) and kind in (None, card.kind)]
