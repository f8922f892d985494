"""Device, precision and signals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType

import torch

from vlkit.errors import VlkitError
from vlkit.spec.train import LoopSpec


def choose_device(spec: LoopSpec) -> torch.device:
    """The device that ``loop.device`` asks for.

    Raises:
        VlkitError: It is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if spec.device == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[spec.device]:
        usable = ", ".join(name for name, found in there.items() if found)
        raise VlkitError(f"loop.device = {spec.device}, but this machine has none; there are: {usable}")
    return torch.device(spec.device)


def autocast(spec: LoopSpec, device: torch.device) -> AbstractContextManager[object]:
    """bf16 autocast where ``loop.precision`` asks for it or, on auto, where it pays."""
    if spec.precision == "bf16" or (spec.precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@dataclass
class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; ``signal`` is its number."""

    signal: int | None = field(default=None)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a request, so that a step can end and be saved; a second one acts."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = number
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
