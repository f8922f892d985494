"""Answers compared with references word by word: token F1, exact match, keywords.

All of them look at texts after ``normalized``: NFC, case folded, punctuation (Unicode categories P and S) taken for a
blank, blanks joined. Words stand between blanks; a language that is written without blanks is compared character by
character (a base with the marks on it is one). With several references the best one counts.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from vlkit import languages as language_table

# Chinese (both scripts), Japanese, Thai, Lao, Khmer, Burmese, Tibetan: no blanks between words
UNSPACED = frozenset({"Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"})


def normalized(text: str) -> str:
    """The text as it is compared."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join("".join(" " if unicodedata.category(one)[0] in "PS" else one for one in folded).split())


def is_unspaced(language: str) -> bool:
    """Whether a language (BCP 47) is usually written without blanks between words."""
    return language_table.get(language).script in UNSPACED


def tokens(text: str, *, language: str) -> list[str]:
    """The words or characters of a text, normalised."""
    plain = normalized(text)
    return characters(plain) if is_unspaced(language) else plain.split()


def characters(text: str) -> list[str]:
    """The characters of a text but for blanks, each with the marks on it."""
    found: list[str] = []
    for one in "".join(text.split()):
        if found and unicodedata.category(one)[0] == "M":
            found[-1] += one
        else:
            found.append(one)
    return found


def exact_match(answer: str, references: Sequence[str]) -> bool:
    """Whether the answer is one of the references, but for case, punctuation and blanks."""
    return normalized(answer) in map(normalized, references)


def token_f1(answer: str, references: Sequence[str], *, language: str) -> float:
    """F1 of the bags of words in 0..1, against the nearest reference.

    As in SQuAD (arXiv 1606.05250, section 6.1), but that articles count.
    """
    said = Counter(tokens(answer, language=language))
    return max((_f1(said, Counter(tokens(one, language=language))) for one in references), default=0.0)


def _f1(said: Counter[str], wanted: Counter[str]) -> float:
    size = said.total() + wanted.total()
    return 2 * (said & wanted).total() / size if size else 1.0


def keywords_found(answer: str, keywords: Sequence[str], *, language: str) -> int:
    """How many of the keywords stand in the answer, each as whole words one after the other.

    Keyword accuracy (MELLA, arXiv 2508.05502) is their share. Characters of languages without blanks may stand inside
    longer words.
    """
    said = tokens(answer, language=language)
    return sum(_holds(said, tokens(one, language=language)) for one in keywords)


def _holds(said: Sequence[str], wanted: Sequence[str]) -> bool:
    size = len(wanted)
    return size > 0 and any(said[start : start + size] == wanted for start in range(len(said) - size + 1))
