"""Whether an answer says yes or no, by the words that a language has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from vlkit.evaluation.metrics.text_match import tokens
from vlkit.files import packaged
from vlkit.foreign import parse_yaml
from vlkit.spec.question_sets import YesNoWords

Verdict = Literal["yes", "no", ""]
_SIDES: tuple[Verdict, Verdict] = ("yes", "no")
Phrases = Mapping[tuple[str, ...], Verdict]


@lru_cache(maxsize=1)
def yes_no_words() -> dict[str, YesNoWords]:
    """Vlkit's own words of yes and no by BCP 47 tag (`data/yes_no_words.yaml`)."""
    path = packaged("data") / "yes_no_words.yaml"
    table = parse_yaml(path.read_text(encoding="utf-8"), where=str(path))
    return {tag: YesNoWords(yes=tuple(one["yes"]), no=tuple(one["no"])) for tag, one in table.items()}


class YesNoJudge:
    """Tells yes from no in one language.

    Texts are compared as ``text_match`` has it: without regard to case and punctuation, word by word, in languages
    without blanks character by character. An answer that begins with words of either side is on that side, the longest
    ones first ("不是" is no, "是" is yes); else one that holds words of one side alone. All other answers are neither.
    POPE's own judge (arXiv 2305.10355) takes whatever holds no "no" or "not" for yes.

    Args:
        words: Of the language.
        language: Its BCP 47 tag.
    """

    def __init__(self, words: YesNoWords, *, language: str) -> None:
        self.language = language
        self._phrases: dict[tuple[str, ...], Verdict] = {}
        for side, listed in zip(_SIDES, (words.yes, words.no), strict=True):
            self._phrases.update({tuple(tokens(one, language=language)): side for one in listed})
        self._phrases.pop((), None)
        self._longest = max(map(len, self._phrases), default=0)

    def __call__(self, answer: str) -> Verdict:
        """What the answer says; "" for neither."""
        said = tokens(answer, language=self.language)
        if first := self._at(said, 0)[0]:
            return first
        found, place = set[Verdict](), 0
        while place < len(said):
            side, length = self._at(said, place)
            found |= {side} if side else set()
            place += length
        return found.pop() if len(found) == 1 else ""

    def begins(self, answer: str) -> Verdict:
        """What the first words of the answer say; "" for neither."""
        return self._at(tokens(answer, language=self.language), 0)[0]

    def _at(self, said: Sequence[str], place: int) -> tuple[Verdict, int]:
        """The side of the longest phrase that stands at a place, and how many tokens it has; ("", 1) for none."""
        for length in range(min(self._longest, len(said) - place), 0, -1):
            if side := self._phrases.get(tuple(said[place : place + length])):
                return side, length
        return "", 1


@lru_cache(maxsize=1)
def _judges() -> dict[str, YesNoJudge]:
    return {tag: YesNoJudge(words, language=tag) for tag, words in yes_no_words().items()}


def other_language(answer: str, *, language: str) -> bool:
    """Whether the answer begins with yes or no in another language; ``language`` (BCP 47) is the one asked for."""
    return any(judge.begins(answer) for tag, judge in _judges().items() if tag != language)
