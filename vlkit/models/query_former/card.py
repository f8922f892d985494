"""What the model card of a Q-Former says."""

from __future__ import annotations

from vlkit.models.card_text import CardFacts, KindFacts, card_text
from vlkit.models.query_former.model import QueryFormer

_KIND = KindFacts(
    title="A Q-Former",
    pipeline="image-feature-extraction",
    tags=("vision-language", "multilingual", "q-former"),
    usage="""# in a recipe of a vision-language model
model:
  kind: vision_language
  bridge: {kind: qformer, weights: path/to/this/folder}""",
    usage_in="yaml",
    unnamed="learned similarity",
)


def render_card(model: QueryFormer, facts: CardFacts | None = None) -> str:
    """The model card as Markdown; ``facts`` is what only its maker knows."""
    return card_text(model, facts or CardFacts(), _KIND)
