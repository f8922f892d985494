"""Extra memory of a call: how far the peak rises above what the process held before."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable
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
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        held = call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    elif _set_back():
        before = _status("VmRSS")
        held = call()
        peak = _status("VmHWM")
    else:
        before = _life_peak()
        held = call()
        peak = _life_peak()
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
