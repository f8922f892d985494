"""Which parts are frozen in a stage, and the rows that are looked up for them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.sources.records import Records
from vlkit.distributed.runtime import Runtime
from vlkit.errors import VlkitError
from vlkit.models.feature_cache import FrozenImages, FrozenPart
from vlkit.spec.dataset import AugmentSpec
from vlkit.spec.recipe import Recipe
from vlkit.training.feature_tables import ImageTable, Table, TextMemory, TextTable
from vlkit.types import Source

log = logging.getLogger(__name__)


@dataclass
class FrozenFeatures:
    """Rows of the parts that are frozen, kept from stage to stage; rank 0 computes what no cache holds yet.

    Satisfies ``types.FrozenTables``.

    ``parts`` are what can be looked up of the model, ``tables`` by part name what is in this stage; ``languages`` are
    the BCP 47 tags that the run learns from; ``bad`` takes the samples that cannot be read.
    """

    recipe: Recipe
    runtime: Runtime
    parts: Sequence[FrozenPart]
    source: Source
    languages: tuple[str, ...]
    bad: BadSamples
    tables: Mapping[str, Table] = field(default_factory=dict)
    _known: dict[str, Table] = field(default_factory=dict)

    def prepare(self, needs: Collection[str]) -> None:
        """Makes the tables of a stage: of what is frozen now and whose input is needed (all for no needs)."""
        frozen = {part.name for part in self.parts if not any(p.requires_grad for p in part.module.parameters())}
        # in a later stage what trained is another part
        self._known = {name: table for name, table in self._known.items() if name in frozen}
        asked = {part.name for part in self.parts if part.name in frozen and (not needs or part.name in needs)}
        wanted = [part for part in self.parts if part.name in asked and asked.issuperset(part.beside)]
        if not self.recipe.loop.cache_features:
            wanted = []
        wanted = [part for part in wanted if not isinstance(part, FrozenImages) or self._fits(part)]
        self._warn_of_augment(wanted)
        with self.runtime.in_turn():
            for part in wanted:
                if part.name not in self._known:
                    self._known[part.name] = self._new_table(part)
        self.tables = {part.name: self._known[part.name] for part in wanted}

    @cached_property
    def samples(self) -> Records:
        """The samples without their images, read once: steps that look up all the rest open no file for them."""
        return Records(self.source)

    @property
    def unreadable(self) -> frozenset[int]:
        """Numbers of the samples of which a table has no row."""
        return frozenset[int]().union(*(table.bad for table in self.tables.values() if isinstance(table, ImageTable)))

    def table(self, part: str) -> Table | None:
        """The rows of a part; None where it trains or is not needed."""
        return self.tables.get(part)

    def encode(self, part: str, texts: Sequence[str], *, language: str) -> Tensor:
        """Rows of further texts by a part that has a table.

        Raises:
            VlkitError: It has none, or takes no texts.
        """
        table = self.tables.get(part)
        if not isinstance(table, TextTable):
            raise VlkitError(f"there is no table of texts of {part}: it trains, or loop.cache_features is false")
        with self.runtime.in_turn():
            memory = TextMemory(table.part, quiet=not self.runtime.leads)
            try:
                return memory(texts, language=language)
            finally:
                memory.flush()

    def _new_table(self, part: FrozenPart) -> Table:
        quiet = not self.runtime.leads
        if isinstance(part, FrozenImages):
            return ImageTable(
                part,
                self.source,
                augment=self.recipe.data.augment,
                views=self.recipe.loop.views,
                seed=self.recipe.seed,
                bad=self.bad,
                quiet=quiet,
            )
        return TextTable(part, self.samples, languages=self.languages, quiet=quiet)

    def _fits(self, part: FrozenImages) -> bool:
        if not part.at_most_one or part.name in self._known:
            return True
        other = next((index for index in range(len(self.samples)) if len(self.samples[index].images) > 1), None)
        if other is not None and self.runtime.leads:
            log.info(
                "the frozen %s runs in every step: sample %r has %d images; rows are kept of data with one at most",
                part.name, self.samples[other].key, len(self.samples[other].images),
            )  # fmt: skip
        return other is None

    def _warn_of_augment(self, wanted: Sequence[FrozenPart]) -> None:
        first = next((part for part in wanted if isinstance(part, FrozenImages)), None)
        if first is None or self.recipe.loop.views > 1 or self.recipe.data.augment == AugmentSpec():
            return
        if self.runtime.leads:
            log.warning(
                "data.augment does nothing here: loop.views = 1 keeps only the plain images of the frozen %s "
                "encoder; set loop.views=4, say, or loop.cache_features=false",
                first.name,
            )
