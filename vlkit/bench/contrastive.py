"""Contrastive losses beside open_clip's, in the same run: time, peak memory, bytes received, gradient error."""

from __future__ import annotations

import math
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from vlkit.bench.exact import Gradients, sigmoid_gradients, softmax_gradients
from vlkit.bench.figures import Figures, ratio
from vlkit.bench.losses import Setting, pairs
from vlkit.bench.ranks import on_ranks
from vlkit.errors import VlkitError

_OPERATIONS = {"softmax": 8, "sigmoid": 6}  # times b B D: products of a step of ours (the sigmoid needs no second pass)
_PEER_BYTES = {"softmax": 16, "sigmoid": 14}  # times b B: float32 blocks that open_clip holds at its peak
_MEMORY = {"cpu": "resident memory, high-water mark of a fresh process", "cuda": "PyTorch's allocator, peak"}


Found = list[dict[str, Any]]
"""What ``losses.measure`` found, of each process."""


def bench_contrastive(
    setting: Setting, *, ranks: int = 1, repeats: int = 5, check: bool = True, tell: Callable[[str], object] = str
) -> Figures:
    """Measures vlkit's loss and open_clip's by turns, on the same embeddings, in processes of their own.

    open_clip runs the mode of its losses that is exact and cheapest: ``local_loss`` with ``gather_with_grad``. Memory
    is measured in fresh processes, one side each. A peer that does not fit the memory of the machine is left out, and
    ``notes`` says so.
    ``check`` compares gradients with float64 (8 B^2 D operations in double precision, in this process).

    Returns:
        Figures as docs/benchmarks.md says. Ratios are vlkit's over open_clip's; below 1 is better. ``peer_*`` is of
        open_clip what ``ours_*`` (or the name without ``peer_``) is of vlkit.

    Raises:
        VlkitError: Too few GPUs, or a process failed.
    """
    if setting.device == "cuda" and torch.cuda.device_count() < ranks:
        raise VlkitError(f"{ranks} ranks need as many GPUs, there are {torch.cuda.device_count()}; set --device cpu")
    sides, notes = ["vlkit"], _missing_memory(setting, ranks)
    if not notes:
        sides.append("open_clip")
        if ranks == 1 and setting.loss == "softmax":
            sides.append("transformers")
    with tempfile.TemporaryDirectory(prefix="vlkit-bench-") as folder:
        if check:
            tell("gradients in float64")
            write_reference(setting, Path(folder), ranks=ranks, groups=1)
        tell("time")
        reference = dict.fromkeys(sides, folder) if check else {}
        found = measured("measure", setting, ranks=ranks, sides=sides, repeats=repeats, reference=reference)
    tell("memory")
    peaks = {name: max(measured("measure_memory", setting, ranks=ranks, name=name)) for name in sides[:2]}
    return _result(setting, found, peaks, repeats=repeats, notes=notes)


def _result(setting: Setting, found: Found, peaks: dict[str, int], *, repeats: int, notes: tuple[str, ...]) -> Figures:
    sides = list(found[0]["sides"])
    ours = summary(found, "vlkit")
    peer = summary(found, "open_clip") if "open_clip" in sides else None
    return Figures(
        time_ratio=paired(found, "seconds", "vlkit", "open_clip") if peer else None,
        memory_ratio=peaks["vlkit"] / max(1, peaks["open_clip"]) if peer else None,
        bytes_ratio=ours.received / peer.received if peer and peer.received else None,  # None for one process
        gradient_error=ours.error,
        peer_gradient_error=peer.error if peer else None,
        cpu_ratio=paired(found, "cpu_seconds", "vlkit", "open_clip") if peer else None,
        ours_s=ours.seconds,  # a step
        peer_s=peer.seconds if peer else None,
        ours_mb=peaks["vlkit"] / 1e6,  # extra at the peak, a process
        peer_mb=peaks["open_clip"] / 1e6 if peer else None,
        ours_bytes=ours.received,
        peer_bytes=peer.received if peer else None,
        ours_collectives=ours.collectives,  # calls of the whole group a step
        peer_collectives=peer.collectives if peer else None,
        ours_tflops=_OPERATIONS[setting.loss] * setting.batch**2 * len(found) * setting.dim / ours.seconds / 1e12,
        matrix_tflops=min(rank["matrix_rate"] for rank in found) / 1e12,
        peer=peer_name(setting),
        loss=setting.loss,
        ranks=len(found),
        batch=setting.batch,
        dim=setting.dim,
        scale=setting.scale,
        precision=setting.precision,
        exchange=setting.exchange,
        device=setting.device,
        memory=_MEMORY[setting.device],
        repeats=repeats,
        others={name: summary(found, name).seconds for name in sides[2:]},  # seconds a step of more peers
        notes=notes,  # what could not be measured, and why
    )


