"""What the model card of a dual encoder says."""

from __future__ import annotations

from vlkit.models.card_text import CardFacts, KindFacts, card_text
from vlkit.models.dual_encoder.model import DualEncoder

_USAGE = """import vlkit

model = vlkit.load("path/to/this/folder")
classifier = vlkit.ZeroShotClassifier(model, labels=["one", "two"], language="{language}")
print(classifier.classify("photo.jpg").top(1))"""


def render_card(
    model: DualEncoder, facts: CardFacts | None = None, *, library: str = "vlkit", usage: str | None = None
) -> str:
    """The model card as Markdown.

    ``facts`` is what only its maker knows, ``library`` who loads the folder, as hubs name it; ``usage`` are Python
    lines that show how, None shows vlkit's.
    """
    facts = facts or CardFacts()
    kind = KindFacts(
        title="An image-text model",
        pipeline="zero-shot-image-classification",
        tags=("image-text", "multilingual"),
        usage=usage or _USAGE.format(language=facts.languages[0] if facts.languages else "en"),
        unnamed="learned similarity",
    )
    return card_text(model, facts, kind, library=library)
