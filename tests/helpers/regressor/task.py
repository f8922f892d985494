"""Its task: how near the predicted brightness comes, by the languages that the images have captions in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from vlkit.data.sources.open import open_source
from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.tasks.task import PlainTask, Scored
from vlkit.files import digest
from vlkit.models.image_input import decode
from vlkit.spec.any_task import AnyTask
from vlkit.spec.sources import FolderSource
from vlkit.types import Sample


class BrightnessTaskSpec(AnyTask):
    """Images whose brightness is to be told."""

    kind: Literal["brightness"] = "brightness"
    source: FolderSource
    """Images with captions."""


@dataclass(frozen=True)
class BrightnessTask(PlainTask):
    measures: ClassVar[Measures] = Measures(
        "brightness", headline="closeness", metrics={"closeness": Measure("closeness", "closeness")}
    )

    name: str
    samples: Sequence[Sample]

    @property
    def digest(self) -> str:
        return digest([self.name, [sample.key for sample in self.samples]])

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        found = dict.fromkeys(tag for sample in self.samples for tag in sorted(sample.captions))
        return tuple(tag for tag in found if languages is None or tag in tuple(languages))

    def score(self, model: Any, languages: Sequence[str], *, seed: int = 0, encoding: Any = None) -> Iterator[Scored]:
        for tag in languages:
            chosen = [sample for sample in self.samples if tag in sample.captions]
            errors = []
            for sample in chosen:
                image = decode(sample.image, draft_size=None)
                with torch.no_grad():
                    told = model(model.transform(image)[None]).item()
                errors.append(abs(told - float(np.asarray(image.convert("L")).mean() / 255)))
            yield Scored(tag, {"n_images": len(chosen), "closeness": 1 - sum(errors) / len(errors)})


def open_brightness(task: BrightnessTaskSpec, languages: Iterable[str] | None) -> list[BrightnessTask]:
    source = open_source(task.source)
    return [BrightnessTask(task.name, [source[number] for number in range(len(source))])]