def measured(function: str, setting: Setting, *, ranks: int, places: Any = None, **arguments: Any) -> list[Any]:
    """A function of ``losses`` on every process."""
    target = f"vlkit.bench.losses:{function}"
    return on_ranks(
        target, {"setting": asdict(setting), **arguments}, ranks=ranks, device=setting.device, **(places or {})
    )


def summary(found: Found, name: str) -> Figures:
    """What ``losses.measure`` found for a side: of all processes the slowest, the most, the largest error."""
    here = [rank["sides"][name] for rank in found]
    squares = [
        [sum(column) for column in zip(*(rank["errors"][key] for rank in here), strict=True)]
        for key in here[0]["errors"]
    ]
    return Figures(
        **{key: max(rank[key] for rank in here) for key in ("received", "collectives", "crossing")},
        seconds=statistics.median(slowest(found, name, "seconds")),
        error=max((math.sqrt(off / whole) for off, whole in squares if whole), default=None),
    )


def paired(found: Found, key: str, ours: str, theirs: str) -> float:
    """The ratio of two sides' times."""
    return ratio(slowest(found, ours, key), slowest(found, theirs, key))


def slowest(found: Found, name: str, key: str) -> list[float]:
    """The time of each repeat of a side on its slowest process."""
    return [max(times) for times in zip(*(rank["sides"][name][key] for rank in found), strict=True)]


def write_reference(setting: Setting, folder: Path, *, ranks: int, groups: int) -> None:
    """The exact gradients of the mean loss over groups, one file for each process."""
    from safetensors.torch import save_file

    rows = [pairs(replace(setting, device="cpu"), rank) for rank in range(ranks)]
    size, per_group = setting.batch, ranks // groups
    exact: list[Gradients] = []
    for start in range(0, ranks, per_group):
        image_BD, text_BD = (
            torch.cat([rows[rank][side].detach() for rank in range(start, start + per_group)]).to(setting.device)
            for side in (0, 1)
        )
        if setting.loss == "softmax":
            exact.append(softmax_gradients(image_BD, text_BD, setting.scale))
        else:
            exact.append(sigmoid_gradients(image_BD, text_BD, setting.scale, setting.bias))
    scalars = {name: sum(getattr(part, name) for part in exact) / groups for name in ("scale", "bias")}
    for rank in range(ranks):
        own = slice(rank % per_group * size, (rank % per_group + 1) * size)
        part = exact[rank // per_group]
        tensors = {"image_bD": part.image_BD[own] / groups, "text_bD": part.text_BD[own] / groups, **scalars}
        # Contiguous copies: slices would take the whole batch along.
        save_file({name: torch.as_tensor(x).clone() for name, x in tensors.items()}, folder / f"{rank}.safetensors")


def pick_device(wanted: Literal["auto", "cpu", "cuda"], ranks: int) -> str:
    """``auto`` takes GPUs where there is one for each rank."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() and torch.cuda.device_count() >= ranks else "cpu"
    return wanted


def read_sizes(text: str) -> list[int]:
    """Numbers of pairs from ``4096,8192``; none from an empty text.

    Raises:
        VlkitError: Something else.
    """
    try:
        sizes = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        sizes = [0]
    if any(size < 2 for size in sizes):
        raise VlkitError(f"--sizes is {text!r}; give whole numbers of at least 2, as in 4096,8192")
    return sizes


def peer_name(setting: Setting) -> str:
    """The peer, its version and its mode."""
    mode = "SigLipLoss" if setting.loss == "sigmoid" else "ClipLoss(local_loss, gather_with_grad, cache_labels)"
    return f"open_clip_torch {version('open_clip_torch')} {mode}"


def _missing_memory(setting: Setting, ranks: int) -> tuple[str, ...]:
    need = _PEER_BYTES[setting.loss] * setting.batch**2 * ranks
    if setting.device == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        need, free = need * ranks, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if need < 0.9 * free:
        return ()
    return (f"open_clip's logits need some {need / 2**30:.0f} GiB and {free / 2**30:.0f} are free: not measured",)
