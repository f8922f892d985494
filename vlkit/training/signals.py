"""Ctrl-C and SIGTERM: the step under way ends and is saved; a process that is stuck dies after a while all the same."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType

_STOPS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; ``signal`` is its number. While ``saving``, nobody loses patience."""

    signal: int | None = field(default=None)
    saving: bool = False


@contextmanager
def stop_on_signals(*, grace: float | None = None) -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a request, so that a step can end and be saved; a second one acts.

    Args:
        grace: Seconds after the first signal in which the block has to end, else the process exits: it may wait for a
            process that is no more, where no Python runs that a second signal could interrupt. None waits for ever.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in _STOPS}

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = number
        signal.signal(number, before[signal.Signals(number)])

    with _watched(request, grace) if grace is not None else nullcontext():
        for number in before:
            signal.signal(number, note)
        try:
            yield request
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _watched(request: StopRequest, grace: float) -> Iterator[None]:
    """A thread that hears of signals even while the main thread is inside a call that runs no Python."""
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    was = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(ear, request, grace), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(was)
        mouth.close()
        thread.join()
        ear.close()


def _watch(ear: socket.socket, request: StopRequest, grace: float) -> None:
    while heard := ear.recv(1):
        if heard[0] in _STOPS:
            break
    else:
        return
    ear.settimeout(grace)
    while True:
        try:
            if not ear.recv(64):
                return
        except TimeoutError:
            if not request.saving:
                break
    sys.stderr.write(f"stopped by signal {heard[0]}: the step did not end within {grace:g} s\n")
    sys.stderr.flush()
    os._exit(128 + heard[0])
