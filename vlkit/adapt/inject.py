"""Adds adapters to a module in place, and folds them into its weights.

Shapes: B batch, L length, D width.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.adapt.targets import find_layers, last_of_blocks, layer_width
from vlkit.errors import VlkitError
from vlkit.spec.adapt import AdapterSpec, Bottleneck, LoRA

_NAME = "default"  # peft's own name of a sole adapter


def add_adapter(module: nn.Module, spec: AdapterSpec) -> nn.Module:
    """Adds an adapter to ``module`` and freezes all else in it; its outputs stay the same, to the bit, until it trains.

    The adapter's weights are float32, in a module that is held in 16 bits too. Changes the module in place;
    ``module.adapter`` is the spec afterwards.

    Returns:
        The module itself.

    Raises:
        VlkitError: It has an adapter already, or the targets mean no layer of it.
    """
    if adapter_of(module) is not None:
        raise VlkitError(
            f"{type(module).__name__} has an adapter already ({adapter_of(module)!r}); fold it in with vlkit.merge, "
            f"or leave the new one out"
        )
    layers = find_layers(module, spec.targets)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    if isinstance(spec, LoRA):
        _inject_lora(module, spec, names=list(layers))
    else:
        for name, layer in last_of_blocks(layers).items():
            place, adapted = next(layer.parameters()), WithBottleneck(layer, layer_width(layer), bottleneck=spec.width)
            adapted.bottleneck.to(place.device, place.dtype)
            _replace(module, name, adapted)
    for parameter in module.parameters():
        if parameter.requires_grad:  # what trains is float32, also where the module is held in less
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    module.train(module.training)  # new layers start in training mode
    module.adapter = spec  # type: ignore[assignment]
    return module


def add_lora(module: nn.Module, lora: LoRA) -> nn.Module:
    """Adds low-rank updates to the linear layers of ``module``, in place; see ``add_adapter``.

    Raises:
        VlkitError: It has an adapter already, or the targets mean no layer of it.
    """
    return add_adapter(module, lora)


def adapter_of(module: nn.Module) -> AdapterSpec | None:
    """The spec of a module's adapter."""
    spec: AdapterSpec | None = getattr(module, "adapter", None)
    return spec


def is_adapter(name: str) -> bool:
    """Whether a parameter of this full name is one that an adapter added."""
    return any(step.startswith("lora_") or step == "bottleneck" for step in name.split("."))


@contextmanager
def adapters_off(module: nn.Module) -> Iterator[None]:
    """Inside the block a module does what it did before an adapter was added to it, to the bit."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [part for part in module.modules() if isinstance(part, BaseTunerLayer | WithBottleneck)]
    for layer in layers:
        layer._disable_adapters = True  # peft's own switch would also stop them from training
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def base_name(name: str) -> str:
    """The name that a parameter of an adapted module had before."""
    return re.sub(r"\bbase_layer\.", "", name)


def merge(model: nn.Module) -> nn.Module:
    """Folds every LoRA inside ``model`` into the weights it adapts, in place: the same outputs, at the base's cost.

    Raises:
        VlkitError: There is none, or an adapter is a bottleneck, which cannot be folded, or the model says why its own
            cannot be (``refuses_merge``); nothing was changed.
    """
    if why := getattr(model, "refuses_merge", None):
        raise VlkitError(f"the adapter of this model cannot be folded in: {why}")
    adapted = [part for part in model.modules() if adapter_of(part) is not None]
    if not adapted:
        raise VlkitError(f"{type(model).__name__} has no adapter to merge")
    if any(isinstance(adapter_of(part), Bottleneck) for part in adapted):
        raise VlkitError("a bottleneck adapter is not linear and cannot be merged; save the model with it")
    for part in adapted:
        _fold(part)
        part.adapter = None  # type: ignore[assignment]
    return model


def _inject_lora(module: nn.Module, spec: LoRA, *, names: list[str]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    from vlkit.adapt.attention import LoraAttention

    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules="|".join(re.escape(f"part.{name}") for name in names),
    )
    config._register_custom_module({nn.MultiheadAttention: LoraAttention})
    shell = nn.ModuleDict({"part": module})  # the library takes whatever has a `config` for a model of transformers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on layouts of layers, which the library settles by itself
        inject_adapter_in_model(config, shell, adapter_name=_NAME)


class WithBottleneck(nn.Module):
    """A sub-layer whose output h becomes h + up(gelu(down(h))); the sub-layer alone, to the bit, as long as up is zero.

    Sources: Houlsby et al. (arXiv 1902.00751, section 2.1), Pfeiffer et al. (2005.00052).

    ``base_layer`` gives h_BLD, or a tuple whose first entry that is; ``width`` is D, ``bottleneck`` the width between.
    """

    def __init__(self, base_layer: nn.Module, width: int, *, bottleneck: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        up = nn.Linear(bottleneck, width)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck = nn.Sequential(nn.Linear(width, bottleneck), nn.GELU(), up)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # libraries ask a layer for its weight or its width
            return getattr(super().__getattr__("base_layer"), name)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the sub-layer gives, changed by the bottleneck."""
        given = self.base_layer(*inputs, **options)
        if self._disable_adapters:
            return given
        if isinstance(given, tuple):
            return (self._changed(given[0]), *given[1:])
        return self._changed(given)

    def _changed(self, h_BLD: Tensor) -> Tensor:
        place = next(self.bottleneck.parameters())  # held in more bits than the sub-layer, perhaps
        changed_BLD: Tensor = h_BLD + self.bottleneck(h_BLD.to(place.dtype)).to(h_BLD.dtype)
        return changed_BLD


@torch.no_grad()
def _fold(module: nn.Module) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    from vlkit.adapt.attention import LoraAttention

    layers: dict[str, Any] = {name: part for name, part in module.named_modules() if isinstance(part, BaseTunerLayer)}
    inner = [name for name in layers for outer in layers if name.startswith(f"{outer}.")]
    for name, layer in layers.items():
        if name in inner:
            continue
        if isinstance(layer, LoraAttention):
            _replace(module, name, layer.fold())
        else:
            layer.merge(safe_merge=True)
            _replace(module, name, layer.get_base_layer())


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(owner), attribute, new)
