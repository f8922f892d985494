"""What the model card of a dual encoder says."""

from __future__ import annotations

from vlkit.models.card_text import CardFacts, KindFacts, card_text
from vlkit.models.dual_encoder.model import DualEncoder

_KIND = KindFacts(
    title="An image-text model",
    pipeline="zero-shot-image-classification",
    tags=("image-text", "multilingual"),
    usage="""import vlkit

model = vlkit.load("path/to/this/folder")
classifier = vlkit.ZeroShotClassifier(model, labels=["one", "two"], language="{language}")
print(classifier.classify("photo.jpg").top(1))""",
    unnamed="learned similarity",
)


def render_card(
    model: DualEncoder, facts: CardFacts | None = None, *, library: str = "vlkit", usage: str | None = None
) -> str:
    """The model card as Markdown; ``facts`` is what only its maker knows, the rest as ``card_text`` takes it."""
    return card_text(model, facts or CardFacts(), _KIND, library=library, usage=usage)
