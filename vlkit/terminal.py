"""Consoles that foreign text cannot act through: what a terminal would obey is shown instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vlkit.foreign import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment


def console(**settings: Any) -> Console:
    """A console of rich, on standard output unless ``settings`` say otherwise.

    Captions, labels and names of files come from elsewhere; whatever prints them, escape sequences in them arrive as
    text (``printable``). Colours and cursor movements of rich itself stay.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Safe(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return Safe(highlight=False, emoji=False, **settings)
