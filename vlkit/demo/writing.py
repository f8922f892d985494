"""What a model writes, piece by piece, while it is still writing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import NamedTuple


class _NobodyReadsError(Exception):
    """The visitor has gone: the model need not go on."""


class _End(NamedTuple):
    """The last thing in the queue: the whole text, or what went wrong."""

    text: str
    error: BaseException | None = None


def growing(write: Callable[[Callable[[str], None]], str]) -> Iterator[tuple[str, bool]]:
    """The text so far and whether it is whole, again and again; to a slow reader several pieces come together.

    ``write`` takes what is to be called with each piece, and returns the whole text; it runs in a thread of its own,
    and is ended at its next piece once nobody reads on.
    """
    pieces: SimpleQueue[str | _End] = SimpleQueue()
    gone = threading.Event()

    def take(piece: str) -> None:
        if gone.is_set():
            raise _NobodyReadsError
        pieces.put(piece)

    def run() -> None:
        try:
            pieces.put(_End(write(take)))
        except BaseException as error:
            pieces.put(_End("", error))

    threading.Thread(target=run, name="vlkit-demo-writes", daemon=True).start()
    text = ""
    try:
        while True:
            for item in _waiting(pieces):
                if isinstance(item, _End):
                    if item.error is not None:
                        raise item.error
                    yield item.text, True
                    return
                text += item
            yield text, False
    finally:
        gone.set()


def _waiting(pieces: SimpleQueue[str | _End]) -> Iterator[str | _End]:
    """All that is there, at least one."""
    yield pieces.get()
    while True:
        try:
            yield pieces.get_nowait()
        except Empty:
            return
