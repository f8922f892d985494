"""What is measured of answers to questions: by how they are answered, and whether there are options to choose from.

N questions of a language, O options of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vlkit.data.questions.question_records import ImageQuestion
from vlkit.evaluation.metrics.fidelity import (
    IDENTIFIERS,
    LanguageIdentifier,
    NearestNames,
    identified,
    nearest,
    nearest_names,
)
from vlkit.evaluation.metrics.question_match import exact_match, named_letter, named_option, relaxed_match, vqa_clean
from vlkit.evaluation.metrics.share_estimates import ShareEstimate, share_estimates
from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.tasks.controls import control_measures
from vlkit.spec.evaluation import Control

Figures = dict[str, npt.NDArray[np.float64]]
Answering = Literal["generate", "letters", "likelihood"]
_TITLES = {
    "accuracy": ("accuracy", "accuracy"),
    "accuracy_per_token": ("accuracy per token", ""),
    "accuracy_gain": ("accuracy by gain over no image", ""),
    "exact_match": ("exact match", "exact"),
    "relaxed_match": ("relaxed match", "relaxed"),
    "fidelity": ("fidelity", "fidelity"),
    "wrong_language": ("wrong language", ""),
    "unclear": ("names no option", ""),
}
_AROUND = " ()[].:*\"'\n\t"  # of a letter
_WRITTEN = ("exact_match", "relaxed_match")
_FIGURES: Mapping[tuple[Answering, bool], tuple[str, ...]] = {
    ("generate", False): (*_WRITTEN, "fidelity", "wrong_language"),
    ("generate", True): ("accuracy", *_WRITTEN, "unclear"),
    ("letters", True): ("accuracy", *_WRITTEN, "unclear"),
    ("likelihood", True): ("accuracy", "accuracy_per_token", "accuracy_gain"),
}
_EXPLAINED: Mapping[Answering, str] = {
    "generate": "Exact match: the answer is one of the right ones, but for case; relaxed match: it begins or ends with "
    "one, as mBLIP and Centurio have it.",
    "letters": "Exact match: the answer is the letter of the right option alone; relaxed match: it begins with it.",
    "likelihood": "Accuracy: the right option has the highest log-likelihood as the answer; per token: the mean over "
    "its tokens has; by gain: the difference to its log-likelihood without the image has. Equal ones count as "
    "likelier.",
}


def _measures(answering: Answering, closed: bool) -> Measures:
    names = _FIGURES[answering, closed]
    lead, metrics = names[0], dict[str, Measure]()
    for name in names:
        title, short = _TITLES[name]
        metrics[name] = Measure(title, short, low=f"{name}_ci_low", high=f"{name}_ci_high")
    metrics |= control_measures({one: _TITLES[one][0] for one in names if one in (lead, *_WRITTEN)}, lead=lead)
    if closed:
        metrics["chance"] = Measure("chance")
    fidelity = (
        " Fidelity: no right answer in another language, of all the answers there are, is nearer to what was said than "
        "one in the language asked for; or, where an identifier of languages is set, what that takes the answer for. "
        "Wrong language: one in another language is nearer."
    )
    chosen = " Accuracy: the answer names the right option, and no other before it." if closed else fidelity
    return Measures(
        kind="questions",
        headline=lead,
        metrics=metrics,
        bars=(lead, "relaxed_match") if answering == "generate" else (lead,),
        chance="chance" if closed else "",
        gain=f"{lead}_over_no_image",
        alike={"n_questions": "questions", "n_images": "images"},
        table="questions" if not closed else "questions-closed",
        explained=_EXPLAINED[answering]
        + ("" if answering == "likelihood" else chosen)
        + " Without the image, about a grey one and about another question's the model is asked the same. Intervals "
        "resample images, then the questions about each.",
    )


MEASURES: Mapping[tuple[Answering, bool], Measures] = {key: _measures(*key) for key in _FIGURES}
"""Figures in 0..1 by how it is answered, and whether there are options; ``chance`` is 1 / options, on average."""


def question_values(
    measures: Measures, each: Figures, unseen: Mapping[Control, Figures], *, groups: Sequence[int], seed: int
) -> dict[str, float]:
    """All figures of one language with their intervals, and those of its controls; NaN for what was not measured.

    Args:
        measures: Which there are.
        each: By name a figure [N] of each answer.
        unseen: The same of controls.
        groups: Numbers that answers share which stand or fall together, [N].
        seed: Of the resampling.
    """
    own, _ = share_estimates(each, groups, against={}, seed=seed)
    found: dict[str, float] = {}
    estimates: dict[str, ShareEstimate] = dict(own)
    for side, figures in unseen.items():
        compared = {name: one for name, one in figures.items() if f"{name}_over_{side}" in measures.metrics}
        for name, gap in share_estimates(each, groups, against=compared, seed=seed)[1].items():
            estimates[f"{name}_over_{side}"] = gap
            found[f"{name}_{side}"] = float(figures[name].mean())
    for name, one in measures.metrics.items():
        known = estimates.get(name)
        low, high = (math.nan, math.nan) if known is None else known.interval
        found.setdefault(name, math.nan if known is None else known.value)
        found |= {end: value for end, value in ((one.low, low), (one.high, high)) if end}
    return found


def written_figures(
    questions: Sequence[ImageQuestion], said: Sequence[str], *, letters: bool, clean: bool, judge: LanguageJudge | None
) -> Figures:
    """By name each figure [N] of answers in words, or by letters, to N questions of one language.

    Args:
        questions: What was asked.
        said: What was written.
        letters: Options were called A, B, ..., and their letter was asked for.
        clean: VQAv2's processing goes over answers in English.
        judge: Says which are in the language asked for; None where there are options, of which one is named or is not.
    """
    pairs = list(zip(questions, said, strict=True))
    if letters:
        plain = [(text.strip(_AROUND).lower(), ascii_uppercase[one.right].lower()) for one, text in pairs]
        exact, relaxed = [a == b for a, b in plain], [a.startswith(b) for a, b in plain]
    else:
        texts = [(one, vqa_clean(text) if clean and one.answer_language == "en" else text) for one, text in pairs]
        exact = [exact_match(text, one.answers) for one, text in texts]
        relaxed = [relaxed_match(text, one.answers) for one, text in texts]
    found: dict[str, npt.ArrayLike] = {"exact_match": exact, "relaxed_match": relaxed}
    if judge is None:
        lettered = letters or all(set(one.options) <= set(ascii_uppercase) for one in questions)
        name = named_letter if lettered else named_option
        chosen = [name(text, one.options, language=one.answer_language) for one, text in pairs]
        right = [place == one.right for place, one in zip(chosen, questions, strict=True)]
        found = {"accuracy": right, **found, "unclear": [place is None for place in chosen]}
    else:
        found |= judge.faithful(said, questions[0].answer_language)
    return {key: np.asarray(values, dtype=np.float64) for key, values in found.items()}


def likelihood_figures(
    questions: Sequence[ImageQuestion], weighed: Sequence[Any], *, blank: Sequence[Any] | None
) -> Figures:
    """By name each figure [N]: whether the right option is the likeliest; one that is as likely counts as likelier.

    Args:
        questions: What was asked.
        weighed: For each the log-likelihood and number of tokens of every option, [O, 2].
        blank: The same without an image; None where it was not asked for.
    """
    found: dict[str, list[bool]] = {"accuracy": [], "accuracy_per_token": [], "accuracy_gain": []}
    for place, one in enumerate(questions):
        pair_O2 = np.asarray(weighed[place], dtype=np.float64)
        scores = [pair_O2[:, 0], pair_O2[:, 0] / np.maximum(pair_O2[:, 1], 1)]
        if blank is not None:
            scores.append(pair_O2[:, 0] - np.asarray(blank[place], dtype=np.float64)[:, 0])
        for name, score_O in zip(found, scores, strict=False):
            found[name].append(int((score_O >= score_O[one.right]).sum()) == 1)
    return {name: np.asarray(values, dtype=np.float64) for name, values in found.items() if values}


@dataclass(frozen=True)
class LanguageJudge:
    """What tells whether answers are in the language that was asked for."""

    names: NearestNames | None
    identifier: LanguageIdentifier | None

    @classmethod
    def of(cls, questions: Sequence[ImageQuestion], identifier: str | None) -> LanguageJudge:
        """Knows the right answers of some questions, or the identifier of that name."""
        if identifier is not None:
            return cls(None, IDENTIFIERS.get_object(identifier)())
        known: dict[str, dict[str, None]] = {}
        for one in questions:
            known.setdefault(one.answer_language, {}).update(dict.fromkeys(one.answers))
        return cls(nearest_names(tuple((tag, tuple(sorted(known[tag]))) for tag in sorted(known))), None)

    def faithful(self, said: Sequence[str], language: str) -> dict[str, npt.ArrayLike]:
        """Which of N answers are in a language, which in another; nothing where the identifier does not know it."""
        found = None if self.identifier is None else identified(self.identifier, said, language=language)
        if self.names is not None:
            found = nearest(self.names.best(list(said)), language=language)
        return {} if found is None else {"fidelity": found[0], "wrong_language": found[1]}
