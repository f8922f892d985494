"""What the model card of a bridge to a diffusion model says."""

from __future__ import annotations

from dataclasses import replace

from vlkit.models.card_text import CardFacts, KindFacts, card_text
from vlkit.models.diffusion_bridge.model import DiffusionBridge

_KIND = KindFacts(
    title="A diffusion model that reads more languages",
    pipeline="text-to-image",
    tags=("text-to-image", "multilingual", "diffusion"),
    usage="""import vlkit

model = vlkit.load("path/to/this/folder")
model.generate("...", language="{language}", seed=7)[0].save("image.png")""",
)


def render_card(model: DiffusionBridge, facts: CardFacts | None = None) -> str:
    """The model card as Markdown; ``facts`` is what only its maker knows."""
    facts = facts or CardFacts()
    base = (
        f"The diffusion model is not in this folder: it is read from where spec.yaml names it ({model.pipeline.told}), "
        f"and its license holds for the images"
    )
    return card_text(model, replace(facts, limits=[*facts.limits, base]), _KIND)
