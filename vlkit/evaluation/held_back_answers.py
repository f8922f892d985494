"""What training of a model that answers measures meanwhile: how likely the captions of concepts held back are to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from vlkit.errors import DataError
from vlkit.evaluation.abilities import ANSWERS
from vlkit.evaluation.held_back import check_able, kept_back
from vlkit.evaluation.metrics.ngrams import check_sacrebleu, chrf
from vlkit.evaluation.tasks.questions import asked_in, some_of
from vlkit.evaluation.tasks.task import choose_languages
from vlkit.languages import normalize
from vlkit.models.turns import prompts_of
from vlkit.spec.language import GenerationSpec
from vlkit.spec.recipe import Recipe
from vlkit.spec.training import HeldBackAnswersValidation
from vlkit.types import AnswersQuestions, Model, Question, Sample

_ANSWER = GenerationSpec(max_tokens=48)


class HeldBackAnswers:
    """Captions of the concepts held back, in each language, as answers about their images (``Evaluator``).

    What is asked is the plainest prompt of the recipe's ``data.prompts``; an image counts by its first caption.

    Raises:
        VlkitError: Nothing is kept back.
        DataError: No image that is kept back has a caption.
        UnknownName: None has one in a language asked for.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.spec = cast("HeldBackAnswersValidation", recipe.validation)
        self.prompts = prompts_of(recipe.data.prompts)
        self.samples, self.languages = captions_kept_back(recipe, limit=self.spec.limit, languages=self.spec.languages)
        if self.spec.written:
            check_sacrebleu()

    def __call__(self, model: Model) -> Mapping[str, Any]:
        """By language, and as means over languages, what was found.

        ``loss`` is the cross entropy in nats, the mean over captions of the mean over a caption's tokens; ``chrf`` that
        of the answers in 0..1, where they are written.

        Raises:
            VlkitError: The model does not answer questions.
        """
        check_able(model, ANSWERS, kind=self.spec.kind, instead="held_back")
        asked, size = cast("AnswersQuestions", model), self.spec.batch_size
        looked_at = asked.image_features([sample.image().convert("RGB") for sample in self.samples])
        found: dict[str, dict[str, float]] = {"loss": {}, **({"chrf": {}} if self.spec.written else {})}
        for tag in self.languages:
            pairs = [pair for pair in zip(self.samples, looked_at, strict=True) if pair[0].captions.get(tag)]
            known = [sample.captions[tag] for sample, _ in pairs]
            questions = [
                Question(self.prompts.choose(tag, task=sample.task, number=0), (tokens,), tag)
                for sample, tokens in pairs
            ]
            said_N2 = asked.log_likelihoods(questions, [texts[0] for texts in known], batch_size=size)
            found["loss"][tag] = float((-said_N2[:, 0] / said_N2[:, 1]).mean())
            if self.spec.written:
                answers = asked.answer(questions, generation=_ANSWER, batch_size=size)
                found["chrf"][tag] = sum(map(chrf, answers, known)) / len(known)
        return {**found, **{f"mean_{name}": sum(of.values()) / len(of) for name, of in found.items()}}


def captions_kept_back(
    recipe: Recipe, *, limit: int | None, languages: Sequence[str] | None
) -> tuple[list[Sample], tuple[str, ...]]:
    """Captioned images of the concepts that a recipe keeps back, and the languages that they are measured in.

    Raises:
        VlkitError: Nothing is kept back.
        DataError: No image that is kept back has a caption.
        UnknownName: None has one in a language asked for.
    """
    samples = some_of([one for one in kept_back(recipe) if one.images and any(one.captions.values())], limit)
    if not samples:
        raise DataError("validation: no image that is kept back has a caption; set validation to null")
    learned = {normalize(tag) for tag in recipe.data.languages or ()}
    had = [tag for tag in asked_in(samples) if not learned or tag in learned]
    return samples, choose_languages(languages, had, of="validation")
