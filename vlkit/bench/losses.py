"""Contrastive losses as sides of a benchmark: each is called the same way, and measured in the processes of a group.

Shapes: b pairs of a process, B of all, D embedding width.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vlkit.bench.figures import by_turns
from vlkit.bench.memory import extra_memory
from vlkit.bench.traffic import Traffic
from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.types import Embeddings

LossName = Literal["softmax", "sigmoid"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SMALL = 64  # pairs of the call that loads libraries and meets the other processes


@dataclass(frozen=True)
class Setting:
    """What is measured: ``batch`` pairs a process, embeddings ``dim`` wide, of two bytes inside autocast for ``bf16``.

    ``exchange`` is how our side sends texts, ``group_size`` the processes that share negatives on the side ``grouped``;
    ``scale`` of similarities, ``bias`` of the sigmoid loss; ``device`` is ``cpu`` or ``cuda``.
    """

    loss: LossName = "softmax"
    batch: int = 8192
    dim: int = 512
    precision: Literal["fp32", "bf16"] = "fp32"
    exchange: Literal["gather", "ring"] = "gather"
    group_size: int = 1
    scale: float = 1 / 0.07
    bias: float = -10.0
    device: str = "cpu"


class Pairs(NamedTuple):
    """Embeddings of one process and the scalars of the loss, all leaves."""

    image_bD: Tensor
    text_bD: Tensor
    scale: Tensor
    bias: Tensor


def pairs(setting: Setting, rank: int, *, count: int | None = None) -> Pairs:
    """Random directions; a text has a cosine near 0.4 with its image, as in a model half trained."""
    random = torch.Generator().manual_seed(1000 + rank)
    shape = (count or setting.batch, setting.dim)
    image_bD = torch.nn.functional.normalize(torch.randn(shape, generator=random), dim=1)
    noise_bD = torch.nn.functional.normalize(torch.randn(shape, generator=random), dim=1)
    text_bD = torch.nn.functional.normalize(0.4 * image_bD + 0.9 * noise_bD, dim=1)
    dtype, device = _DTYPES[setting.precision], setting.device
    return Pairs(
        image_bD.to(device, dtype).requires_grad_(),
        text_bD.to(device, dtype).requires_grad_(),
        torch.tensor(setting.scale, device=device, requires_grad=True),
        torch.tensor(setting.bias, device=device, requires_grad=True),
    )


Side = Callable[[Pairs], Tensor]


def side(name: str, setting: Setting, ranks: Ranks) -> Side:
    """A loss by its name; every process must ask for the same.

    ``vlkit``, ``vlkit grouped``, ``open_clip`` (its exact, cheapest mode over all processes) and ``transformers`` (the
    CLIP loss of one process).

    Raises:
        VlkitError: A loss that does not go with the setting.
    """
    if name == "vlkit":
        return _vlkit(setting, ranks)
    if name == "vlkit grouped":
        return _vlkit(setting, ranks.groups_of(setting.group_size))
    if name == "open_clip":
        return _open_clip(setting, ranks)
    if name == "transformers" and ranks.size == 1 and setting.loss == "softmax":
        return _transformers()
    raise VlkitError(f"no side {name!r} for the {setting.loss} loss over {ranks.size} processes")


def _vlkit(setting: Setting, ranks: Ranks) -> Side:
    from vlkit.objectives.pairs.contrastive.sigmoid import sigmoid_contrastive
    from vlkit.objectives.pairs.contrastive.softmax import softmax_contrastive

    loss = softmax_contrastive if setting.loss == "softmax" else sigmoid_contrastive
    return lambda p: loss(Embeddings(*p), ranks=ranks, exchange=setting.exchange).loss


def _open_clip(setting: Setting, ranks: Ranks) -> Side:
    losses, place = _open_clip_losses(), {"rank": ranks.rank, "world_size": ranks.size}
    if setting.loss == "sigmoid":
        sigmoid = losses.SigLipLoss(**place)
        return lambda p: sigmoid(p.image_bD, p.text_bD, p.scale, p.bias)
    softmax = losses.ClipLoss(local_loss=True, gather_with_grad=True, cache_labels=True, **place)
    return lambda p: softmax(p.image_bD, p.text_bD, p.scale)


def _open_clip_losses() -> Any:
    """open_clip's module of losses, without the model libraries that the whole package takes seconds to import."""
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise VlkitError("open_clip, the peer of this benchmark, is not installed; run: pip install open_clip_torch")
    spec = importlib.util.spec_from_file_location("_peer", Path(package.submodule_search_locations[0]) / "loss.py")
    if spec is None or spec.loader is None:
        raise VlkitError("this open_clip has no loss.py; install open_clip_torch >= 3")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _transformers() -> Side:
    from transformers.models.clip import modeling_clip

    loss = getattr(modeling_clip, "image_text_contrastive_loss", None) or modeling_clip.clip_loss  # transformers < 5
    return lambda p: loss(p.scale * p.text_bD @ p.image_bD.T)


