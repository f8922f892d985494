"""What the model card of an image tokenizer says."""

from __future__ import annotations

from vlkit.models.card_text import CardFacts, KindFacts, card_text
from vlkit.models.image_tokenizer.model import ImageTokenizerModel

_KIND = KindFacts(
    title="An image tokenizer",
    pipeline="image-feature-extraction",
    tags=("image-tokenizer", "text-to-image"),
    usage="""# in a recipe of a text-to-image model
model:
  tokenizer: {kind: conv, weights: path/to/this/folder}""",
    usage_in="yaml",
)


def render_card(model: ImageTokenizerModel, facts: CardFacts | None = None) -> str:
    """The model card as Markdown; ``facts`` is what only its maker knows."""
    return card_text(model, facts or CardFacts(), _KIND)
