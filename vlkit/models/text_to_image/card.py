"""What the model card of a text-to-image model says."""

from __future__ import annotations

from vlkit.models.card_text import CardFacts, KindFacts, card_text
from vlkit.models.text_to_image.model import TextToImageModel

_KIND = KindFacts(
    title="A text-to-image model",
    pipeline="text-to-image",
    tags=("text-to-image", "multilingual"),
    usage="""import vlkit

painter = vlkit.load("path/to/this/folder")
painter.generate("...", language="{language}", seed=7)[0].save("image.png")""",
)


def render_card(model: TextToImageModel, facts: CardFacts | None = None) -> str:
    """The model card as Markdown; ``facts`` is what only its maker knows."""
    return card_text(model, facts or CardFacts(), _KIND)
