"""Which parts are frozen in a stage, and the rows that are looked up for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.plan.sampling import PairSampler
from vlkit.data.sources.records import Records
from vlkit.distributed.runtime import Runtime
from vlkit.models.frozen_parts import FrozenImages, FrozenPart
from vlkit.objectives.pairs.pair_term import TextFeatures
from vlkit.spec.dataset import AugmentSpec
from vlkit.spec.recipe import Recipe
from vlkit.training.tables import ImageTable, Table, TextMemory, TextTable
from vlkit.types import Source

log = logging.getLogger(__name__)


@dataclass
class FrozenFeatures:
    """Rows of the parts that are frozen, kept from stage to stage; rank 0 computes what no cache holds yet.

    Attributes:
        recipe: The run.
        runtime: Its processes.
        parts: What can be looked up of the model.
        source: The samples.
        sampler: Which of their languages are wanted.
        bad: Takes the samples that cannot be read.
    """

    recipe: Recipe
    runtime: Runtime
    parts: Sequence[FrozenPart]
    source: Source
    sampler: PairSampler
    bad: BadSamples
    _tables: dict[str, Table] = field(default_factory=dict)

    def tables(self) -> Mapping[str, Table]:
        """By part name the tables of what is frozen now; a part that trains has none."""
        frozen = {part.name for part in self.parts if not any(p.requires_grad for p in part.module.parameters())}
        # in a later stage what trained is another part
        self._tables = {name: table for name, table in self._tables.items() if name in frozen}
        wanted = [part for part in self.parts if part.name in frozen and frozen.issuperset(part.beside)]
        if not self.recipe.loop.cache_features or not wanted:
            return {}
        self._warn_of_augment(wanted)
        records = self.records
        with self.runtime.in_turn():
            for part in wanted:
                if part.name not in self._tables:
                    self._tables[part.name] = self._table(part, records)
        return {part.name: self._tables[part.name] for part in wanted}

    @cached_property
    def records(self) -> Records:
        """The samples without their images, read once: steps that look up all the rest open no file for them."""
        return Records(self.source)

    def of_texts(self, table: Table | None) -> TextFeatures | None:
        """A part that takes texts as a function of English ones, where there is a table of its rows."""
        if not isinstance(table, TextTable):
            return None

        def features(names: Sequence[str]) -> Tensor:
            with self.runtime.in_turn():
                memory = TextMemory(table.part, quiet=not self.runtime.leads)
                try:
                    return memory(names, language="en")
                finally:
                    memory.flush()

        return features

    def _table(self, part: FrozenPart, records: Records) -> Table:
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
        return TextTable(part, records, languages=self.sampler.languages, quiet=quiet)

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
