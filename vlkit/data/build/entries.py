"""What a builder hands to the writer: one drawing with its captions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One image-to-be. ``drawing`` is its hex code in OpenMoji; ``captions`` maps BCP 47 tags to names."""

    key: str
    drawing: str
    captions: dict[str, tuple[str, ...]]
    concept: str
    split: str