def _step(loss: Side, leaves: Pairs, setting: Setting) -> Pairs:
    """Forward and backward; the leaves then hold gradients."""
    for leaf in leaves:
        leaf.grad = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers call functions that are deprecated; that is theirs to mend
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16"):
            value = loss(leaves)
        value.backward()  # type: ignore[no-untyped-call]
    if setting.device == "cuda":
        torch.cuda.synchronize()
    return leaves


def measure(*, setting: dict[str, Any], sides: list[str], repeats: int, reference: dict[str, str]) -> dict[str, Any]:
    """Time, bytes and errors of each side in this process, sides by turns, and its rate of a matrix product.

    Each side is called once before it is timed. ``reference`` is, by side, the folder of the exact gradients of each
    process; other sides are not compared.
    """
    ranks, chosen = Ranks.world(), Setting(**setting)
    leaves = pairs(chosen, ranks.rank)
    losses = {name: side(name, chosen, ranks) for name in sides}
    found: dict[str, dict[str, Any]] = {}
    for name, loss in losses.items():
        with Traffic() as traffic:
            _step(loss, leaves, chosen)
        crossing = traffic.crossing(chosen.group_size)
        found[name] = {
            "seconds": [],
            "cpu_seconds": [],
            "received": traffic.received_bytes,
            "collectives": traffic.collectives,
            "crossing": sum(call.received for call in crossing),
            "crossing_calls": len(crossing),
            "errors": _errors(leaves, ranks, reference[name]) if name in reference else {},
        }
    for _, name in by_turns(losses, repeats):
        ranks.barrier()
        start, cpu = time.perf_counter(), time.process_time()
        _step(losses[name], leaves, chosen)
        found[name]["cpu_seconds"].append(time.process_time() - cpu)
        ranks.barrier()  # a step is done when it is done everywhere
        found[name]["seconds"].append(time.perf_counter() - start)
    return {"sides": found, "matrix_rate": _matrix_rate(chosen)}


def measure_memory(*, setting: dict[str, Any], name: str) -> int:
    """Extra bytes at the peak of one step of one side in this process, its gradients included."""
    ranks, chosen = Ranks.world(), Setting(**setting)
    loss = side(name, chosen, ranks)
    _step(loss, pairs(chosen, ranks.rank, count=min(_SMALL, chosen.batch)), chosen)
    leaves = pairs(chosen, ranks.rank)
    ranks.barrier()
    return extra_memory(lambda: _step(loss, leaves, chosen), device=chosen.device)


def _matrix_rate(setting: Setting, repeats: int = 5) -> float:
    """Operations a second of this process's matrix product, the best of some, while the others do the same."""
    size = 8192 if setting.device == "cuda" else 1024
    left = torch.randn(size, size, device=setting.device, dtype=_DTYPES[setting.precision])
    best = 0.0
    for _ in range(repeats + 1):
        start = time.perf_counter()
        left @ left
        if setting.device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def _errors(leaves: Pairs, ranks: Ranks, folder: str) -> dict[str, list[float]]:
    """Of each tensor: the squared length of the difference from the exact gradient, and of the exact gradient.

    A process's embeddings get W times their gradient in the mean over W processes.
    """
    from safetensors.torch import load_file

    exact = load_file(Path(folder) / f"{ranks.rank}.safetensors", device=str(leaves.image_bD.device))
    found = {}
    for name, leaf in zip(Pairs._fields, leaves, strict=True):
        if leaf.grad is None:
            continue
        mine = leaf.grad.double()
        mine = mine / ranks.size if mine.ndim else ranks.all_reduce(mine.clone()) / ranks.size
        found[name] = [(mine - exact[name]).square().sum().item(), exact[name].square().sum().item()]
    return found
