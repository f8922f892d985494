"""A vision-language model in use: images in words, questions answered, and how likely an answer is.

Shapes: N questions or images, K image tokens, T their width, B rows, L read tokens, E width, R places with a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from vlkit.errors import VlkitError
from vlkit.foreign import clean
from vlkit.models.image_input import read_given
from vlkit.models.trainable import in_eval
from vlkit.models.vision_language.batch import DialogueRow, collate
from vlkit.models.vision_language.dialogue import Laid
from vlkit.spec.language import GenerationSpec
from vlkit.types import Question, TextBatch, Turn

if TYPE_CHECKING:
    from vlkit.models.vision_language.model import VisionLanguageModel

_IMAGES = 16  # of a forward pass


@torch.no_grad()
def image_features(model: VisionLanguageModel, images: Sequence[Any]) -> list[Tensor]:
    """See ``types.AnswersQuestions``; float32 on the CPU."""
    found: list[Tensor] = []
    with in_eval(model):
        for start in range(0, len(images), _IMAGES):
            pixels = [model.transform(read_given(image)) for image in images[start : start + _IMAGES]]
            found += model.tokens_of_pixels(torch.stack(pixels)).float().cpu().unbind()
    return found


@torch.no_grad()
def answer(
    model: VisionLanguageModel,
    questions: Sequence[Question],
    *,
    generation: GenerationSpec | None,
    batch_size: int,
    stream: Callable[[str], None] | None,
) -> list[str]:
    """See ``types.AnswersQuestions``."""
    generation = generation or GenerationSpec()
    if stream is not None and len(questions) != 1:
        raise VlkitError(f"stream shows one answer as it is written, and there are {len(questions)} questions")
    layout, found = model.layout, [""] * len(questions)
    with in_eval(model):
        laid = [
            layout.asked(_asked(question, number), images=len(question.images), where=_where(number))
            for number, question in enumerate(questions)
        ]
        rows = _rows(model, questions, laid)
        for (language, prefix), numbers in _groups(questions, generation).items():
            for chosen in _by_length(numbers, rows, batch_size):
                batch = collate([rows[number] for number in chosen], layout, looked_up=True)
                embeddings_BLE = model.read(batch)
                begun = torch.tensor([layout.prefix(prefix)] * len(chosen), device=embeddings_BLE.device)
                texts = model.language_model.generate(
                    embeddings_BLE,
                    batch.mask_BL.to(embeddings_BLE.device),
                    generation=generation,
                    prefix=TextBatch(begun, torch.ones_like(begun)) if prefix else None,
                    language=language,
                    stream=stream,
                )
                for number, text in zip(chosen, texts, strict=True):
                    found[number] = text.strip()
    return found


@torch.no_grad()
def log_likelihoods(
    model: VisionLanguageModel, questions: Sequence[Question], answers: Sequence[str], *, batch_size: int
) -> Tensor:
    """See ``types.AnswersQuestions``."""
    if len(questions) != len(answers):
        raise VlkitError(f"there are {len(questions)} questions and {len(answers)} answers; give one for each")
    layout, found_N2 = model.layout, torch.zeros(len(questions), 2)
    laid = [
        layout.answered(_asked(question, number), clean(text), images=len(question.images), where=_where(number))
        for number, (question, text) in enumerate(zip(questions, answers, strict=True))
    ]
    with in_eval(model):
        rows = _rows(model, questions, laid)
        for chosen in _by_length(range(len(rows)), rows, batch_size):
            said = model(collate([rows[number] for number in chosen], layout, looked_up=True))
            losses_R = functional.cross_entropy(model.logits(said.states_RE).float(), said.labels_R, reduction="none")
            sums_B = torch.zeros(len(chosen), 2)
            pairs_R2 = torch.stack([-losses_R, torch.ones_like(losses_R)], dim=1).cpu()
            found_N2[list(chosen)] = sums_B.index_add(0, said.rows_R.cpu(), pairs_R2)
    return found_N2


def _where(number: int) -> str:
    return f"question {number + 1}"


def _asked(question: Question, number: int) -> list[Turn]:
    """The turns of a question.

    Raises:
        VlkitError: It says nothing.
    """
    text = clean(question.text)
    if not text.strip():
        raise VlkitError(f"{_where(number)} is empty; write what you want to know, or call caption")
    return [Turn("user", text, question.language or "und")]


def _rows(model: VisionLanguageModel, questions: Sequence[Question], laid: Sequence[Laid]) -> list[DialogueRow]:
    """Rows with the encoder's tokens of their images; an image that comes several times is encoded once."""
    plain: dict[int, Any] = {
        id(image): image for question in questions for image in question.images if not isinstance(image, Tensor)
    }
    known = dict(zip(plain, image_features(model, list(plain.values())), strict=True))
    return [
        DialogueRow(tuple(known.get(id(image), image) for image in question.images), one)
        for question, one in zip(questions, laid, strict=True)
    ]


def _groups(questions: Sequence[Question], generation: GenerationSpec) -> dict[tuple[str | None, str], list[int]]:
    """The numbers of questions whose answers begin alike."""
    groups: dict[tuple[str | None, str], list[int]] = {}
    for number, question in enumerate(questions):
        language = question.language if generation.language_token else None
        groups.setdefault((language, clean(question.prefix)), []).append(number)
    return groups


def _by_length(numbers: Sequence[int], rows: Sequence[DialogueRow], batch_size: int) -> Iterator[list[int]]:
    """Rows of like length together, the longest first, so that what does not fit into memory fails at once."""
    order = sorted(numbers, key=lambda number: -len(rows[number].laid.ids))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
