"""What is told of a bridge to a diffusion model before it is used; its weights may be on the meta device."""

from __future__ import annotations

from vlkit.models.diffusion_bridge.model import DiffusionBridge


def facts(model: DiffusionBridge) -> dict[str, int | str]:
    """Which diffusion model, and what it reads."""
    return {
        "diffusion model": model.pipeline.told,
        "states of a text": model.pipeline.count,
        "width of a state": model.pipeline.width,
    }
