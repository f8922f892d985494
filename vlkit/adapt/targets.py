"""Which layers of an encoder get an adapter, told by the names that libraries give them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from torch import nn

from vlkit.errors import VlkitError

Kind = Literal["attention", "mlp"]
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_ATTENTION_LEAVES = ("qkv", "out")


def find_layers(module: nn.Module, targets: str | Sequence[str]) -> dict[str, nn.Module]:
    """The layers that ``targets`` means, by their full name.

    ``targets`` are ``attention``, ``mlp``, ``all``, or names and ends of names. Torch's own ``nn.MultiheadAttention``
    counts as one layer.

    Raises:
        VlkitError: A target means no layer; the message lists those that there are.
    """
    layers = dict(_layers(module))
    if isinstance(targets, str):
        wanted = ("attention", "mlp") if targets == "all" else (targets,)
        found = {name: layer for name, layer in layers.items() if _kind(name) in wanted}
        idle = [] if found else [targets]
    else:
        ends = {target: [name for name in layers if f".{name}".endswith(f".{target}")] for target in targets}
        found = {name: layer for name, layer in layers.items() if any(name in names for names in ends.values())}
        idle = [target for target, names in ends.items() if not names]
    if idle or not found:
        there = ", ".join(dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in layers))
        raise VlkitError(
            f"adapter targets {', '.join(map(repr, idle)) or 'are empty and so'} match no linear layer of "
            f"{type(module).__name__}; "
            + (f"it has: {there}; name some of them in targets" if there else "it has none, so it takes no adapter")
        )
    return found


def last_of_blocks(layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Of each sub-layer (attention or perceptron of one block) the layer that gives its output: the last one."""
    last: dict[tuple[str, Kind | None], str] = {}
    for name in layers:
        last[_block(name), _kind(name)] = name
    return {name: layers[name] for name in last.values()}


def layer_width(layer: nn.Module) -> int:
    """Width of a layer's output.

    Raises:
        VlkitError: It is not told.
    """
    for name in ("out_features", "embed_dim", "nf"):
        if isinstance(width := getattr(layer, name, None), int):
            return width
    raise VlkitError(f"no adapter can follow a {type(layer).__name__}, whose width is not known; choose other targets")


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    attentions = [name for name, part in module.named_modules() if isinstance(part, nn.MultiheadAttention)]
    for name, part in module.named_modules():
        if any(name.startswith(f"{attention}.") for attention in attentions):
            continue  # its own linear layer is never called, only its weights are used
        if isinstance(part, nn.Linear | nn.MultiheadAttention) or type(part).__name__ == "Conv1D":  # GPT-2's linear
            yield name, part


def _kind(name: str) -> Kind | None:
    """``mlp`` is any linear layer of a repeated block that is not of the attention; None lies outside of blocks."""
    if _ATTENTION.search(name) or name.rpartition(".")[2] in _ATTENTION_LEAVES:
        return "attention"
    return "mlp" if _block(name) else None


def _block(name: str) -> str:
    """The innermost numbered module around a layer: ``encoder.layer.3``; "" without one."""
    steps = name.split(".")[:-1]
    while steps and not steps[-1].isdecimal():
        steps.pop()
    return ".".join(steps)
