"""Where lines of text may end, in scripts with blanks between words and in scripts without."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

# Scripts without blanks between words: Han, kana, Thai, Lao, Khmer, Burmese, Tibetan. A dictionary would tell words of
# Thai, Lao, Khmer and Burmese; without one, lines end between syllable signs.
_RUN = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
_BEFORE_BASE = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4"  # vowels written before their consonant
_AFTER_BASE = (
    "\u0e2f\u0e30\u0e32\u0e33\u0e45\u0e46\u0eaf\u0eb0\u0eb2\u0eb3\u0ec6\u0f0b\u0f0c\u0f0d\u104a\u104b\u17d4\u17d5"
)
_STACKS = "\u17d2\u1039"  # put the next consonant below
_KILLED = ("\u1039", "\u103a")  # make of the consonant before them the end of a syllable
_NOT_FIRST = "、。，．・：；？！）」』】〕〉》”’…ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ｝］,.!?:;)]}%"
_NOT_LAST = "（「『【〔〈《“‘｛［([{"


def pieces(text: str) -> list[str]:
    """A text in pieces after each of which a line may end; together they are the text."""
    found: list[str] = []
    for word in re.findall(r"\S+\s*|\s+", text):
        found += _clusters(word) if _RUN.search(word) else [word]
    return found


def _clusters(word: str) -> list[str]:
    found: list[str] = []
    for place, sign in enumerate(word):
        if found and (_belongs(found[-1], sign) or word[place + 1 : place + 2] in _KILLED):
            found[-1] += sign
        else:
            found.append(sign)
    return found


def _belongs(before: str, sign: str) -> bool:
    last = before[-1]
    if sign.isspace() or unicodedata.category(sign) in ("Mn", "Mc", "Cf") or sign in _AFTER_BASE + _NOT_FIRST:
        return True
    if last.isspace():
        return False
    if last in _BEFORE_BASE + _STACKS + _NOT_LAST or last == "\u200d":
        return True
    if not _RUN.match(sign) and not _RUN.match(last):
        return True  # a foreign word stays whole
    return unicodedata.category(sign) == unicodedata.category(last) == "Nd"


def wrap(parts: Sequence[str], width: float, measure: Callable[[str], float]) -> list[str] | None:
    """Lines of pieces, each as long as fits into ``width``; None where a piece alone does not fit."""
    lines: list[str] = []
    line = ""
    for part in parts:
        if line and measure((line + part).rstrip()) > width:
            lines.append(line.rstrip())
            line = part
        else:
            line += part
        if not line.rstrip() or (line == part and measure(part.rstrip()) > width):
            if line.rstrip():
                return None
            line = ""
    return [*lines, line.rstrip()] if line.rstrip() else lines


def cells(text: str) -> int:
    """About how much room a text takes: wide characters count twice, marks not at all."""
    return sum(
        0 if unicodedata.combining(sign) or unicodedata.category(sign) in ("Mn", "Cf")
        else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )  # fmt: skip
