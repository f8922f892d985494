"""How many tokens a tokenizer makes of a language: the more, the less of it the model has seen, as a rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vlkit import languages as language_table
from vlkit.evaluation.alignment.hidden_states import LayeredText

# written without blanks between words
_NO_BLANKS = frozenset(("Hans", "Hant", "Hani", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"))


@dataclass(frozen=True)
class Fertility:
    """Tokens of the texts of one language, special tokens and prefix left out; NaN where not known.

    Attributes:
        tokens_per_character: Characters are code points other than white space.
        tokens_per_word: Words are what stands between blanks; NaN for scripts that are written without.
        unknown_share: Share of tokens that stand for what the tokenizer does not know.
    """

    tokens_per_character: float
    tokens_per_word: float
    unknown_share: float


def fertility(text: LayeredText, texts: Sequence[str], *, language: str) -> Fertility:
    """Counts over all texts of a language together, so that long ones weigh more."""
    if text.pieces is None or not texts:
        return Fertility(math.nan, math.nan, math.nan)
    rows = text.pieces(list(texts))
    tokens = sum(map(len, rows))
    unknown = sum(row.count(text.unknown_id) for row in rows) if text.unknown_id is not None else 0
    words = sum(len(one.split()) for one in texts)
    characters = sum(len("".join(one.split())) for one in texts)
    spaced = language_table.get(language).script not in _NO_BLANKS
    return Fertility(
        tokens_per_character=tokens / characters if characters else math.nan,
        tokens_per_word=tokens / words if spaced and words else math.nan,
        unknown_share=unknown / tokens if tokens else math.nan,
    )
