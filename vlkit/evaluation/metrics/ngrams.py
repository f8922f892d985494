"""chrF and BLEU of answers, by sacrebleu: figures that can be set beside published ones.

Texts are NFC. chrF is that of each answer against the reference that it is nearest to (Popović 2015; chrF++ with word
n-grams up to 2), BLEU that of all answers together against all references (Papineni et al. 2002), of which the length
nearest to the answer's counts. Both are in 0..1 here. S statistics of a text, N texts, R resamples.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import numpy.typing as npt

from vlkit import languages as language_table
from vlkit.errors import MissingPackage
from vlkit.evaluation.metrics.text_match import is_unspaced

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

WordOrder = Literal[0, 2]
Floats = npt.NDArray[np.float64]
_ORDER = 4  # of BLEU's longest n-grams
_CHINESE = ("Hans", "Hant")


def check_sacrebleu() -> None:
    """Refuses to begin without it.

    Raises:
        MissingPackage: sacrebleu is not installed.
    """
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        raise MissingPackage("sacrebleu", purpose="scoring answers by chrF and BLEU", extra="captions") from None


def chrf(answer: str, references: Sequence[str], *, word_order: WordOrder = 0) -> float:
    """ChrF (or chrF++) of one answer against the nearest of one or more references, in 0..1."""
    return float(_chrf(word_order).sentence_score(_nfc(answer), [_nfc(one) for one in references]).score) / 100


def corpus_chrf(answers: Sequence[str], references: Sequence[Sequence[str]], *, word_order: WordOrder = 0) -> float:
    """ChrF of N answers taken together, in 0..1, as sacrebleu gives it for a file: long texts weigh more."""
    columns = _columns(references)
    return float(_chrf(word_order).corpus_score([_nfc(one) for one in answers], columns).score) / 100


def bleu_tokenizer(language: str) -> str:
    """The tokenizer of sacrebleu that a language (BCP 47) is scored with.

    ``zh`` for Chinese, characters (``char``) for what is written without blanks, ``13a`` for all others.
    """
    if language_table.get(language).script in _CHINESE:
        return "zh"
    return "char" if is_unspaced(language) else "13a"


def bleu_statistics(answers: Sequence[str], references: Sequence[Sequence[str]], *, language: str) -> Floats:
    """What BLEU is made of for each answer, [N, S]: sums over answers give that of all of them (``bleu``).

    They are right n-grams and n-grams for n of 1 to 4, and the lengths of the answer and of the reference.
    """
    scorer, rows = _bleu(bleu_tokenizer(language)), []
    for answer, known in zip(answers, references, strict=True):
        found = scorer.corpus_score([_nfc(answer)], [[_nfc(one)] for one in known])
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    return np.array(rows, dtype=np.float64).reshape(len(rows), 2 * _ORDER + 2)


def bleu(statistics_RS: Floats) -> Floats:
    """BLEU [R] in 0..1 of summed statistics, for many resamples at once.

    The formula and the smoothing are sacrebleu's (``exp``: each order without a right n-gram counts as half of one, a
    quarter, ...; no right n-gram at all is 0).
    """
    said_R, wanted_R = statistics_RS[:, -2], statistics_RS[:, -1]
    right_R, halved_R = statistics_RS[:, :_ORDER].any(1), np.ones(len(statistics_RS))
    log_R = np.zeros(len(statistics_RS))
    for order in range(_ORDER):
        count_R, total_R = statistics_RS[:, order], statistics_RS[:, _ORDER + order]
        right_R &= total_R > 0
        halved_R = np.where(count_R > 0, halved_R, 2 * halved_R)
        log_R += np.log(np.where(count_R > 0, count_R, 1 / halved_R) / np.maximum(total_R, 1)) / _ORDER
    brevity_R = np.exp(np.minimum(0, 1 - wanted_R / np.maximum(said_R, 1)))
    scores_R: Floats = np.where(right_R, brevity_R * np.exp(log_R), 0)
    return scores_R


@lru_cache(maxsize=4)
def _chrf(word_order: WordOrder) -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=word_order)


@lru_cache(maxsize=4)
def _bleu(tokenizer: str) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, effective_order=False, force=True)


def _columns(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """References as sacrebleu takes them: the first of each text, the second of each, ..., None where there is none."""
    most = max(map(len, references), default=0)
    columns = [[_nfc(one[place]) if place < len(one) else None for one in references] for place in range(most)]
    return cast("list[list[str]]", columns)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
