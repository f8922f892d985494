"""What stands in the way of a command, gathered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vlkit.errors import VlkitError


class Obstacles:
    """Gathers what stands in the way of something, so that all of it is told at once and not try by try."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def met(self) -> Iterator[None]:
        """Goes on behind the block where it ends in a ``VlkitError``, and keeps the message (a line each)."""
        try:
            yield
        except VlkitError as error:
            self.found += str(error).split("\n")

    def refuse(self) -> None:
        """Raises all that was met, if anything was.

        Raises:
            VlkitError: One line each.
        """
        if self.found:
            raise VlkitError("\n".join(self.found))
