"""What all kinds of models do with the parts that they are put together of."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vlkit.adapt.inject import adapter_of
from vlkit.errors import VlkitError
from vlkit.spec.parts import TiledImage
from vlkit.types import lacking


def checked_part(name: str, part: Any, protocol: type, *, owner: str) -> Any:
    """A part that is a torch module and offers what its place needs.

    ``name`` is what it is called in errors, ``owner`` the class that takes it.

    Raises:
        VlkitError: It is no module, or lacks something.
    """
    if not isinstance(part, nn.Module):
        raise VlkitError(f"{name} is a {type(part).__name__}, not a torch nn.Module; {owner} takes built parts")
    if not isinstance(part, protocol):
        missing = ", ".join(lacking(part, protocol))
        raise VlkitError(f"{name} {type(part).__name__} lacks {missing}; see vlkit.types.{protocol.__name__}")
    return part


def spec_of(model: nn.Module, name: str) -> Any:
    """The spec that a part carries.

    Raises:
        VlkitError: It has none.
    """
    part = getattr(model, name)
    if not hasattr(part, "spec"):
        raise VlkitError(
            f"part {name!r} ({type(part).__name__}) has no .spec, so a model folder could not build it again; "
            f"give your module a .spec of vlkit.spec or save its state_dict() yourself"
        )
    return part.spec


def part_kind(module: nn.Module | None, *, adapter: bool = False) -> tuple[str, str | None]:
    """Kind and name in the spec of a part, of what is seen in tiles where it is tiled, or of its adapter.

    "" and None for a module that carries no spec.
    """
    spec = getattr(module, "spec", None) if module is None or not adapter else adapter_of(module)
    spec = spec.of if isinstance(spec, TiledImage) else spec
    return getattr(spec, "kind", ""), getattr(spec, "name", None)


def place_of(module: nn.Module) -> tuple[torch.device, torch.dtype] | None:
    """Device and precision of a module's weights; None where it has none."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return None


def trains(module: nn.Module) -> bool:
    """Whether anything of a module trains."""
    return any(parameter.requires_grad for parameter in module.parameters())
