"""LoRA as peft saves it (adapter_config.json, adapter_model.safetensors), folded into the weights of a module."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.adapt.inject import adapter_of
from vlkit.errors import VlkitError, some
from vlkit.parts.configs import read_settings
from vlkit.parts.weight_files import read_header, read_tensors

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAME = re.compile(r"^(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight$")
_OTHER_WAYS = (
    "use_dora",
    "use_qalora",
    "modules_to_save",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
)


@torch.no_grad()
def fold_peft(module: nn.Module, folder: Path) -> None:
    """Adds the updates of a LoRA folder of peft's to the weights of ``module``: W + alpha / r * B A.

    Its layers are found by the ends of their names, so that it does not matter how deep the adapted model lies in
    ``module``. Nothing is changed unless all of it fits.

    Raises:
        AssetError: Files are missing or cannot be read.
        VlkitError: It is no plain LoRA, or of another model.
    """
    if adapter_of(module) is not None:
        raise VlkitError(f"{type(module).__name__} has an adapter already; fold that first (vlkit.merge)")
    settings = read_settings(folder / _CONFIG)
    _check_kind(settings, folder)
    pairs = _pairs(folder)
    layers = {name: part for name, part in module.named_modules() if isinstance(getattr(part, "weight", None), Tensor)}
    updates: list[tuple[Tensor, Tensor]] = []
    for name, (down_RI, up_OR) in pairs.items():
        found = [layer for layer in layers if f".{layer}".endswith(f".{name}")]
        if len(found) != 1:
            raise VlkitError(
                f"{folder}: {len(found) or 'no'} layers of {type(module).__name__} have a name that ends in {name}; is "
                f"it the adapter of another model?"
            )
        weight = layers[found[0]].weight
        update = up_OR.double() @ down_RI.double() * _scale(settings, name, rank=len(down_RI))
        if type(layers[found[0]]).__name__ == "Conv1D":  # GPT-2's linear, which holds its weight the other way round
            update = update.T
        if update.shape != weight.shape or not weight.is_floating_point():
            raise VlkitError(
                f"{folder}: the update of {name} is {list(update.shape)}, and its weight in {type(module).__name__} is "
                f"{list(weight.shape)} ({weight.dtype}); is it the adapter of another model?"
            )
        updates.append((weight, update))
    for weight, update in updates:
        weight.copy_((weight.double() + update.to(weight.device)).to(weight.dtype))


def _check_kind(settings: dict[str, Any], folder: Path) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise VlkitError(f"{folder / _CONFIG}: peft_type = {kind!r} cannot be folded; only LORA can")
    wrong = [key for key in _OTHER_WAYS if settings.get(key)]
    if settings.get("bias", "none") != "none":
        wrong.append("bias")
    if wrong:
        raise VlkitError(
            f"{folder / _CONFIG}: {', '.join(wrong)} is more than plain LoRA; merge it with peft itself "
            f"(merge_and_unload) and save that"
        )


def _scale(settings: dict[str, Any], layer: str, *, rank: int) -> float:
    alpha = settings.get("lora_alpha", rank)
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            alpha = value
            break
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def _pairs(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each layer."""
    path = folder / _WEIGHTS
    names = read_header(path)
    tensors = read_tensors(path, names)
    sides: dict[str, dict[str, Tensor]] = {}
    strange = []
    for name, tensor in tensors.items():
        if (found := _NAME.match(name)) is None:
            strange.append(name)
        else:
            sides.setdefault(found["layer"], {})[found["side"]] = tensor
    strange += [layer for layer, pair in sides.items() if len(pair) != 2]
    if strange or not sides:
        raise VlkitError(f"{path}: {some(strange, most=3) or 'nothing in it'} is no pair of lora_A and lora_B weights")
    return {layer: (pair["A"], pair["B"]) for layer, pair in sides.items()}
