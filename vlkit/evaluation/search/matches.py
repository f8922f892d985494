"""What a search found: the nearest images, best first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vlkit.evaluation.results.frames import RowSequence
from vlkit.foreign import printable

if TYPE_CHECKING:
    from rich.table import Table


class Match(NamedTuple):
    """One image: its path inside the folder that was indexed, and its cosine with the query."""

    image: str
    score: float


@dataclass(frozen=True)
class Matches(RowSequence[Match]):
    """The images nearest to a query, best first; a sequence of ``Match``, a data frame, a table of a notebook.

    ``query`` is the text, or what the image that was looked for is called; ``source`` the folder of the images.
    """

    query: str
    matches: tuple[Match, ...]
    source: Path

    def _items(self) -> tuple[Match, ...]:
        return self.matches

    def records(self) -> list[dict[str, Any]]:
        """One flat row an image: ``rank`` (from 1), ``image``, ``score``."""
        return [{"rank": rank, **one._asdict()} for rank, one in enumerate(self.matches, 1)]

    def table(self) -> Table:
        """A rich table with bars; the longest is that of a cosine of 1."""
        from rich.bar import Bar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, title=Text(printable(self.query), style="bold"), title_justify="left")
        table.add_column("rank", justify="right")
        table.add_column("cosine", justify="right")
        table.add_column("")
        table.add_column("image", overflow="fold")
        for rank, one in enumerate(self.matches, 1):
            bar = Bar(1.0, 0.0, max(0.0, one.score), width=20, color="green" if rank == 1 else "cyan")
            table.add_row(str(rank), f"{one.score:.3f}", bar, Text(printable(one.image)))
        return table
