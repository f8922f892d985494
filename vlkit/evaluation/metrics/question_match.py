"""Answers to questions compared with the right ones as published evaluations do it, and which option an answer names.

``exact_match`` and ``relaxed_match`` are those of mBLIP (arXiv 2307.06930) and Centurio (arXiv 2501.05122), but that
both sides are NFC, in which one letter is one letter however it was typed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from string import ascii_uppercase

from vlkit.evaluation.metrics.text_match import is_unspaced, normalized

_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_APART = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS = 32  # at most so many are taken out, by a slip of the published code
_CONTRACTED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd
it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll
somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll
they're they've 'twas wasn't we'd we've weren't what'll what're what's what've when's where'd where's where've who'd
who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_TWICE = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
there'd've they'd've we'd've wouldn't've y'all'll you'd've
"""


def _spellings() -> dict[str, str]:
    """Contractions without an apostrophe, or without one of two, to how they are written."""
    found = {one.replace("'", ""): one for one in _CONTRACTED.split()}
    for one in _TWICE.split():
        first, second, third = one.split("'")
        found |= {f"{first}{second}'{third}": one, f"{first}'{second}{third}": one}
    return found


_SPELLED = _spellings()
_LETTER = re.compile(r"[\s(\[\"'*]*([A-Za-z])(?=$|[.,:;)\]\"'*\n])")
_NAMED_LETTER = re.compile(r"\b(?:answer|option)\b(?:\s+is)?[\s:]*[(\[\"'*]*([A-Z])(?![^\W_])", re.IGNORECASE)


def vqa_clean(answer: str) -> str:
    """An answer as VQAv2's evaluation processes it: no punctuation and articles, numbers as digits, in lower case.

    Antol et al. (arXiv 1505.00468), in the form that LAVIS, and after it mBLIP, gives it.
    """
    text = answer.replace("\n", "").replace("\t", "").strip()
    plain, apart = text, _DIGITS_APART.search(text) is not None
    for sign in _PUNCTUATION:
        alone = f"{sign} " in text or f" {sign}" in text
        plain = plain.replace(sign, "" if alone or apart else " ")
    words = (_NUMBERS.get(word, word) for word in _PERIOD.sub("", plain, count=_PERIODS).lower().split())
    return " ".join(_SPELLED.get(word, word) for word in words if word not in _ARTICLES)


def exact_match(answer: str, answers: Sequence[str]) -> bool:
    """Whether an answer is one of the right ones, but for case and the blanks around it."""
    return _plain(answer) in map(_plain, answers)


def relaxed_match(answer: str, answers: Sequence[str]) -> bool:
    """Whether an answer begins or ends with one of the right ones, but for case and the blanks around it."""
    said = _plain(answer)
    return any(right and (said.startswith(right) or said.endswith(right)) for right in map(_plain, answers))


def named_letter(answer: str, options: Sequence[str], *, language: str) -> int | None:
    """Place of the option that an answer names by its letter, or else by its text; None where it is not clear.

    Letters are those that stand alone at its beginning (``B``, ``(b)``, ``B. a dog``) or behind "answer" or "option".

    Args:
        answer: What was written.
        options: At most 26 of them, called A, B, ...
        language: BCP 47 tag of the options.
    """
    letters = ascii_uppercase[: len(options)]
    found = _LETTER.match(answer.strip()) or _NAMED_LETTER.search(answer)
    if found and found[1].upper() in letters:
        return letters.index(found[1].upper())
    return named_option(answer, options, language=language)


def named_option(answer: str, options: Sequence[str], *, language: str) -> int | None:
    """Place of the option that an answer is, or begins with as whole words; None for none, or for equal ones.

    Of options that begin alike the longest counts. Case and punctuation make no difference.
    """
    said, spaced = normalized(answer), not is_unspaced(language)
    plain = [normalized(one) for one in options]
    fits = [one for one in plain if one and (said == one or said.startswith(f"{one} " if spaced else one))]
    if not fits:
        return None
    longest = max(fits, key=len)
    return plain.index(longest) if plain.count(longest) == 1 else None


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower().strip())
