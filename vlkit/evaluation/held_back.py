"""What training measures meanwhile: zero-shot accuracy on the concepts that a recipe keeps back from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, cast

from vlkit.data.sources.combine import SampleList, identities
from vlkit.data.sources.open import VALIDATION, open_sources
from vlkit.errors import VlkitError
from vlkit.evaluation.abilities import EMBEDS, Ability
from vlkit.evaluation.embed.encode import Embedder
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.tasks.engine import score_task
from vlkit.evaluation.tasks.task import left_out_notes
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask
from vlkit.models.registry import module_of
from vlkit.spec.recipe import Recipe
from vlkit.spec.training import HeldBackValidation
from vlkit.types import Model, Sample

log = logging.getLogger(__name__)


class HeldBack:
    """Images of the concepts held back, each to be told from all others by name, in each language (``Evaluator``).

    What frozen parts give is remembered from one measurement to the next. Every image of a concept counts; a concept's
    names in a language are those of the first of its images that has any. Of the recipe, ``data.holdout_concepts`` says
    how many concepts are kept back, ``validation`` in which languages.

    Raises:
        VlkitError: Nothing is kept back.
        DataError: No concept has a name in a language asked for.
    """

    def __init__(self, recipe: Recipe) -> None:
        spec = cast("HeldBackValidation", recipe.validation)
        self.task = _task(kept_back(recipe), spec.languages or recipe.data.languages)
        self.encoding = Encoding(quiet=True)

    def __call__(self, model: Model) -> Mapping[str, Any]:
        """Top-1 accuracy in 0..1 by language, and their mean.

        Raises:
            VlkitError: The model does not embed images and texts.
        """
        check_able(model, EMBEDS, kind="held_back", instead="held_back_answers")
        frozen = module_of(model.spec.kind, "frozen")
        with nullcontext() if frozen is None else frozen.remembering(model, frozen_only=True):
            scores = score_task(cast("Embedder", model), self.task, answers=0, encoding=self.encoding).languages
        found = {tag: float((one.rank_N == 1).double().mean()) for tag, one in scores.items()}
        return {"acc1": found, "mean_acc1": sum(found.values()) / len(found)}


def kept_back(recipe: Recipe) -> list[Sample]:
    """The samples of the concepts that a recipe keeps back.

    Raises:
        VlkitError: It keeps nothing back.
    """
    if not recipe.data.holdout_concepts:
        kind = recipe.validation and recipe.validation.kind
        raise VlkitError(
            f"validation.kind = {kind} measures on the concepts that data.holdout_concepts keeps back, and that is 0; "
            "set data.holdout_concepts=100, say, or validation to null"
        )
    source = open_sources(recipe.data, split=VALIDATION)
    return [source[index] for index in range(len(source))]


def check_able(model: Model, ability: Ability, *, kind: str, instead: str) -> None:
    """Refuses a model that a kind of validation cannot measure.

    Raises:
        VlkitError: It cannot do what is needed.
    """
    if not ability.of(model):
        raise VlkitError(
            f"validation.kind = {kind} needs a model that can {ability.does}, and a {model.spec.kind} cannot; take "
            f"kind {instead}, or set validation to null"
        )


def _task(samples: list[Sample], languages: tuple[str, ...] | None) -> ZeroShotTask:
    concepts: dict[str, int] = {}
    targets = [concepts.setdefault(shown, len(concepts)) for shown in identities(SampleList(samples))]
    names: dict[str, list[tuple[str, ...] | None]] = {}
    for sample, target in zip(samples, targets, strict=True):
        for tag, captions in sample.captions.items():
            listed = names.setdefault(tag, [None] * len(concepts))
            listed[target] = listed[target] or captions
    whole = ZeroShotTask("held_back", samples, names, targets)
    for note in left_out_notes(whole.left_out, languages):
        log.warning("validation: %s", note)
    return ZeroShotTask("held_back", samples, {tag: names[tag] for tag in whole.choose(languages)}, targets)
