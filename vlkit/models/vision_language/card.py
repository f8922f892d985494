"""What the model card of a vision-language model says."""

from __future__ import annotations

from vlkit.models.card_text import CardFacts, KindFacts, card_text
from vlkit.models.vision_language.model import VisionLanguageModel

_USAGE = """import vlkit

model = vlkit.load("path/to/this/folder")
print(model.caption("photo.jpg", language="{language}"))
print(model.ask("photo.jpg", "What is this?", language="{language}"))"""


def render_card(
    model: VisionLanguageModel, facts: CardFacts | None = None, *, library: str = "vlkit", usage: str | None = None
) -> str:
    """The model card as Markdown.

    ``facts`` is what only its maker knows, ``library`` who loads the folder, as hubs name it; ``usage`` are Python
    lines that show how, None shows vlkit's.
    """
    facts = facts or CardFacts()
    kind = KindFacts(
        title="A vision-language model",
        pipeline="image-text-to-text",
        tags=("vision-language", "multilingual"),
        usage=usage or _USAGE.format(language=facts.languages[0] if facts.languages else "en"),
    )
    return card_text(model, facts, kind, library=library)
