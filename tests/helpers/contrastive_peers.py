"""What the contrastive losses are measured against: float64 by brute force, and other ways to share them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vlkit.distributed.collectives import Ranks

WIDTH, EMBED = 6, 5
Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(image_bE, text_bE, scale, bias, ids_b) of this process to its part of the loss."""


def dense_softmax(image: Tensor, text: Tensor, scale: Tensor, *, ids: Tensor, duplicates: str) -> Tensor:
    """All logits at once, written after the definitions."""
    logits = scale * image @ text.T
    same, own = ids[:, None] == ids[None, :], torch.eye(len(ids), dtype=torch.bool)
    target = (same.to(logits.dtype) / same.sum(1, keepdim=True)) if duplicates == "positives" else own.to(logits.dtype)
    if duplicates == "ignore":
        logits = logits.masked_fill(same & ~own, -torch.inf)
    rows, cols = logits.log_softmax(1), logits.log_softmax(0)
    return -(rows[target > 0] + cols[target > 0]).mul(target[target > 0]).sum() / (2 * len(ids))


def dense_sigmoid(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, *, ids: Tensor, duplicates: str) -> Tensor:
    """Every pair of the batch as a question of its own."""
    logits = scale * image @ text.T + bias
    same, own = ids[:, None] == ids[None, :], torch.eye(len(ids), dtype=torch.bool)
    sign = torch.where(same if duplicates == "positives" else own, 1.0, -1.0)
    counted = ~(same & ~own) if duplicates == "ignore" else torch.ones_like(own)
    return -F.logsigmoid(sign * logits)[counted].sum() / len(ids)


def global_gather(image: Tensor, text: Tensor, scale: Tensor, *, ranks: Ranks) -> Tensor:
    """Every process forms all B x B logits from tensors gathered with gradients."""
    image, text = _gather(image, ranks), _gather(text, ranks)
    logits, targets = scale * image @ text.T, torch.arange(len(image))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def local_gather(image: Tensor, text: Tensor, scale: Tensor, *, ranks: Ranks, grads: bool = True) -> Tensor:
    """Two b x B blocks against gathered tensors; without ``grads`` nothing flows back through the gathering."""
    images, texts = (_gather(x, ranks) if grads else ranks.all_gather(x.detach()) for x in (image, text))
    targets = torch.arange(len(image)) + ranks.rank * len(image)
    one, two = scale * image @ texts.T, scale * text @ images.T
    return (F.cross_entropy(one, targets) + F.cross_entropy(two, targets)) / 2


def disco(image: Tensor, text: Tensor, scale: Tensor, *, ranks: Ranks) -> Tensor:
    """DisCo-CLIP: own rows are cut from gathered tensors, whose gradients are averaged over processes."""
    images, texts = (_AveragedGather.apply(x, ranks) for x in (image, text))
    own = slice(ranks.rank * len(image), (ranks.rank + 1) * len(image))
    targets = torch.arange(own.start, own.stop)
    one, two = scale * images[own] @ texts.T, scale * texts[own] @ images.T
    return (F.cross_entropy(one, targets) + F.cross_entropy(two, targets)) / 2


def _gather(x: Tensor, ranks: Ranks) -> Tensor:
    return x if ranks.size == 1 else torch.cat(torch.distributed.nn.functional.all_gather(x))


class _AveragedGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.all_gather(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ranks: Ranks = ctx.ranks
        size = len(grad) // ranks.size
        mean = ranks.all_reduce(grad.clone()) / ranks.size
        return mean[ranks.rank * size : (ranks.rank + 1) * size], None


class Towers(torch.nn.Module):
    """Two linear encoders, a log-scale and a bias, over a batch that all processes know."""

    def __init__(self, total: int, dtype: torch.dtype, *, scale: float = 8.0, bias: float = -3.0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.images, self.texts = (torch.randn(total, WIDTH, generator=draw, dtype=torch.float64) for _ in range(2))
        self.ids = torch.randint(0, max(2, total // 2), (total,), generator=draw)
        for name in ("image", "text"):
            weight = torch.randn(EMBED, WIDTH, generator=draw, dtype=torch.float64)
            setattr(self, name, torch.nn.Parameter(weight.to(dtype)))
        self.log_scale = torch.nn.Parameter(torch.tensor(scale, dtype=dtype).log())
        self.bias = torch.nn.Parameter(torch.tensor(bias, dtype=dtype))

    def forward(self, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        image = F.normalize(self.images[rows].to(self.image.dtype) @ self.image.T, dim=-1)
        text = F.normalize(self.texts[rows].to(self.text.dtype) @ self.text.T, dim=-1)
        return image, text, self.log_scale.exp(), self.bias, self.ids[rows]


def gradients(loss: Loss, ranks: Ranks, *, total: int, dtype: torch.dtype, **towers: float) -> dict[str, Any]:
    """The mean over processes of the loss and of each parameter's gradient, as DDP leaves them."""
    model, size = Towers(total, dtype, **towers), total // ranks.size
    value = loss(*model(slice(ranks.rank * size, (ranks.rank + 1) * size)))
    value.backward()
    found = {"loss": value.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: (ranks.all_reduce(x.clone().double()) / ranks.size).numpy() for name, x in found.items()}


@contextmanager
def group_that_waits(seconds: float, world: Ranks) -> Iterator[Ranks]:
    """All processes in a group of its own, in which nobody waits longer."""
    from datetime import timedelta

    group = dist.new_group(list(range(world.size)), timeout=timedelta(seconds=seconds))
    yield Ranks(world.rank, world.size, group)


def peak_bytes(function: Callable[[], Any]) -> int:
    """How much more memory tensors took at the highest point inside ``function`` than before it."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        function()
    kineto = prof.profiler.kineto_results  # type: ignore[union-attr]
    steps = [(event.start_ns(), event.nbytes()) for event in kineto.events() if event.name() == "[memory]"]
    now = top = 0
    for _, step in sorted(steps, key=lambda event: event[0]):
        now += step
        top = max(top, now)
    return top


def saved_bytes(function: Callable[[], Tensor]) -> int:
    """Bytes of all distinct storages that autograd keeps of ``function`` for the backward pass."""
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        value = function()
    del value
    return sum(kept.values())
