"""What the model card of a vision-language model says."""

from __future__ import annotations

from vlkit.models.card_text import CardFacts, KindFacts, card_text
from vlkit.models.vision_language.model import VisionLanguageModel

_KIND = KindFacts(
    title="A vision-language model",
    pipeline="image-text-to-text",
    tags=("vision-language", "multilingual"),
    usage="""import vlkit

model = vlkit.load("path/to/this/folder")
print(model.caption("photo.jpg", language="{language}"))
print(model.ask("photo.jpg", "What is this?", language="{language}"))""",
)


def render_card(
    model: VisionLanguageModel, facts: CardFacts | None = None, *, library: str = "vlkit", usage: str | None = None
) -> str:
    """The model card as Markdown; ``facts`` is what only its maker knows, the rest as ``card_text`` takes it."""
    return card_text(model, facts or CardFacts(), _KIND, library=library, usage=usage)
