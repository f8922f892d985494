"""What stands for weights: digests of tensors and of whole modules, the same on every machine and device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vlkit.files import digest
from vlkit.models.weights import plain_state

_fixed: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def tensor_digest(tensor: Tensor) -> str:
    """Hex digest of a tensor's shape, type and bytes; the same on every device."""
    plain = tensor.detach().cpu().contiguous()
    seal = hashlib.blake2b(f"{tuple(plain.shape)} {plain.dtype} ".encode(), digest_size=16)
    seal.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return seal.hexdigest()


def weights_digest(module: nn.Module) -> str:
    """Hex digest (16 digits) of all parameters and buffers by name (about 1 s a GB)."""
    if module in _fixed:
        return _fixed[module]
    return digest({name: tensor_digest(tensor) for name, tensor in plain_state(module).items()})


def part_digest(part: nn.Module) -> str:
    """Hex digest of all that decides what a part gives: weights, buffers and spec, but for its name and origin."""
    spec = getattr(part, "spec", None)
    origin: dict[str, Any] = {"name": True, "pretrained": True, "of": {"name", "pretrained"}}  # and of what it wraps
    settings = type(part).__name__ if spec is None else spec.model_dump(mode="json", exclude=origin)
    return digest({"weights": weights_digest(part), "spec": settings})


@contextmanager
def fixed_weights(module: object) -> Iterator[None]:
    """Inside the block the weights do not change, so that their digest is computed once."""
    if not isinstance(module, nn.Module) or module in _fixed:
        yield
        return
    _fixed[module] = weights_digest(module)
    try:
        yield
    finally:
        del _fixed[module]
