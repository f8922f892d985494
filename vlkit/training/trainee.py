"""A model that trains, alone or with its copies or pieces in other processes: from a batch to gradients.

Each process's loss has a gradient whose mean over processes is that of the global mean loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlkit.distributed.runtime import Runtime, autocast
from vlkit.distributed.sharding import copies, cut, fill, is_piece, tensors_of, whole, without_weights
from vlkit.models.trainable import refuse_batch_norm
from vlkit.spec.training import LoopSpec
from vlkit.training.switches import blocks
from vlkit.types import Batch, Loss, Model, Objective, Piece, as_module


class _Step(nn.Module):
    """The whole way from a batch to its loss as one module, so that wrappers see every use of a parameter."""

    def __init__(self, model: nn.Module, objective: Objective[Any, Any]) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Any) -> Loss:
        """The loss of this process's rows."""
        return self.objective(self.model, batch)


class Trainee:
    """A model that trains for one stage.

    ``home`` takes part itself, or with fsdp a twin in pieces does (see ``settle``).

    Attributes:
        model: What the optimizer moves: parameters are named as those of ``home``.
    """

    def __init__(self, home: Model, objective: Objective[Any, Any], *, runtime: Runtime, loop: LoopSpec) -> None:
        self.home, self.objective, self.runtime, self.loop = home, objective, runtime, loop
        self.in_pieces = loop.parallel == "fsdp" and runtime.ranks.size > 1
        self.model: Model = home
        if self.in_pieces:
            module = as_module(home).cpu()
            self.model = cast("Model", without_weights(module))
            self._step: nn.Module = _Step(as_module(self.model), objective)
            inner = [block for part in self.model.parts().values() for block in blocks(part)]
            cut(self._step, inner, runtime)
            fill(self._step, as_module(self.model), module, runtime.device)
        else:
            step = _Step(as_module(home), objective)
            self._step = step if runtime.ranks.size == 1 else copies(step, runtime)

    @property
    def _trains(self) -> list[nn.Parameter]:
        return [parameter for parameter in as_module(self.model).parameters() if parameter.requires_grad]

    def __call__(self, batch: Batch) -> Loss:
        """The loss of this process's rows, and in ``grad`` its gradient as the mean over processes.

        With ``loop.micro_batch`` the rows go through the model piece by piece, as the objective cuts them; figures of
        the pieces are averaged with the weights of their losses.
        """
        size = self.loop.micro_batch
        pieces = [Piece(batch)] if size is None else self.objective.pieces(batch, size)
        if len(pieces) > 1:
            refuse_batch_norm(as_module(self.model))
        for parameter in self._trains:
            parameter.grad = None
        losses = []
        for number, piece in enumerate(pieces, start=1):
            with self._communicating(number == len(pieces)):
                with autocast(self.loop, self.runtime.device):
                    loss: Loss = self._step(piece.batch)
                total = loss.total if len(pieces) == 1 else loss.total * piece.weight
                total.backward()  # type: ignore[no-untyped-call]
            losses.append((piece.weight, loss))
        self._average_loose()
        return losses[0][1] if len(losses) == 1 else _joined(losses)

    @contextmanager
    def _communicating(self, wanted: bool) -> Iterator[None]:
        """Gradients of pieces are summed up here, and go to the other processes with the last piece."""
        if self.in_pieces:
            self._step.set_requires_gradient_sync(wanted)  # type: ignore[operator]
            yield
            return
        quiet = not wanted and isinstance(self._step, nn.parallel.DistributedDataParallel)
        with self._step.no_sync() if quiet else nullcontext():  # type: ignore[operator]
            yield

    def _average_loose(self) -> None:
        """With fsdp, the gradients of what is not in pieces."""
        loose = [p.grad for p in self._trains if p.grad is not None and not is_piece(p)] if self.in_pieces else []
        if loose:
            mean = self.runtime.ranks.all_reduce(torch.stack(loose)) / self.runtime.ranks.size
            for grad, value in zip(loose, mean, strict=True):
                grad.copy_(value)

    def clip(self, max_norm: float | None) -> Tensor:
        """Scales gradients down to a global L2 norm of ``max_norm``; returns the norm they had, equal on all ranks."""
        if not self.in_pieces:
            return torch.nn.utils.clip_grad_norm_(self._trains, max_norm or math.inf)
        grads = [p.grad for p in self._trains if p.grad is not None]
        pieces: list[Tensor] = [grad.to_local() for grad in grads if is_piece(grad)]  # type: ignore[attr-defined]
        loose = [grad for grad in grads if not is_piece(grad)]
        square = torch.zeros((), device=self.runtime.device)
        for piece in pieces:
            square += piece.float().square().sum()
        self.runtime.ranks.all_reduce(square)
        for grad in loose:
            square += grad.square()
        norm = square.sqrt()
        factor = ((max_norm or math.inf) / (norm + 1e-6)).clamp(max=1.0)
        for grad in (*pieces, *loose):
            grad.mul_(factor)
        return norm

    def settle(self) -> None:
        """Brings ``home`` up to date; every process calls it."""
        if not self.in_pieces:
            return
        with torch.no_grad():
            ours, theirs = tensors_of(as_module(self.home)), tensors_of(as_module(self.model))
            for (_, mine), (_, other) in zip(ours, theirs, strict=True):
                if other.requires_grad or not isinstance(other, nn.Parameter):
                    mine.copy_(whole(other))


def _joined(losses: Sequence[tuple[float, Loss]]) -> Loss:
    parts: dict[str, Tensor] = {}
    shares: dict[str, float] = {}
    for weight, loss in losses:
        for name, value in loss.parts.items():
            parts[name] = parts.get(name, 0) + weight * value
            shares[name] = shares.get(name, 0.0) + weight
    total = torch.stack([weight * loss.total.detach() for weight, loss in losses]).sum()
    return Loss(total, {name: value / (shares[name] or 1.0) for name, value in parts.items()})
