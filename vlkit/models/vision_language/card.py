"""What the model card of a vision-language model says."""

from __future__ import annotations

from vlkit.models.card_text import CardFacts, KindFacts, card_text
from vlkit.models.vision_language.model import VisionLanguageModel

_USAGE = """import vlkit

model = vlkit.load("path/to/this/folder")
print(model.caption("photo.jpg", language="{language}"))
print(model.ask("photo.jpg", "What is this?", language="{language}"))"""


def render_card(model: VisionLanguageModel, facts: CardFacts | None = None) -> str:
    """The model card as Markdown; ``facts`` is what only its maker knows."""
    facts = facts or CardFacts()
    kind = KindFacts(
        title="A vision-language model",
        pipeline="image-text-to-text",
        tags=("vision-language", "multilingual"),
        usage=_USAGE.format(language=facts.languages[0] if facts.languages else "en"),
    )
    return card_text(model, facts, kind)
