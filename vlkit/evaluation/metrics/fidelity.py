"""Whether an answer is in the language that was asked for.

Of names, which are too short for a language to be told by, the nearest known name decides; of sentences a language
identifier. A texts, M names, F n-grams.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vlkit import languages as language_table
from vlkit.errors import MissingPackage, UnknownName
from vlkit.evaluation.metrics.ngrams import chrf
from vlkit.registry import Registry

_ORDER, _BETA = 6, 2  # of chrF
_BLOCK = 64  # answers compared with all names at once
_EQUAL = 1e-9
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class LanguageIdentifier(Protocol):
    """Says in which language a text is."""

    @property
    def languages(self) -> frozenset[str]:
        """BCP 47 tags of the languages that it knows."""

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The tag of each text; "" where it is in none that is known."""


IDENTIFIERS = Registry("language identifier", {"py3langid": "vlkit.evaluation.metrics.fidelity:Py3LangId"})
"""Name to a class without arguments that is a ``LanguageIdentifier``."""


class Py3LangId:
    """py3langid (Lui and Baldwin's langid.py, 2012): a naive Bayes model of bytes, 140 languages.

    Good for sentences; of one or two words it is a guess.

    Raises:
        MissingPackage: py3langid is not installed.
    """

    def __init__(self) -> None:
        try:
            from py3langid.langid import MODEL_FILE
            from py3langid.langid import LanguageIdentifier as Bayes
        except ImportError:
            purpose = "telling the language of sentences"
            raise MissingPackage("py3langid", purpose=purpose, extra="captions") from None
        self._known = Bayes.from_model_file(MODEL_FILE)

    @property
    def languages(self) -> frozenset[str]:
        """Tags of its labels, but for those that the language table does not have."""
        return frozenset(filter(None, map(_tag, self._known.labels)))

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The likeliest language of each text; "" for an empty one."""
        return [_tag(self._known.classify(text)[0]) if text.strip() else "" for text in texts]


def _tag(label: str) -> str:
    try:
        return language_table.normalize(label)
    except UnknownName:
        return ""


def one_language(tag: str) -> str:
    """A tag without script and region: identifiers of languages do not tell those apart."""
    return tag.partition("-")[0]


def identified(identifier: LanguageIdentifier, answers: Sequence[str], *, language: str) -> tuple[Bools, Bools] | None:
    """Which answers are in a language (BCP 47; scripts and regions are not told apart), and which in another one.

    None where the language is not known; empty answers are in none.
    """
    wanted = one_language(language)
    if wanted not in map(one_language, identifier.languages):
        return None
    found = [one_language(tag) for tag in identifier(answers)]
    own_A = np.array([tag == wanted for tag in found], dtype=bool)
    return own_A, np.array([tag not in ("", wanted) for tag in found], dtype=bool)


class NearestNames:
    """The names that there are in several languages, to find out whose names an answer is nearest to by chrF.

    chrF is that of sacrebleu, here for many pairs at once: n-grams are counted in unary (the second "na" of "banana" is
    an n-gram of its own), so that the n-grams that two texts share are a product of sparse matrices.

    Args:
        names: Language (BCP 47) to all of its names.
    """

    def __init__(self, names: Mapping[str, Iterable[str]]) -> None:
        owners: dict[str, set[str]] = {}
        for tag, listed in names.items():
            for name in listed:
                owners.setdefault(_joined(name), set()).add(tag)
        owners.pop("", None)
        rows: dict[str, list[int]] = {tag: [] for tag in names}
        for row, tags in enumerate(owners.values()):
            for tag in tags:
                rows[tag].append(row)
        self._owned = {tag: np.array(some, dtype=np.int64) for tag, some in rows.items()}
        self._orders = [_Grams(list(owners), order) for order in range(1, _ORDER + 1)]

    def best(self, answers: Sequence[str]) -> dict[str, Floats]:
        """By language the chrF [A] in 0..1 of each answer with the nearest name of that language; 0 without a name."""
        best = {tag: np.zeros(len(answers)) for tag in self._owned}
        for start in range(0, len(answers), _BLOCK):
            block = slice(start, start + _BLOCK)
            score_AM = self._score([_joined(one) for one in answers[block]])
            for tag, owned in self._owned.items():
                if len(owned):
                    best[tag][block] = score_AM[:, owned].max(1)
        return best

    def _score(self, answers: Sequence[str]) -> Floats:
        """ChrF [A, M] of each answer with each name: mean precision and recall over the orders that both have."""
        precision_AM, recall_AM, orders_AM = (np.zeros((len(answers), self._orders[0].matrix.shape[0])) for _ in "PRO")
        for one in self._orders:
            said_A1, shared_AM = one.shared(answers)
            both_AM = (said_A1 > 0) & (one.count_M > 0)
            precision_AM += shared_AM / np.maximum(said_A1, 1)
            recall_AM += shared_AM / np.maximum(one.count_M, 1)
            orders_AM += both_AM
        precision_AM /= np.maximum(orders_AM, 1)
        recall_AM /= np.maximum(orders_AM, 1)
        below_AM = _BETA**2 * precision_AM + recall_AM
        return (1 + _BETA**2) * precision_AM * recall_AM / np.where(below_AM > 0, below_AM, 1)


@lru_cache(maxsize=2)
def nearest_names(names: tuple[tuple[str, tuple[str, ...]], ...]) -> NearestNames:
    """``NearestNames`` of languages with their names; tasks on one source share it."""
    return NearestNames(dict(names))


class _Grams:
    """The n-grams of one order of M names."""

    def __init__(self, names: Sequence[str], order: int) -> None:
        self.order, self._place = order, dict[str, int]()
        grams = [_unary(name, order) for name in names]
        for gram in (gram for found in grams for gram in found):
            self._place.setdefault(gram, len(self._place))
        self.count_M = np.array(list(map(len, grams)), dtype=np.float64)
        self.matrix = self._rows(grams)

    def shared(self, answers: Sequence[str]) -> tuple[Floats, Floats]:
        """How many n-grams each answer has [A, 1], and how many of them each name has too [A, M]."""
        grams = [_unary(answer, self.order) for answer in answers]
        shared_AM: Floats = (self._rows(grams) @ self.matrix.T).toarray()
        return np.array(list(map(len, grams)), dtype=np.float64)[:, None], shared_AM

    def _rows(self, grams: Sequence[Sequence[str]]) -> Any:
        """[T, F] with 1 where a text has an n-gram; those of no name are left out."""
        from scipy.sparse import csr_matrix

        columns = [[self._place[gram] for gram in found if gram in self._place] for found in grams]
        ends = np.cumsum([0, *map(len, columns)])
        flat = np.array([column for found in columns for column in found], dtype=np.int64)
        return csr_matrix((np.ones(len(flat)), flat, ends), shape=(len(grams), max(1, len(self._place))))


def nearest(best: Mapping[str, Floats], *, language: str) -> tuple[Bools, Bools]:
    """Which of A answers are nearest to the language, and which to another one, of the chrF [A] with each's names.

    No other language's name is nearer, and there is something in common at all: a name that several languages share
    counts for each of them, and an answer that shares no character with any name counts for none.
    """
    own_A, others = best[language], [one for tag, one in best.items() if tag != language]
    nearer_A = np.max(others, axis=0) > own_A + _EQUAL if others else np.zeros(len(own_A), dtype=bool)
    return (own_A > 0) & ~nearer_A, nearer_A


def nearest_of_image(answer: str, captions: Mapping[str, Sequence[str]], *, language: str) -> bool:
    """``nearest`` among the captions of one image, by language."""
    own = chrf(answer, captions[language])
    if own == 0:
        return False
    letters = set(_joined(answer))
    return not any(
        chrf(answer, near) > own + _EQUAL
        for tag, texts in captions.items()
        if tag != language and (near := [text for text in texts if letters & set(_joined(text))])
    )


def _joined(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", text).split())


def _unary(text: str, order: int) -> list[str]:
    """The n-grams of a text, those that are not the first of their kind with how many stand before them."""
    grams = [text[start : start + order] for start in range(len(text) - order + 1)]
    if len(set(grams)) == len(grams):
        return grams
    seen: Counter[str] = Counter()
    for place, gram in enumerate(grams):
        grams[place] = f"{gram} {seen[gram]}" if seen[gram] else gram  # a blank is in no n-gram
        seen[gram] += 1
    return grams
