"""A kind of task that the package does not know: how alike the images of a folder look to a model, by language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from vlkit.data.sources.open import open_source
from vlkit.evaluation.embed.image_features import image_features
from vlkit.evaluation.embed.texts import embed_texts
from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.tasks.task import PlainTask, Scored
from vlkit.files import digest
from vlkit.spec.any_task import AnyTask
from vlkit.spec.sources import FolderSource
from vlkit.types import Sample


class NearnessSpec(AnyTask):
    """How near a model puts each image to its caption."""

    kind: Literal["nearness"] = "nearness"
    source: FolderSource
    """Images with captions."""


@dataclass(frozen=True)
class Nearness(PlainTask):
    """Share of images that are nearer to their own caption than to the mean caption; and by how much."""

    measures: ClassVar[Measures] = Measures(
        "nearness",
        headline="nearer",
        metrics={"nearer": Measure("nearer", "nearer", low="least", high="most"), "gap": Measure("gap", share=False)},
        alike={"n_images": "images"},
    )

    name: str
    samples: Sequence[Sample]

    @property
    def digest(self) -> str:
        return digest([self.name, [(sample.key, sample.captions) for sample in self.samples]])

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        found = dict.fromkeys(tag for sample in self.samples for tag in sample.captions)
        return tuple(tag for tag in found if languages is None or tag in tuple(languages))

    def score(self, model: Any, languages: Sequence[str], *, seed: int = 0, encoding: Any = None) -> Iterator[Scored]:
        with image_features(model, self.samples, encoding=encoding) as features:
            for tag in languages:
                texts = [sample.captions[tag][0] for sample in self.samples]
                text_NE = embed_texts(model, texts, language=tag, encoding=encoding)
                gap_N = (features[torch.arange(len(features))] * (text_NE - text_NE.mean(0))).sum(1)
                nearer = (gap_N > 0).double().mean().item()
                yield Scored(tag, {"n_images": len(texts), "nearer": nearer, "least": nearer / 2, "most": 1.0,
                                   "gap": gap_N.mean().item()})  # fmt: skip


def open_nearness(task: NearnessSpec, languages: Iterable[str] | None) -> list[Nearness]:
    source = open_source(task.source)
    return [Nearness(task.name, [source[number] for number in range(len(source))])]
