"""What a batch of a bridge to a diffusion model is, and how samples become one: texts and their English ones.

Shapes: B texts, L their length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from vlkit.errors import DataError
from vlkit.parts.tokenizers import Tokenize, tokenize_mixed
from vlkit.types import Pick, Sample, TextBatch

_PER_ROW = ("english", "seeds", "languages", "sources")


@dataclass(frozen=True)
class ParallelBatch:
    """Texts for one training step.

    One a row: ``english`` says the same as the text of ``tokens``, ``seeds`` are those of what a denoiser is asked
    about it, ``languages`` BCP 47, ``sources`` names of the collections.
    """

    tokens: TextBatch
    english: tuple[str, ...]
    seeds: tuple[int, ...]
    languages: tuple[str, ...]
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.english)

    def rows(self, index: Tensor) -> Self:
        """The texts of these numbers, in this order."""
        lists = {name: getattr(self, name) for name in _PER_ROW}
        chosen: Any = {name: tuple(one[row] for row in index.tolist()) for name, one in lists.items() if one}
        return replace(self, tokens=TextBatch(*(x[index.to(x.device)] for x in self.tokens)), **chosen)

    def to(self, device: torch.device) -> Self:
        """The batch with its tensors on a device."""
        return replace(self, tokens=TextBatch(*(x.to(device) for x in self.tokens)))


class ParallelRow(NamedTuple):
    """One row of a batch, read."""

    text: str
    english: str
    seed: int
    language: str
    source: str


@dataclass(frozen=True)
class ParallelPreparer:
    """Texts as the text encoder wants them, beside the English ones; no image is looked at."""

    tokenize: Tokenize

    @property
    def reads(self) -> bool:
        """See ``types.Preparer``."""
        return True

    def row(self, sample: Sample, pick: Pick) -> ParallelRow:
        """See ``types.Preparer``."""
        if not (english := pick.pivot(sample)):
            raise DataError(
                f"sample {sample.key!r} has no English text to learn from; leave its source out of data.sources"
            )
        return ParallelRow(pick.caption(sample), english, pick.view_seed, pick.language, sample.source)

    def collate(self, rows: Sequence[ParallelRow]) -> ParallelBatch:
        """See ``types.Preparer``; texts are padded to the longest of them."""
        languages = tuple(row.language for row in rows)
        return ParallelBatch(
            tokens=tokenize_mixed(self.tokenize, [row.text for row in rows], languages),
            english=tuple(row.english for row in rows),
            seeds=tuple(row.seed for row in rows),
            languages=languages,
            sources=tuple(row.source for row in rows),
        )
