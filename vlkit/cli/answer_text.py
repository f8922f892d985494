"""How a terminal shows what a model writes: safe, whole, and from right to left where the language runs so."""

from __future__ import annotations

import re
import sys

from vlkit.foreign import printable

# First strong isolate and its end: a terminal orders what is between them by itself, whatever stands around it.
_ISOLATE, _END = "\u2068", "\u2069"


def in_line(text: str) -> str:
    """A text as a part of one line: in a terminal isolated, elsewhere as it is; line ends become spaces."""
    plain = printable(" ".join(re.split(r"\s*[\r\n]+\s*", text.strip())))
    return f"{_ISOLATE}{plain}{_END}" if sys.stdout.isatty() else plain


def write_line(*cells: str) -> None:
    """Texts side by side as one line of results: in a terminal each isolated, elsewhere with tabs between them."""
    between = "  " if sys.stdout.isatty() else "\t"
    sys.stdout.write(between.join(in_line(cell) for cell in cells) + "\n")
    sys.stdout.flush()


def write_answer(text: str) -> None:
    """An answer as results, with its line ends; in a terminal each line runs in its own direction."""
    live = LiveAnswer()
    live(text)
    live.end()


class LiveAnswer:
    """Writes an answer to standard output piece by piece, without the space around it; ``end`` ends its last line."""

    def __init__(self) -> None:
        self._isolates = sys.stdout.isatty()
        self._held = ""  # space and line ends that are written only if something follows
        self._begun = False

    def __call__(self, piece: str) -> None:
        """Writes what came."""
        text = self._held + piece
        body = text.rstrip()
        self._held = text[len(body) :]
        if not self._begun:
            body = body.lstrip()
        if not body:
            return
        if self._isolates:
            start = "" if self._begun else _ISOLATE
            body = start + printable(body).replace("\n", f"{_END}\n{_ISOLATE}")
        else:
            body = printable(body)
        self._begun = True
        sys.stdout.write(body)
        sys.stdout.flush()

    def end(self) -> None:
        """Ends the line."""
        sys.stdout.write((_END if self._isolates and self._begun else "") + "\n")
        sys.stdout.flush()
