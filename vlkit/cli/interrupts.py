"""Ctrl-C and SIGTERM in any command: one line that says how to go on, and the exit code that a shell expects."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from vlkit.errors import Stopped

_AGAIN = "what is whole is kept: run the same command again"
_GO_ON = {
    "quickstart": "what was done is kept: run the same command again with --resume",
    "eval": "languages that were done are kept: run the same command again with --resume",
    "index": "images that were embedded are kept: run the same command again",
    "mteb": "tasks that were done are kept: run the same command again with --resume",
    "push": "what had arrived is kept, a commit appears whole or not at all: run the same command again",
    "export": "nothing was written: run the same command again",
}


def raise_on_sigterm() -> None:
    """Lets SIGTERM end a command as Ctrl-C does: through all that cleans up."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number=number)


def say_stopped(error: KeyboardInterrupt, command: str | None) -> int:
    """Says how to go on, and returns the exit code; further signals are not heard: the process is ending."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    said = str(error) or f"stopped; {_GO_ON.get(command or '', _AGAIN)}"
    sys.stderr.write(f"\n{said}\n")
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)
