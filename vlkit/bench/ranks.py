"""A function on several fresh processes: ``python -m vlkit.bench.ranks FOLDER RANK`` is one of them.

Arguments and results are JSON files of the folder, and the processes meet through a file of it.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from vlkit.errors import VlkitError

_log = logging.getLogger(__name__)
_TIMEOUT = timedelta(minutes=30)


def on_ranks(
    target: str,
    arguments: Mapping[str, Any],
    *,
    ranks: int,
    device: str = "cpu",
    prefixes: Sequence[Sequence[str]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Any]:
    """What ``target`` (``module:function``) returns on each of ``ranks`` new processes, in their order.

    It takes and gives what JSON can hold. Processes share the cores evenly, on ``cuda`` rank n has GPU n; more than one
    are a group (gloo on CPU, NCCL on GPUs). ``prefixes`` are words before each one's command, to start it elsewhere.

    Raises:
        VlkitError: A process failed: its last words; the others are ended.
    """
    with tempfile.TemporaryDirectory(prefix="vlkit-bench-") as name:
        folder = Path(name)
        threads = max(1, (os.cpu_count() or 1) // ranks)
        job = {"target": target, "arguments": dict(arguments), "ranks": ranks, "device": device, "threads": threads}
        (folder / "job.json").write_text(json.dumps(job))
        # Threads are set before libraries load: some look at the environment once.
        variables = {**os.environ, "OMP_NUM_THREADS": str(threads), **(environment or {})}
        running: dict[int, subprocess.Popen[bytes]] = {}
        try:
            for rank in range(ranks):
                command = [*(prefixes[rank] if prefixes else ()), sys.executable, "-m", __name__, name, str(rank)]
                with (folder / f"{rank}.log").open("wb") as log:
                    running[rank] = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
            _wait(running, folder)
        finally:
            for process in running.values():
                process.kill()
                process.wait()
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def _wait(running: dict[int, subprocess.Popen[bytes]], folder: Path) -> None:
    """Until all are done; an error for the first that failed."""
    left = set(running)
    while left:
        for rank in sorted(left):
            code = running[rank].poll()
            if code is None:
                continue
            if code:
                # A rank that fails makes others fail at their next call: the one that failed of itself says so.
                time.sleep(0.2)
                told = sorted(folder.glob("*.error"), key=lambda path: path.stat().st_mtime_ns)
                words = told[0].read_text() if told else (folder / f"{rank}.log").read_text(errors="replace").strip()
                who = int(told[0].stem) if told else rank
                words = words[-2000:] or "no message"
                raise VlkitError(f"rank {who} of {len(running)} ended with code {code}: {words}")
            left.discard(rank)
        time.sleep(0.02)


def _end_with_parent(parent: int) -> None:
    """Nobody reads the results of a process whose parent was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _serve(folder: Path, rank: int) -> None:
    import torch
    import torch.distributed as dist

    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    if job["device"] == "cuda":
        torch.cuda.set_device(rank)
    if job["ranks"] > 1:
        dist.init_process_group(
            "nccl" if job["device"] == "cuda" else "gloo",
            init_method=f"file://{folder / 'meeting'}",
            rank=rank,
            world_size=job["ranks"],
            timeout=_TIMEOUT,
        )
    module, _, function = job["target"].partition(":")
    result = getattr(importlib.import_module(module), function)(**job["arguments"])
    (folder / f"{rank}.json").write_text(json.dumps(result))
    if job["ranks"] > 1:
        dist.barrier()
        dist.destroy_process_group()


def main() -> None:
    """One process of ``on_ranks``."""
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        _serve(folder, rank)
    except Exception as error:
        words = str(error) if isinstance(error, VlkitError) else traceback.format_exc()
        (folder / f"{rank}.error").write_text(words)
        _log.error("%s", words)
        sys.exit(1)


if __name__ == "__main__":
    main()
