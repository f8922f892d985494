"""All that is measured of the answers in one language: figures of each answer, of all together, and their intervals.

N answers, K columns of sums that figures are made of, S statistics of BLEU, C those of COCO's BLEU, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from vlkit.evaluation.metrics import ngrams
from vlkit.evaluation.metrics.caption_scores import ORDERS, CaptionReferences, coco_bleu
from vlkit.evaluation.metrics.intervals import Interval, percentiles, resampled_sums, wilson_interval
from vlkit.evaluation.metrics.text_match import exact_match, keywords_found, token_f1

Floats = npt.NDArray[np.float64]
_Figure = Callable[[Floats], Floats]
SHARES = ("exact_match", "fidelity", "wrong_language", "fidelity_same_image")  # an answer has it or not


@dataclass(frozen=True)
class Wanted:
    """What N answers in a language (BCP 47) are measured against.

    Attributes:
        references: One or more right answers for each.
        keywords: Words that each should hold; often none.
        concepts: Numbers that answers to images of one thing share.
        chrf_words: Longest word n-grams of chrF.
        captions: The references as words, where sentences are measured: by CIDEr-D, ROUGE-L and both kinds of BLEU.
    """

    language: str
    references: Sequence[Sequence[str]]
    keywords: Sequence[Sequence[str]]
    concepts: Sequence[int]
    chrf_words: ngrams.WordOrder = 0
    captions: CaptionReferences | None = None


@dataclass(frozen=True)
class AnswerFigures:
    """Figures of N answers.

    Attributes:
        each: By name the figure [N] of each answer, in 0..1 (``cider`` in 0..10, ``length`` in characters); figures of
            all are the means.
        found: How many keywords each holds, and how many it should [2, N].
        bleu: Statistics of each, [N, S]; S is 0 where BLEU is not measured.
        coco: Those of COCO's BLEU, [N, C]; C is 0 likewise.
    """

    each: Mapping[str, Floats]
    found: Floats
    bleu: Floats
    coco: Floats

    def sums(self) -> Floats:
        """Columns [N, K], of which every figure of all answers is a function of the sum."""
        return np.column_stack([np.ones(self.found.shape[1]), *self.each.values(), *self.found, self.bleu, self.coco])

    def figures(self) -> dict[str, _Figure]:
        """By name how to make a figure [R] out of sums [R, K]."""
        names = list(self.each)
        made: dict[str, _Figure] = {name: partial(_ratio, over=0, of=place + 1) for place, name in enumerate(names)}
        first = len(names) + 1
        if self.found[1].any():
            made["keyword_accuracy"] = partial(_ratio, over=first + 1, of=first)
        if self.bleu.shape[1]:
            size = self.bleu.shape[1]
            made["bleu"] = partial(_bleu, first=first + 2, size=size)
            made |= {f"bleu_coco_{n + 1}": partial(_coco, first=first + 2 + size, order=n) for n in range(ORDERS)}
        return made


def measure(answers: Sequence[str], wanted: Wanted, more: Mapping[str, npt.ArrayLike]) -> AnswerFigures:
    """Measures N answers; ``more`` are further figures [N] of each, by name."""
    tag, references = wanted.language, wanted.references
    pairs = list(zip(answers, references, strict=True))
    found = [keywords_found(one, words, language=tag) for one, words in zip(answers, wanted.keywords, strict=True)]
    each: dict[str, npt.ArrayLike] = {
        "chrf": [ngrams.chrf(one, known, word_order=wanted.chrf_words) for one, known in pairs],
        "token_f1": [token_f1(one, known, language=tag) for one, known in pairs],
        "exact_match": [exact_match(one, known) for one, known in pairs],
        **more,
        "length": [len(one) for one in answers],
    }
    statistics = coco = np.zeros((len(pairs), 0))
    if wanted.captions is not None:
        each |= {"cider": wanted.captions.cider(answers), "rouge_l": wanted.captions.rouge_l(answers)}
        coco = wanted.captions.bleu_statistics(answers)
        statistics = ngrams.bleu_statistics(answers, references, language=tag)
    return AnswerFigures(
        {name: np.asarray(values, dtype=np.float64) for name, values in each.items()},
        np.array([found, list(map(len, wanted.keywords))], dtype=np.float64),
        statistics,
        coco,
    )


@dataclass(frozen=True)
class FigureEstimate:
    """A figure and its 95 % interval."""

    value: float
    interval: Interval


def estimates(
    figures: AnswerFigures, concepts: Sequence[int], *, against: Mapping[str, AnswerFigures], seed: int
) -> tuple[dict[str, FigureEstimate], dict[str, dict[str, FigureEstimate]]]:
    """All figures with intervals, and by the name of each control the differences to it: paired, of one resampling.

    Concepts are resampled, then images inside each. A share that is 0 or 1 has the Wilson interval.
    """
    sides = {"": figures, **against}
    columns, first = {name: side.sums() for name, side in sides.items()}, 0
    drawn_RK = resampled_sums(np.concatenate(list(columns.values()), axis=1), concepts, seed=seed)
    values: dict[str, dict[str, float]] = {}
    replicates: dict[str, dict[str, Floats]] = {}
    for name, side in sides.items():
        part = slice(first, first := first + columns[name].shape[1])
        whole_1K = columns[name].sum(0, keepdims=True)
        values[name] = {figure: float(make(whole_1K)[0]) for figure, make in side.figures().items()}
        replicates[name] = {figure: make(drawn_RK[:, part]) for figure, make in side.figures().items()}
    own = {
        name: FigureEstimate(value, _interval(name, value, replicates[""][name], len(concepts)))
        for name, value in values[""].items()
    }
    gaps = {
        control: {
            name: FigureEstimate(
                value - values[control][name], percentiles(replicates[""][name] - replicates[control][name])
            )
            for name, value in values[""].items()
            if name in values[control]
        }
        for control in against
    }
    return own, gaps


def _interval(name: str, value: float, drawn_R: Floats, count: int) -> Interval:
    return wilson_interval(round(value * count), count) if name in SHARES and value in (0, 1) else percentiles(drawn_R)


def _ratio(sums_RK: Floats, *, over: int, of: int) -> Floats:
    below_R = sums_RK[:, over]
    return np.where(below_R > 0, sums_RK[:, of] / np.where(below_R > 0, below_R, 1), math.nan)


def _bleu(sums_RK: Floats, *, first: int, size: int) -> Floats:
    return ngrams.bleu(sums_RK[:, first : first + size])


def _coco(sums_RK: Floats, *, first: int, order: int) -> Floats:
    found_R: Floats = coco_bleu(sums_RK[:, first:])[:, order]
    return found_R
