"""What all tabs of the demo share: the models, the images to search, and whose turn it is to compute."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlkit.demo.photos import Photos


@dataclass(frozen=True)
class ShownModel:
    """A model, and what the page calls it."""

    name: str
    model: Any


@dataclass(frozen=True)
class Room:
    """What the tabs work with.

    Attributes:
        models: In the order given; with several, each answers beside the others.
        report: Told of errors that nobody foresaw; visitors see no more than that there was one.
        photos: Images to be searched, if a folder was given.
        turn: Held while a model computes: visitors wait for each other, so that memory is that of one.
    """

    models: Sequence[ShownModel]
    report: Callable[[Exception], None]
    photos: Photos | None = None
    turn: threading.Lock = field(default_factory=threading.Lock)

    def able(self, can: Callable[[object], bool]) -> list[ShownModel]:
        """The models that can do something."""
        return [one for one in self.models if can(one.model)]
