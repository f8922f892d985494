"""Copies and pieces of a model in several processes: the only file that knows DDP and FSDP2."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vlkit.distributed.runtime import Runtime
from vlkit.errors import VlkitError, some


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers by name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def whole(tensor: Tensor) -> Tensor:
    """Puts a tensor together that may lie in pieces in all processes; every process calls it."""
    if not is_piece(tensor):
        return tensor.detach()
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full.detach()


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, equal in all processes, placed and cut as a parameter is; only the own piece is copied."""
    if not is_piece(parameter):
        return tensor.to(parameter.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    piece: Any = parameter
    local: DTensor = distribute_tensor(tensor.to(piece.device), piece.device_mesh, piece.placements, src_data_rank=None)
    return local


def is_piece(tensor: Tensor) -> bool:
    """Whether a tensor lies in pieces in all processes."""
    return hasattr(tensor, "full_tensor")


def check_equal(digests: Mapping[str, str], runtime: Runtime) -> None:
    """Checks that all processes start from the same weights.

    Raises:
        VlkitError: They do not; on every process, with the tensors that differ.
    """
    first, *others = runtime.host.gather_objects(dict(digests))
    for rank, other in enumerate(others, start=1):
        differ = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if differ:
            raise VlkitError(
                f"ranks 0 and {rank} start from different weights ({some(differ, most=3)}); every machine needs "
                f"the same recipe, weights and versions of vlkit and torch"
            )


def share(model: nn.Module, names: Collection[str], runtime: Runtime) -> None:
    """Gives every process the tensors of these names as rank 0 has them: solvers round in their own ways."""
    wanted = set().union(*runtime.host.gather_objects(set(names)))
    for name, tensor in tensors_of(model):
        if name in wanted:
            dist.broadcast(tensor.data, 0)


def copies(step: nn.Module, runtime: Runtime) -> nn.Module:
    """The module with its gradients averaged over processes (DDP)."""
    # Unused parameters are looked for in every step: a loss may leave some out (a bias has no gradient in a softmax),
    # and gradients are then summed in the same buckets in all steps, which a resumed run needs to be exact. One that
    # is never used keeps DDP from warning where there is none.
    step.register_parameter("never_used", nn.Parameter(torch.zeros((), device=runtime.device)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of an argument that older versions need
        return nn.parallel.DistributedDataParallel(step, broadcast_buffers=False, find_unused_parameters=True)


def without_weights(home: nn.Module) -> nn.Module:
    """A twin of a module on the meta device; what ``home`` shares between its parts, the twin shares too."""
    memo: dict[int, Any] = {}
    for _, tensor in tensors_of(home):
        empty = torch.empty_like(tensor, device="meta")
        trains = tensor.requires_grad
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=trains) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(home, memo)


def cut(step: nn.Module, blocks: Iterable[nn.Module], runtime: Runtime) -> None:
    """Cuts what trains into pieces, block by block (FSDP2); the rest is scalars or frozen, and whole everywhere.

    ``step`` is all that a step runs, perhaps on the meta device; ``blocks`` inside it are gathered one after the other
    for a forward pass.

    Raises:
        VlkitError: This version of torch has no FSDP2.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise VlkitError("loop.parallel = fsdp needs torch 2.7 or newer; use loop.parallel=ddp") from error
    mesh = init_device_mesh(runtime.device.type, (runtime.ranks.size,))
    whole_ones = {p for p in step.parameters() if not p.requires_grad or p.ndim == 0}
    for block in dict.fromkeys(blocks):  # parts may share some
        if any(parameter not in whole_ones for parameter in block.parameters()):
            fully_shard(block, mesh=mesh, ignored_params=whole_ones)
    fully_shard(step, mesh=mesh, ignored_params=whole_ones)


@torch.no_grad()
def fill(step: nn.Module, twin: nn.Module, home: nn.Module, device: torch.device) -> None:
    """Gives a twin inside ``step`` the values of ``home``, tensor by tensor.

    Each process copies its own pieces alone; what is whole and on the same device is not copied but shared.
    """
    known = {**dict(home.named_parameters(remove_duplicate=False)), **dict(home.named_buffers(remove_duplicate=False))}
    placed = {id(tensor): tensor.to(device) for tensor in known.values() if not tensor.requires_grad}
    for module_name, module in twin.named_modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None and tensor.is_meta and not tensor.requires_grad:
                    own[name] = placed[id(known[f"{module_name}.{name}".lstrip(".")])]
    step._apply(lambda x: torch.empty_like(x, device=device) if x.is_meta else x)  # type: ignore[no-untyped-call]
    for name, parameter in twin.named_parameters():
        if is_piece(parameter):
            parameter.to_local().copy_(like(known[name].detach(), parameter).to_local())  # type: ignore[attr-defined]
        elif parameter.requires_grad:
            parameter.copy_(known[name])
