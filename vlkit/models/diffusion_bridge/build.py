"""From its spec to a text encoder with a bridge to a diffusion model."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from vlkit.models.diffusion_bridge.model import DiffusionBridge
from vlkit.parts.bridges import build_condition_bridge
from vlkit.parts.diffusion_pipelines import build_pipeline
from vlkit.parts.encoders import build_text_encoder
from vlkit.spec.model import DiffusionBridgeSpec
from vlkit.types import GivesStates


def build(spec: DiffusionBridgeSpec, *, saved: Path | None, empty: bool) -> DiffusionBridge:
    """The model of a spec, without its adapters; see ``models.registry.build``."""
    text = build_text_encoder(spec.text, saved=saved and saved / "text", empty=empty)
    pipeline = build_pipeline(spec.pipeline)
    width = cast("GivesStates", text).token_width
    bridge = build_condition_bridge(
        spec.bridge, width, pipeline.width, count=pipeline.count, saved=saved is not None, empty=empty
    )
    return DiffusionBridge(text, bridge, pipeline)
