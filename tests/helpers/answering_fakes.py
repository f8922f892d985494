"""A small model that answers questions about images by their mean colour: a plain module, by the protocol alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlkit.spec.language import GenerationSpec
from vlkit.types import Question, Sample

COLORS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "yellow": (220, 220, 30)}
NAMES: Mapping[str, tuple[str, ...]] = {
    "en": ("red", "green", "blue", "yellow"),
    "de": ("rot", "grün", "blau", "gelb"),
    "zh": ("红色", "绿色", "蓝色", "黄色"),
}


class ColorTeller(nn.Module):
    """Names the colour of the image, or of all images together, in the language asked for.

    Without an image it says the first name. ``names`` are by language, in the order of ``COLORS``. ``confused`` maps a
    language to the one that it answers in instead.
    """

    def __init__(self, names: Mapping[str, Sequence[str]] = NAMES, confused: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.colors_K3 = nn.Parameter(torch.tensor(list(COLORS.values())).float() / 255)
        self.names = {tag: tuple(listed) for tag, listed in names.items()}
        self.confused = dict(confused or {})
        self.images_seen = 0
        self.asked: list[Question] = []
        self.generations: list[GenerationSpec | None] = []

    def image_features(self, images: Sequence[Any]) -> list[Tensor]:
        self.images_seen += len(images)
        return [torch.from_numpy(np.asarray(one.convert("RGB"), dtype=np.float32)).mean((0, 1))[None] / 255
                for one in images]  # fmt: skip

    def answer(
        self,
        questions: Sequence[Question],
        *,
        generation: GenerationSpec | None = None,
        batch_size: int = 16,
        stream: Callable[[str], None] | None = None,
    ) -> list[str]:
        assert not self.training and len(questions) > 0 and batch_size > 0
        self.asked += questions
        self.generations.append(generation)
        return [self._named(question) for question in questions]

    def _named(self, question: Question) -> str:
        tag = self.confused.get(question.language or "", question.language or "")
        names = self.names.get(tag, ("?",))
        return question.prefix + (names[int(self._nearness(question).argmax())] if question.images else names[0])

    def _nearness(self, question: Question) -> Tensor:
        tokens = [one if isinstance(one, Tensor) else self.image_features([one])[0] for one in question.images]
        if not tokens:
            return torch.zeros(len(self.colors_K3))
        return -(torch.cat(tokens).mean(0) - self.colors_K3).norm(dim=1)

    def log_likelihoods(self, questions: Sequence[Question], answers: Sequence[str], *, batch_size: int = 16) -> Tensor:
        rows = []
        for question, answer in zip(questions, answers, strict=True):
            names = self.names.get(question.language or "", ())
            near_K = self._nearness(question).log_softmax(0)
            value = near_K[names.index(answer)].item() if answer in names else -9.0
            rows.append([value, float(len(answer) + 1)])
        return torch.tensor(rows)


def colored(color: str, number: int = 0, *, split: str = "test", **captions: Any) -> Sample:
    """A picture of one colour, a little different for each number."""
    red, green, blue = COLORS[color]
    image = Image.new("RGB", (9, 7), (red + number, green, blue))
    place = list(COLORS).index(color)
    texts = {tag: (listed[place],) for tag, listed in NAMES.items()} | captions
    return Sample(f"{color}-{number}", (lambda: image,), texts, concept=color, split=split)
