"""What a run asks of the parts it trains: their blocks, less memory, compiled code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from vlkit.errors import VlkitError
from vlkit.types import Model


def blocks(module: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a network: the members of its outermost lists of modules that are all of one class."""
    found: list[nn.Module] = []
    for child in module.children():
        members = list(child.children())
        repeated = isinstance(child, nn.ModuleList | nn.Sequential) and len({type(member) for member in members}) == 1
        if repeated and any(True for member in members for _ in member.children()):
            found += members
        else:
            found += blocks(child)
    return found


@contextmanager
def memory_saved(model: Model, *, wanted: bool) -> Iterator[None]:
    """Meanwhile the parts that train compute the activations inside their blocks twice and keep none of them.

    Raises:
        VlkitError: A part with blocks cannot.
    """
    switched: list[nn.Module] = []
    for name, part in model.parts().items() if wanted else ():
        if not any(parameter.requires_grad for parameter in part.parameters()) or not blocks(part):
            continue
        able = list(_able(part))
        if not able:
            raise VlkitError(
                f"loop.grad_checkpointing: {name} ({type(part).__name__}) cannot do without its activations; freeze "
                f"it, choose a timm, open_clip or transformers encoder, or set loop.micro_batch"
            )
        switched += able
    for module in switched:
        _switch(module, on=True)
    try:
        yield
    finally:
        for module in switched:
            _switch(module, on=False)


@contextmanager
def compiled(model: Model, *, wanted: bool) -> Iterator[None]:
    """Meanwhile the blocks of the parts run as torch.compile makes them, one kind of block compiled once.

    What has no blocks (a head) stays as it is: it takes no time.
    """
    touched = [block for part in model.parts().values() if wanted for block in blocks(part)]
    for block in touched:
        block.compile()
    try:
        yield
    finally:
        for block in touched:
            block._compiled_call_impl = None  # Module.compile has no opposite


def _able(encoder: nn.Module) -> Iterable[nn.Module]:
    """Outermost modules that offer to save activations, timm's and open_clip's way or transformers'."""
    if callable(getattr(encoder, "set_grad_checkpointing", None)):
        yield encoder
        return
    for child in encoder.children():
        transformers = getattr(child, "supports_gradient_checkpointing", False)
        if transformers or callable(getattr(child, "set_grad_checkpointing", None)):
            yield child
        else:
            yield from _able(child)


def _switch(module: nn.Module, *, on: bool) -> None:
    if callable(getattr(module, "set_grad_checkpointing", None)):
        module.set_grad_checkpointing(on)  # type: ignore[operator]
    elif on:
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[operator]
    else:
        module.gradient_checkpointing_disable()  # type: ignore[operator]
