"""CIDEr-D, ROUGE-L and BLEU of captions as pycocoevalcap counts them, without Java: what papers give for captions.

All three look at words (``caption_words``). N images, S statistics of BLEU, R resamples, K orders of n-grams.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlkit.errors import DataError

Floats = npt.NDArray[np.float64]
Words = Sequence[str]
ORDERS = 4
_SIGMA = 6.0  # of CIDEr-D's penalty of other lengths
_BETA = 1.2  # of ROUGE-L: how much recall weighs
_TINY, _SMALL = 1e-15, 1e-9  # what BLEU adds to counts of right n-grams, and to counts of all


class _Vector(NamedTuple):
    """Tf-idf of the n-grams of one text, by order."""

    weights: list[dict[Words, float]]
    norms: list[float]
    length: int


class CaptionReferences:
    """The right captions of N images in one language, to score answers by; n-grams are weighed by how rare they are.

    CIDEr-D (Vedantam et al., arXiv 1411.5726, equations 1 to 4 and section 5.2) as it is published: sigma 6, n of 1 to
    4, times 10. The document of an n-gram's frequency is an image with all its references, so a figure belongs to these
    N images: a subset of them has other weights, and of one image alone CIDEr-D is 0.

    Args:
        references: One or more captions of each image.
        words: Cuts a text into words.

    Raises:
        DataError: An image without a reference.
    """

    def __init__(self, references: Sequence[Sequence[str]], words: Callable[[str], Words]) -> None:
        if 0 in (counts := list(map(len, references))):
            raise DataError(f"image {counts.index(0)} of {len(counts)} has no reference; leave it out")
        self._cut = words
        self._words = [[tuple(words(one)) for one in known] for known in references]
        self._counts = [[_counts(one) for one in known] for known in self._words]
        self._documents = Counter(gram for known in self._counts for gram in set().union(*known))
        self._images = math.log(len(references)) if references else 0.0
        self._vectors = [[self._vector(one) for one in known] for known in self._counts]

    def cider(self, answers: Sequence[str]) -> Floats:
        """CIDEr-D [N] of each answer, in 0..10: the mean over its references. That of all answers is the mean."""
        found = []
        for answer, known in zip(answers, self._vectors, strict=True):
            said = self._vector(_counts(tuple(self._cut(answer))))
            found.append(10 * sum(_likeness(said, one) for one in known) / len(known))
        return np.array(found, dtype=np.float64)

    def rouge_l(self, answers: Sequence[str]) -> Floats:
        """ROUGE-L [N] of each answer, in 0..1 (Lin 2004): F of the best precision and the best recall, beta 1.2."""
        pairs = zip(answers, self._words, strict=True)
        return np.array([_rouge(self._cut(answer) or ("",), known) for answer, known in pairs], dtype=np.float64)

    def bleu_statistics(self, answers: Sequence[str]) -> Floats:
        """What ``coco_bleu`` is made of [N, S]: right n-grams and n-grams for n of 1 to 4, and both lengths.

        An n-gram is right as often as the reference that has it most often has it; the length is that of the nearest
        reference, of two equally near ones the shorter.
        """
        rows = []
        for answer, known, counts in zip(answers, self._words, self._counts, strict=True):
            said = tuple(self._cut(answer))
            most: Counter[Words] = Counter()
            for one in counts:
                most |= one
            right = [0] * ORDERS
            for gram, count in (_counts(said) & most).items():
                right[len(gram) - 1] += count
            totals = [max(0, len(said) - order) for order in range(ORDERS)]
            nearest = min((abs(len(one) - len(said)), len(one)) for one in known)[1]
            rows.append([*right, *totals, len(said), nearest])
        return np.array(rows, dtype=np.float64).reshape(len(rows), 2 * ORDERS + 2)

    def _vector(self, counts: Counter[Words]) -> _Vector:
        weights: list[dict[Words, float]] = [{} for _ in range(ORDERS)]
        for gram, count in counts.items():
            rarity = self._images - math.log(max(1, self._documents[gram]))
            weights[len(gram) - 1][gram] = count * rarity
        norms = [math.sqrt(sum(weight * weight for weight in one.values())) for one in weights]
        # lengths are compared in pairs of words, as the published code does
        return _Vector(weights, norms, sum(count for gram, count in counts.items() if len(gram) == 2))


def coco_bleu(statistics_RS: Floats) -> Floats:
    """BLEU-1 to BLEU-4 [R, K] in 0..1 of summed statistics, for many resamples at once.

    Papineni et al. 2002 with the numbers that pycocoevalcap adds to counts, so that none is zero.
    """
    right_RK, total_RK = statistics_RS[:, :ORDERS], statistics_RS[:, ORDERS : 2 * ORDERS]
    said_R, wanted_R = statistics_RS[:, -2], statistics_RS[:, -1]
    log_RK = np.cumsum(np.log((right_RK + _TINY) / (total_RK + _SMALL)), axis=1) / np.arange(1, ORDERS + 1)
    ratio_R = (said_R + _TINY) / (wanted_R + _SMALL)
    with np.errstate(over="ignore"):
        brevity_R = np.minimum(0, 1 - 1 / ratio_R)
    scores_RK: Floats = np.exp(log_RK + brevity_R[:, None])
    return scores_RK


def _counts(words: Words) -> Counter[Words]:
    """How often each n-gram of 1 to 4 words occurs."""
    return Counter(
        words[start : start + order] for order in range(1, ORDERS + 1) for start in range(len(words) - order + 1)
    )


def _likeness(said: _Vector, wanted: _Vector) -> float:
    """Mean over orders of the cosine with counts clipped to the reference's, less for another length; in 0..1."""
    total = 0.0
    for weights, others, norm, other in zip(said.weights, wanted.weights, said.norms, wanted.norms, strict=True):
        if norm and other:
            shared = sum(min(one, others[gram]) * others[gram] for gram, one in weights.items() if gram in others)
            total += shared / (norm * other)
    return total / ORDERS * math.exp(-((said.length - wanted.length) ** 2) / (2 * _SIGMA**2))


def _rouge(said: Words, references: Sequence[Words]) -> float:
    precision = recall = 0.0
    for one in references:
        shared = _longest_common(said, one or ("",))
        precision, recall = max(precision, shared / len(said)), max(recall, shared / max(1, len(one)))
    below = recall + _BETA**2 * precision
    return (1 + _BETA**2) * precision * recall / below if below else 0.0


def _longest_common(one: Words, other: Words) -> int:
    """Length of the longest common subsequence, a row of the table at a time in the bits of one number (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(one)) - 1
    row = full
    for word in other:
        fitting = row & places.get(word, 0)
        row = ((row + fitting) | (row - fitting)) & full
    return len(one) - row.bit_count()
