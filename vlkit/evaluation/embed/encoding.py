"""How images and texts are encoded: batches, caches, processes; and what it took."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError


@dataclass
class EncodingCounts:
    """What an evaluation cost: what went through the encoders (a cache's did not), over all processes."""

    images: int = 0
    texts: int = 0
    texts_asked: int = 0
    """Names times templates over all languages: what there was to encode without looking for equal ones."""
    answers: int = 0
    """Answers that were written or weighed."""
    drawn: int = 0
    """Images that a model made."""


@dataclass(frozen=True)
class Encoding:
    """How images and texts are encoded, whatever is evaluated: so many images and texts a forward pass.

    Attributes:
        workers: Threads that read and prepare images while others are encoded.
        cache: Folder to keep the embeddings of images and texts in, shared by all processes; None keeps none.
        ranks: Processes that share images, texts and scoring between them, and give the same as one alone, bit for bit.
        contents: What is known of what images hold (``image_contents``); filled as they are looked at.
    """

    batch_size: int = 64
    text_batch_size: int = 256
    workers: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))
    cache: Path | None = None
    ranks: Ranks = field(default_factory=Ranks)
    quiet: bool = True
    counts: EncodingCounts = field(default_factory=EncodingCounts)
    contents: dict[tuple[object, ...], tuple[object, int]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("batch_size", "text_batch_size", "workers"):
            at_least_one(name, getattr(self, name))

    @property
    def follows(self) -> bool:
        """Whether another process shows progress and writes."""
        return self.ranks.rank > 0


def at_least_one(name: str, value: int) -> None:
    """Refuses a count below one.

    Raises:
        VlkitError: It is.
    """
    if value < 1:
        raise VlkitError(f"{name} = {value}: must be at least 1")
