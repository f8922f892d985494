"""What stands in the way of a command, gathered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vlkit.errors import VlkitError


class Obstacles:
    """Gathers what stands in the way of something, so that all of it is told at once and not try by try."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._errors: list[VlkitError] = []

    @contextmanager
    def met(self) -> Iterator[None]:
        """Goes on behind the block where it ends in a ``VlkitError``; keeps the message, a line each and none twice."""
        try:
            yield
        except VlkitError as error:
            self._errors.append(error)
            self.found += [line for line in str(error).split("\n") if line not in self.found]

    def refuse(self) -> None:
        """Raises all that was met, if anything was.

        Raises:
            VlkitError: One line each; what was met alone is raised as it was.
        """
        if len(self._errors) == 1 and self.found == str(self._errors[0]).split("\n"):
            raise self._errors[0]
        if self.found:
            raise VlkitError("\n".join(self.found))
