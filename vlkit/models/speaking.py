"""The two things that users do with a model that answers questions: images in words, and one question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vlkit.image_prompts import QUESTION, question_prompts
from vlkit.models.image_input import listed
from vlkit.spec.language import GenerationSpec
from vlkit.spec.options import checked_options
from vlkit.types import AnswersQuestions, Question


class AsksForCaptions(AnswersQuestions, Protocol):
    """A model that knows by which prompts it was taught to put images into words."""

    caption_task: str


def caption_all(
    model: AsksForCaptions,
    images: Any,
    *,
    language: str,
    prompt: str | None,
    prefix: str,
    generation: Mapping[str, Any],
) -> str | list[str]:
    """See ``VisionLanguageModel.caption``."""
    question = prompt or question_prompts(model.caption_task, language)[0]
    questions = [Question(question, (one,), language=language, prefix=prefix) for one in listed(images)]
    found = model.answer(questions, generation=checked_options(GenerationSpec, generation, what="generation"))
    return found if isinstance(images, list | tuple) else found[0]


def ask_one(
    model: AnswersQuestions,
    images: Any,
    question: str,
    *,
    language: str | None,
    prefix: str,
    stream: Callable[[str], None] | None,
    generation: Mapping[str, Any],
) -> str:
    """See ``VisionLanguageModel.ask``."""
    given = () if images is None else tuple(listed(images))
    if language is not None:
        question = question_prompts("vqa", language)[0].replace(QUESTION, question)
    questions = [Question(question, given, language, prefix)]
    (found,) = model.answer(
        questions, generation=checked_options(GenerationSpec, generation, what="generation"), stream=stream
    )
    return found
