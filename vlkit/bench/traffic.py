"""What processes send each other, counted call by call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Bytes that one rank receives, of a payload of n bytes (the whole of it: all pieces together) over W ranks, by the
# ring algorithms: every link carries the same load, and no algorithm needs less (Patarasu and Yuan, JPDC 2009).
_RING: dict[str, Callable[[int, int], int]] = {
    "all_gather": lambda n, w: n * (w - 1) // w,
    "reduce_scatter": lambda n, w: n * (w - 1) // w,
    "all_to_all": lambda n, w: n * (w - 1) // w,
    "all_reduce": lambda n, w: 2 * n * (w - 1) // w,
    "barrier": lambda n, w: 0,
}
_POINT_TO_POINT = ("send", "recv")
_FROM_ROOT, _TO_ROOT = ("broadcast", "scatter"), ("reduce", "gather")
_WORDS = {"allgather": "all_gather", "allreduce": "all_reduce", "alltoall": "all_to_all"}
# Longer names first: "reduce_scatter" and "all_reduce" hold "reduce", "all_gather" holds "gather".
_NAMES = (*_RING, *_POINT_TO_POINT, *_FROM_ROOT, *_TO_ROOT)


@dataclass(frozen=True)
class Call:
    """One call of one rank."""

    name: str  # as in ``torch.distributed``: ``all_gather``, ``all_reduce``, ``send`` ...
    ranks: tuple[int, ...]  # who takes part, as ranks of the whole job
    payload: int  # bytes of the whole message: all pieces of a gather, one copy of what is reduced
    received: int  # bytes that this rank receives by the ring algorithm; the share of its own piece is not sent
    dtypes: tuple[torch.dtype, ...]  # on the wire


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the calls between processes inside a ``with`` block, those of the backward pass too.

    It sees the calls of ``torch.distributed``, the functional collectives and those that DDP and FSDP2 make, each on
    the rank that makes it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    @property
    def received_bytes(self) -> int:
        """What this rank received."""
        return sum(call.received for call in self.calls)

    @property
    def collectives(self) -> int:
        """Calls of a whole group; a send and a receive between neighbours are none."""
        return sum(call.name not in _POINT_TO_POINT for call in self.calls)

    def crossing(self, group_size: int) -> list[Call]:
        """The calls of ranks of more than one group of ``group_size`` neighbours."""
        return [call for call in self.calls if len({rank // group_size for rank in call.ranks}) > 1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Notes a call that sends, and makes it."""
        kwargs = kwargs or {}
        space, _, name = func.name().split(".")[0].partition("::")
        if space in ("c10d", "_c10d_functional", "_dtensor"):
            self._note(name, {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | kwargs)
        return func(*args, **kwargs)

    def _note(self, op: str, values: dict[str, Any]) -> None:
        for word, name in _WORDS.items():
            op = op.replace(word, name)
        if op == "batch_p2p_ops":
            for kind, peer, tensor in zip(values["op_list"], values["peer_list"], values["tensors"], strict=True):
                self._note(kind, {"tensor": tensor, "peer": peer, "group_name": values["group_name"]})
            return
        name = next((name for name in _NAMES if name in op), "")
        group = _group(values)
        if not name or group is None:
            return
        argument, tensors = _payload(name, values)
        payload = sum(x.numel() * x.element_size() for x in tensors)
        ranks, size = tuple(dist.get_process_group_ranks(group)), group.size()
        if name in _POINT_TO_POINT:
            peer = next((values[key] for key in ("dst", "src", "peer") if key in values), None)
            ranks = ranks if peer is None else tuple(sorted({dist.get_rank(), ranks[peer]}))
            received = payload if name == "recv" else 0
        elif name in _RING:
            if name == "all_gather" and argument.startswith("input"):  # functional: one rank's piece
                payload *= size
            received = _RING[name](payload, size)
        else:
            received = _rooted(name, payload, group.rank() == values.get("root_rank", values.get("src")), size)
        self.calls.append(Call(name, ranks, payload, received, tuple({x.dtype for x in tensors})))


def _rooted(name: str, payload: int, is_root: bool, size: int) -> int:
    """One rank gives or takes all; the payload of a scatter or gather is the whole at the root, a piece elsewhere."""
    if name in _FROM_ROOT:
        return 0 if is_root else payload
    if name == "gather":
        return payload * (size - 1) // size if is_root else 0
    return payload if is_root else 0


# Where a call's message is, as arguments of the operator; the first that holds tensors counts.
_ARGUMENTS = {
    "barrier": (),
    "all_gather": ("output_tensors", "output_tensor", "output_lists", "outputs", "input", "inputs"),
    "reduce_scatter": ("input_tensors", "input_tensor", "inputs", "input"),
    "gather": ("output_tensors", "output_tensor", "input_tensors"),
    "scatter": ("input_tensors", "output_tensors"),
    "all_to_all": ("input_tensors", "input_tensor", "input"),
}


def _payload(name: str, values: dict[str, Any]) -> tuple[str, list[Tensor]]:
    """The argument that holds the message, and its tensors."""
    for key in _ARGUMENTS.get(name, ("tensors", "tensor", "input", "inputs")):
        found = list(_tensors(values.get(key)))
        if found:
            return key, found
    return "", []


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _group(values: dict[str, Any]) -> Any:
    boxed = values.get("process_group", values.get("group_name"))
    if boxed is None:
        return None
    if isinstance(boxed, str):
        return torch._C._distributed_c10d._resolve_process_group(cast("Any", boxed))
    return dist.ProcessGroup.unbox(boxed) if isinstance(boxed, torch.ScriptObject) else boxed
