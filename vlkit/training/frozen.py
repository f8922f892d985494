"""Which encoders are frozen in a stage, and their features."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.plan.sampling import PairSampler
from vlkit.distributed.runtime import Runtime
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.objectives.context import TextFeatures
from vlkit.spec.dataset import AugmentSpec
from vlkit.spec.recipe import Recipe
from vlkit.training.tables import ImageTable, TextMemory, TextTable, image_table
from vlkit.types import Sample, Source

log = logging.getLogger(__name__)


@dataclass
class FrozenFeatures:
    """Features of the encoders that are frozen, kept from stage to stage; rank 0 computes what no cache holds yet."""

    recipe: Recipe
    runtime: Runtime
    model: DualEncoder
    source: Source
    sampler: PairSampler
    bad: BadSamples
    images: ImageTable | None = None
    texts: TextTable | None = None

    @property
    def samples(self) -> Sequence[Sample]:
        """See ``types.FrozenTables``."""
        return [self.source[index] for index in range(len(self.source))]

    @property
    def languages(self) -> tuple[str, ...]:
        """See ``types.FrozenTables``."""
        return self.sampler.languages

    def table(self, part: str) -> Any | None:
        """See ``types.FrozenTables``."""
        return {"image": self.images, "text": self.texts}.get(part)

    def encode(self, part: str, texts: Sequence[str], *, language: str) -> Tensor:
        """See ``types.FrozenTables``."""
        with self.runtime.in_turn():
            memory = TextMemory(self.model.text, quiet=not self.runtime.leads)
            try:
                return memory(texts, language=language)
            finally:
                memory.flush()

    def tables(self) -> tuple[ImageTable | None, TextTable | None]:
        """Tables of the encoders that are frozen now; None for an encoder that trains."""
        parts = self.model.named_children()
        frozen = {name for name, part in parts if not any(p.requires_grad for p in part.parameters())}
        if "image" not in frozen:
            self.images = None  # in a later stage it is another encoder
        if "text" not in frozen:
            self.texts = None
        if not self.recipe.loop.cache_features or "image" not in frozen:
            return None, None
        self._warn_of_augment()
        with self.runtime.in_turn():
            if self.images is None:
                self.images = self._image_table()
            if self.texts is None and "text" in frozen:
                self.texts = TextTable(
                    self.model.text, self.source, languages=self.sampler.languages, quiet=not self.runtime.leads
                )
        return self.images, self.texts

    def of_texts(self, texts: TextTable | None) -> TextFeatures | None:
        """The text encoder as a function of English texts, where there is a table of its features."""
        if texts is None:
            return None

        def features(names: Sequence[str]) -> Tensor:
            with self.runtime.in_turn():
                memory = TextMemory(self.model.text, quiet=not self.runtime.leads)
                try:
                    return memory(names, language="en")
                finally:
                    memory.flush()

        return features

    def _image_table(self) -> ImageTable:
        return image_table(
            self.model.image,
            self.source,
            augment=self.recipe.data.augment,
            views=self.recipe.loop.views,
            seed=self.recipe.seed,
            bad=self.bad,
            quiet=not self.runtime.leads,
        )

    def _warn_of_augment(self) -> None:
        if self.recipe.loop.views == 1 and self.recipe.data.augment != AugmentSpec() and self.runtime.leads:
            log.warning(
                "data.augment does nothing here: loop.views = 1 keeps only the plain images of the frozen image "
                "encoder; set loop.views=4, say, or loop.cache_features=false"
            )
