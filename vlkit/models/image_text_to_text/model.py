"""A whole model of transformers behind vlkit's own protocols: it answers, captions and weighs answers.

Source of what it does: the class of transformers and its processor. N questions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.foreign import clean
from vlkit.models.image_input import AnImage, read_given
from vlkit.models.model_html import model_html
from vlkit.models.speaking import ask_one, caption_all
from vlkit.models.trainable import adapter_specs, in_eval
from vlkit.parts.hf_generation import check_drawing
from vlkit.parts.hf_image_text import AskedText, HfImageText
from vlkit.spec.dataset import DataSpec
from vlkit.spec.language import GenerationSpec
from vlkit.spec.model import ImageTextToTextSpec
from vlkit.types import Preparer, Question


class ImageTextToText(nn.Module):
    """A model of transformers that reads images and texts and writes texts, as it is (``AutoModelForImageTextToText``).

    It is asked, evaluated and saved; to train one, build its parts as a ``VisionLanguageModel``. Images
    go through the model's own encoder with every question: what ``image_features`` gives are their pixels.

    Args:
        whole: The model with its processor.
    """

    caption_task = "caption"

    def __init__(self, whole: HfImageText) -> None:
        super().__init__()
        self.whole = whole
        self.loaded_from: str | None = None  # what vlkit.load was given

    @property
    def spec(self) -> ImageTextToTextSpec:
        """The spec that builds this model again."""
        return ImageTextToTextSpec(whole=self.whole.spec, adapters=adapter_specs(self))

    def parts(self) -> dict[str, nn.Module]:
        """See ``types.Model``: all of it is one part."""
        return {"whole": self.whole}

    def preparer(
        self, data: DataSpec, *, needs: Collection[str] | None = None, tables: Mapping[str, Any] | None = None
    ) -> Preparer:
        """None: see the class.

        Raises:
            VlkitError: Always.
        """
        raise VlkitError(
            f"{self.whole.where} is a whole model of transformers, which vlkit asks and evaluates but does not train; "
            f"train one of its parts: model: {{kind: vision_language, encoder: ..., bridge: ..., language_model: ...}}"
        )

    def _repr_html_(self) -> str:
        return model_html(self)

    def figures(self) -> dict[str, float]:
        """See ``types.Model``: nothing of its own."""
        return {}

    def image_features(self, images: Sequence[AnImage]) -> list[Tensor]:
        """The pixels of each image, uint8 [height, width, 3]; see ``types.AnswersQuestions``."""
        return [torch.from_numpy(np.array(read_given(image))) for image in images]

    @torch.no_grad()
    def answer(
        self,
        questions: Sequence[Question],
        *,
        generation: GenerationSpec | None = None,
        batch_size: int = 16,
        stream: Callable[[str], None] | None = None,
    ) -> list[str]:
        """See ``types.AnswersQuestions``; with ``stream`` the answer comes in one piece.

        Raises:
            VlkitError: Besides, settings that need a language model of vlkit's.
        """
        generation = generation or GenerationSpec()
        if stream is not None and len(questions) != 1:
            raise VlkitError(f"stream shows one answer as it is written, and there are {len(questions)} questions")
        check_drawing(generation)
        if generation.language_token is not None:
            raise VlkitError(
                f"generation.language_token = {generation.language_token!r}: a whole model of transformers is told the "
                f"language by its question alone; set it to null"
            )
        found, laid = [""] * len(questions), self._laid(questions)
        with in_eval(self):
            for chosen in _batches(laid, batch_size):
                texts = self.whole.write([laid[number] for number in chosen], generation)
                for number, text in zip(chosen, texts, strict=True):
                    found[number] = text.strip()
        if stream is not None:
            stream(found[0])
        return found

    @torch.no_grad()
    def log_likelihoods(self, questions: Sequence[Question], answers: Sequence[str], *, batch_size: int = 16) -> Tensor:
        """See ``types.AnswersQuestions``."""
        if len(questions) != len(answers):
            raise VlkitError(f"there are {len(questions)} questions and {len(answers)} answers; give one for each")
        laid, found_N2 = self._laid(questions), torch.zeros(len(questions), 2)
        with in_eval(self):
            for chosen in _batches(laid, batch_size):
                texts = [clean(answers[number]) for number in chosen]
                found_N2[chosen] = self.whole.weigh([laid[number] for number in chosen], texts)
        return found_N2

    def caption(
        self, images: Any, *, language: str, prompt: str | None = None, prefix: str = "", **generation: Any
    ) -> Any:
        """One or several images in words; see ``VisionLanguageModel.caption``."""
        return caption_all(self, images, language=language, prompt=prompt, prefix=prefix, generation=generation)

    def ask(
        self,
        images: Any,
        question: str,
        *,
        language: str | None = None,
        prefix: str = "",
        stream: Callable[[str], None] | None = None,
        **generation: Any,
    ) -> str:
        """Answers a question about no, one or several images; see ``VisionLanguageModel.ask``."""
        return ask_one(self, images, question, language=language, prefix=prefix, stream=stream, generation=generation)

    def _laid(self, questions: Sequence[Question]) -> list[AskedText]:
        found = []
        for number, question in enumerate(questions, start=1):
            text, where = clean(question.text), f"question {number}"
            if not text.strip():
                raise VlkitError(f"{where} is empty; write what you want to know, or call caption")
            images = [_picture(image) for image in question.images]
            found.append(self.whole.lay(text, images, prefix=clean(question.prefix), where=where))
        return found


def _picture(image: Any) -> Image.Image:
    return Image.fromarray(image.numpy()) if isinstance(image, Tensor) else read_given(image)


def _batches(laid: Sequence[AskedText], size: int) -> Iterator[list[int]]:
    """Questions of equally many images together, the longest first, so that what does not fit fails at once."""
    by_count: dict[int, list[int]] = {}
    for number, one in enumerate(laid):
        by_count.setdefault(len(one.images), []).append(number)
    for numbers in by_count.values():
        numbers.sort(key=lambda number: (-sum(w * h for w, h in (i.size for i in laid[number].images)),
                                         -len(laid[number].text)))  # fmt: skip
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size]
