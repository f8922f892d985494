"""Contrastive losses beside open_clip's, in the same run: time, peak memory, bytes received, gradient error."""

from __future__ import annotations

import math
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
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


@dataclass(frozen=True)
class ContrastiveBench(Figures):
    """Ratios are vlkit's figure over open_clip's; below 1 is better. Medians of repeats, the slowest process counts.

    ``peer_*`` is of open_clip what ``ours_*`` (or the name without ``peer_``) is of vlkit.

    Attributes:
        time_ratio: Of the wall-clock time of forward and backward, the median over neighbouring repeats.
        memory_ratio: Of the extra memory at the peak.
        bytes_ratio: Of the bytes that a process receives in one step; None for one process.
        gradient_error: The largest relative error of a gradient (images, texts, scale, bias) against float64.
        cpu_ratio: Of the processor time of a process, which other work on the machine changes less.
        ours_s: Seconds a step.
        ours_mb: Extra megabytes (10^6) at the peak, a process.
        ours_bytes: Bytes a process receives in a step.
        ours_collectives: Calls of the whole group a step.
        ours_tflops: Operations of our matrix products a second and process, in 10^12.
        matrix_tflops: What one process's matrix product alone reaches here, in 10^12.
        others: Seconds a step of more peers.
        notes: What could not be measured, and why.
    """

    time_ratio: float | None
    memory_ratio: float | None
    bytes_ratio: float | None
    gradient_error: float | None
    peer_gradient_error: float | None
    cpu_ratio: float | None
    ours_s: float
    peer_s: float | None
    ours_mb: float
    peer_mb: float | None
    ours_bytes: int
    peer_bytes: int | None
    ours_collectives: int
    peer_collectives: int | None
    ours_tflops: float
    matrix_tflops: float
    peer: str
    loss: str
    ranks: int
    batch: int
    dim: int
    scale: float
    precision: str
    exchange: str
    device: str
    memory: str
    repeats: int
    others: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def bench_contrastive(
    setting: Setting, *, ranks: int = 1, repeats: int = 5, check: bool = True, tell: Callable[[str], object] = str
) -> ContrastiveBench:
    """Measures vlkit's loss and open_clip's by turns, on the same embeddings, in processes of their own.

    open_clip runs the mode of its losses that is exact and cheapest: ``local_loss`` with ``gather_with_grad``. Memory
    is measured in fresh processes, one side each. A peer that does not fit the memory of the machine is left out, and
    ``notes`` says so.
    ``check`` compares gradients with float64 (8 B^2 D operations in double precision, in this process).

    Raises:
        VlkitError: Too few GPUs, or a process failed.
    """
    if setting.device == "cuda" and torch.cuda.device_count() < ranks:
        raise VlkitError(f"{ranks} ranks need as many GPUs, there are {torch.cuda.device_count()}; set --device cpu")
    sides, notes = ["vlkit"], []
    short = _missing_memory(setting, ranks)
    if short:
        notes.append(short)
    else:
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
    common = {"ranks": ranks, "repeats": repeats, "notes": tuple(notes)}
    return _result(setting, found, peaks, **common)


def _result(setting: Setting, found: Found, peaks: dict[str, int], **common: Any) -> ContrastiveBench:
    sides = list(found[0]["sides"])
    ours = summary(found, "vlkit")
    peer = summary(found, "open_clip") if "open_clip" in sides else None
    return ContrastiveBench(
        time_ratio=paired(found, "seconds", "vlkit", "open_clip") if peer else None,
        memory_ratio=peaks["vlkit"] / max(1, peaks["open_clip"]) if peer else None,
        bytes_ratio=ours.received / peer.received if peer and peer.received else None,
        gradient_error=ours.error,
        peer_gradient_error=peer.error if peer else None,
        cpu_ratio=paired(found, "cpu_seconds", "vlkit", "open_clip") if peer else None,
        ours_s=ours.seconds,
        peer_s=peer.seconds if peer else None,
        ours_mb=peaks["vlkit"] / 1e6,
        peer_mb=peaks["open_clip"] / 1e6 if peer else None,
        ours_bytes=ours.received,
        peer_bytes=peer.received if peer else None,
        ours_collectives=ours.collectives,
        peer_collectives=peer.collectives if peer else None,
        ours_tflops=_OPERATIONS[setting.loss] * setting.batch**2 * len(found) * setting.dim / ours.seconds / 1e12,
        matrix_tflops=min(rank["matrix_rate"] for rank in found) / 1e12,
        peer=peer_name(setting),
        **{key: getattr(setting, key) for key in ("loss", "batch", "dim", "scale", "precision", "exchange", "device")},
        memory=_MEMORY[setting.device],
        others={name: summary(found, name).seconds for name in sides[2:]},
        **common,
    )


@dataclass(frozen=True)
class Summary:
    """One side over all processes: the slowest, the most, the largest."""

    seconds: float
    received: int
    collectives: int
    crossing: int
    error: float | None


def measured(function: str, setting: Setting, *, ranks: int, places: Any = None, **arguments: Any) -> list[Any]:
    """A function of ``losses`` on every process."""
    target = f"vlkit.bench.losses:{function}"
    return on_ranks(
        target, {"setting": asdict(setting), **arguments}, ranks=ranks, device=setting.device, **(places or {})
    )


def summary(found: Found, name: str) -> Summary:
    """What ``losses.measure`` found for a side."""
    here = [rank["sides"][name] for rank in found]
    squares = [
        [sum(column) for column in zip(*(rank["errors"][key] for rank in here), strict=True)]
        for key in here[0]["errors"]
    ]
    return Summary(
        seconds=statistics.median(slowest(found, name, "seconds")),
        received=max(rank["received"] for rank in here),
        collectives=max(rank["collectives"] for rank in here),
        crossing=max(rank["crossing"] for rank in here),
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


def _missing_memory(setting: Setting, ranks: int) -> str:
    need = _PEER_BYTES[setting.loss] * setting.batch**2 * ranks
    if setting.device == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        need, free = need * ranks, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if need < 0.9 * free:
        return ""
    return f"open_clip's logits need some {need / 2**30:.0f} GiB and {free / 2**30:.0f} are free: not measured"
