"""One training step over several processes: the only file that knows DDP and FSDP2.

Gradients follow law 20: each process's loss has a gradient whose mean over processes is that of the global mean loss.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vlkit.distributed.runtime import Runtime
from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.training.switches import blocks
from vlkit.types import Batch, Loss, Objective


class _Step(nn.Module):
    """The whole way from a batch to its loss as one module, so that wrappers see every use of a parameter."""

    def __init__(self, model: DualEncoder, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Loss:
        """The loss of this process's pairs."""
        return self.objective(self.model, batch)


class Trainee:
    """A model that trains for one stage, alone or with its copies or pieces in other processes.

    Args:
        home: The model. It takes part itself, or with fsdp a copy in pieces does (see ``settle``).
        objective: Its loss.
        runtime: The processes.
        parallel: How they share the work, where there are several.

    Attributes:
        model: What the optimizer moves: parameters are named as those of ``home``.
    """

    def __init__(
        self, home: DualEncoder, objective: Objective, *, runtime: Runtime, parallel: Literal["auto", "ddp", "fsdp"]
    ) -> None:
        self.home, self.runtime = home, runtime
        self.in_pieces = parallel == "fsdp" and runtime.ranks.size > 1
        self.model = copy.deepcopy(home.cpu()) if self.in_pieces else home
        step = _Step(self.model, objective)
        if self.in_pieces:
            _shard(step, runtime)
            self._step: nn.Module = step
        else:
            self._step = step if runtime.ranks.size == 1 else _ddp(step)

    @property
    def _trains(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def __call__(self, batch: Batch) -> Loss:
        """The loss of this process's pairs."""
        loss: Loss = self._step(batch)
        return loss

    def backward(self, total: Tensor) -> None:
        """Gradients of all that trains, as their mean over processes."""
        total.backward()  # type: ignore[no-untyped-call]
        if self.in_pieces:
            loose = [p.grad for p in self._trains if p.grad is not None and not _is_piece(p)]
            if loose:
                mean = self.runtime.ranks.all_reduce(torch.stack(loose)) / self.runtime.ranks.size
                for grad, value in zip(loose, mean, strict=True):
                    grad.copy_(value)

    def clip(self, max_norm: float | None) -> Tensor:
        """Scales gradients down to a global L2 norm of ``max_norm``; returns the norm they had, equal on all ranks."""
        if not self.in_pieces:
            return torch.nn.utils.clip_grad_norm_(self._trains, max_norm or math.inf)
        grads = [p.grad for p in self._trains if p.grad is not None]
        pieces: list[Tensor] = [grad.to_local() for grad in grads if _is_piece(grad)]  # type: ignore[attr-defined]
        loose = [grad for grad in grads if not _is_piece(grad)]
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
            for (_, mine), (_, theirs) in zip(_state(self.home), _state(self.model), strict=True):
                if theirs.requires_grad or not isinstance(theirs, nn.Parameter):
                    mine.copy_(whole(theirs))


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may lie in pieces in all processes; every process calls it."""
    if not _is_piece(tensor):
        return tensor.detach()
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full.detach()


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, equal in all processes, placed and cut as a parameter is."""
    if not _is_piece(parameter):
        return tensor.to(parameter.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    piece: Any = parameter
    local: DTensor = distribute_tensor(tensor.to(piece.device), piece.device_mesh, piece.placements, src_data_rank=None)
    return local


def check_equal(digests: Mapping[str, str], runtime: Runtime) -> None:
    """Checks that all processes start from the same weights.

    Raises:
        VlkitError: They do not; on every process, with the tensors that differ.
    """
    first, *others = runtime.host.gather_objects(dict(digests))
    for rank, other in enumerate(others, start=1):
        differ = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if differ:
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise VlkitError(
                f"ranks 0 and {rank} start from different weights ({', '.join(differ[:3])}{more}); every machine needs "
                f"the same recipe, weights and versions of vlkit and torch"
            )


def share_heads(model: nn.Module, runtime: Runtime) -> None:
    """Gives every process what rank 0 worked out outside of the encoders: solvers round in their own ways."""
    if runtime.ranks.size == 1:
        return
    for name, tensor in _state(model):
        if not name.startswith(("image.", "text.")):
            dist.broadcast(tensor.data, 0)


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _is_piece(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def _ddp(step: _Step) -> nn.Module:
    # Unused parameters are looked for in every step: a loss may leave some out (a bias has no gradient in a softmax),
    # and gradients are then summed in the same buckets in all steps, which a resumed run needs to be exact. One that
    # is never used keeps DDP from warning where there is none.
    step.register_parameter("never_used", nn.Parameter(torch.zeros((), device=step.model.log_scale.device)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of an argument that older versions need
        return nn.parallel.DistributedDataParallel(step, broadcast_buffers=False, find_unused_parameters=True)


def _shard(step: _Step, runtime: Runtime) -> None:
    """Cuts what trains into pieces, block by block; the rest is small (scalars) or frozen, and whole everywhere."""
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise VlkitError("loop.parallel = fsdp needs torch 2.7 or newer; use loop.parallel=ddp") from error
    mesh = init_device_mesh(runtime.device.type, (runtime.ranks.size,))
    whole_ones = {p for p in step.parameters() if not p.requires_grad or p.ndim == 0}
    encoders = (step.model.get_submodule("image"), step.model.get_submodule("text"))
    for block in dict.fromkeys(block for encoder in encoders for block in blocks(encoder)):  # they may share some
        if any(parameter not in whole_ones for parameter in block.parameters()):
            fully_shard(block, mesh=mesh, ignored_params=whole_ones)
    fully_shard(step, mesh=mesh, ignored_params=whole_ones)
    for parameter in whole_ones:
        parameter.data = parameter.data.to(runtime.device)
