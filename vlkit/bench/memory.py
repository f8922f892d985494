"""Extra memory of a call: how far the peak rises above what the process held before."""

from __future__ import annotations

import gc
import resource
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def extra_memory(call: Callable[[], object], *, device: str = "cpu") -> int:
    """Bytes that ``call`` needs at its peak beyond what is held before it; what it returns counts.

    On CUDA it is what PyTorch's allocator hands out. On CPU it is the resident memory of the process: the kernel's
    high-water mark, set back before the call where Linux lets us, else the growth of the mark of the whole life of the
    process. Call it once in a fresh process: memory that was freed but kept by the allocator does not count again.
    """
    gc.collect()
    look: Callable[[], int] = _life_peak
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before, look = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated
    elif _set_back():
        before, look = _status("VmRSS"), partial(_status, "VmHWM")
    else:
        before = look()
    held = call()
    if device == "cuda":
        torch.cuda.synchronize()
    peak = look()
    del held
    return max(0, peak - before)


def _set_back() -> bool:
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _status(key: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def _life_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class PeakMemory:
    """The memory of this process at its peak inside a ``with`` block, in megabytes (10^6 bytes).

    Resident memory is the kernel's high-water mark, set back at the start where Linux lets us. Its anonymous part,
    which leaves out pages of files, has no such mark: it is looked up every ``interval`` seconds. Without Linux's
    ``/proc`` there is no such figure, and resident memory is that of the whole life of the process.
    """

    start_rss_mb: float | None = None
    peak_rss_mb: float | None = None
    peak_anonymous_mb: float | None = None

    def __init__(self, *, interval: float = 0.01) -> None:
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> PeakMemory:
        gc.collect()
        _set_back()
        if _STATUS.exists():
            self.start_rss_mb = _status("VmRSS") / 1e6
            self.peak_anonymous_mb = 0.0
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.peak_anonymous_mb is not None:
            self._ended.set()
            self._thread.join()
        self.peak_rss_mb = (_status("VmHWM") if _STATUS.exists() else _life_peak()) / 1e6

    def _look(self) -> None:
        while True:
            self.peak_anonymous_mb = max(self.peak_anonymous_mb or 0.0, _status("RssAnon") / 1e6)
            if self._ended.wait(self._interval):
                return
