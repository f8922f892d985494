"""What tasks need of a model, and whether it can: the one place in which evaluation asks what a model offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vlkit.errors import VlkitError
from vlkit.evaluation.embed.callables import TwoCallables
from vlkit.evaluation.embed.identity import answers_key, images_key, painter_key, texts_key
from vlkit.files import digest
from vlkit.types import AnswersQuestions, ForetellsCodes, GivesImagesBack, ImageTextModel, Painter, lacking


@dataclass(frozen=True)
class Ability:
    """Something that models can do.

    Attributes:
        does: In words, after "can" ("embed images and texts").
        protocols: A model of any of these can; the first one is what a model of one's own has to offer.
        tasks: What it can then be evaluated on.
        key: Digest of all that decides what a model gives, but the images and texts.
    """

    does: str
    protocols: tuple[type, ...]
    tasks: str
    key: Callable[[Any], str]

    def of(self, model: object) -> bool:
        """Whether a model can do it."""
        return not self.protocols or isinstance(model, self.protocols)


def _embedding_key(model: Any) -> str:
    return digest([images_key(model), texts_key(model)])


def _any_key(model: Any) -> str:
    keys = [ability.key(model) for ability in ABILITIES if ability.of(model)]
    return digest(keys or [images_key(model)])


EMBEDS = Ability(
    "embed images and texts", (ImageTextModel, TwoCallables), "tasks of kind zero_shot or retrieval", _embedding_key
)
ANSWERS = Ability(
    "answer questions about images",
    (AnswersQuestions,),
    "tasks of kind captioning, choices, presence or questions",
    answers_key,
)
GIVES_BACK = Ability("turn images into codes and back", (GivesImagesBack,), "tasks of kind reconstruction", images_key)
PAINTS = Ability("make images from texts", (Painter,), "tasks of kind generation", painter_key)
FORETELLS = Ability("foretell codes of images", (ForetellsCodes,), "tasks of kind generation", painter_key)
ABILITIES = (EMBEDS, ANSWERS, GIVES_BACK, PAINTS)
ANYTHING = Ability("do what its own tasks ask for", (), "tasks of its own kind", _any_key)
"""Of tasks that look at the model themselves."""


def require(model: object, ability: Ability, *, of: str) -> None:
    """Refuses a model that cannot do what is needed.

    Raises:
        VlkitError: It cannot; the message says what it lacks, and what it can do. ``of`` is what needs it.
    """
    if ability.of(model):
        return
    can = [one for one in ABILITIES if one.of(model)]
    found = f"it can {' and '.join(one.does for one in can)}: " if can else ""
    tasks = ", ".join(one.tasks for one in can) or ANYTHING.tasks
    raise VlkitError(
        f"a {type(model).__name__} does not {ability.does}, as {of} needs (it has no "
        f"{', '.join(lacking(model, ability.protocols[0]))}); {found}evaluate it on {tasks}"
    )
