"""Blocks that see a text and all of themselves, read by a decoder-only model of transformers.

The text is read once with the model's own masks; its keys and values are kept. A block then runs behind them, as often
as wished. The library's cache is only used within a pass: what is kept are plain tensors, so nothing has to be cut off
again, and layers with a sliding window keep all of it.

Shapes: B texts, T text places, M places of a block, E width.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.nn.code_attention import CodeLayout, added, text_then_image
from vlkit.parts.building import foreign_errors
from vlkit.parts.hf_common import last_states
from vlkit.types import Prefix

_ROUNDING = 0.1  # of the mean size of states: what bfloat16 brings in a pass


def keep_prefix(base: Any, front_BTE: Tensor, mask_BT: Tensor, *, where: str) -> Prefix:
    """Reads texts whose real places stand first, with the layers ``base`` of a whole model."""
    cache = _cache()
    last_states(base(inputs_embeds=front_BTE, use_cache=True, **_handed(base, cache)), where=where)
    return Prefix(mask_BT, tuple((layer.keys, layer.values) for layer in cache.layers))


def run_behind(base: Any, block_BME: Tensor, prefix: Prefix, *, where: str) -> Tensor:
    """states_BME of a block behind texts."""
    check_soft_cap(base, where=where)
    if getattr(base, "is_gradient_checkpointing", False) and base.training:
        raise VlkitError(
            f"{where}: with loop.grad_checkpointing its layers cannot see what is kept of a text; set it to false "
            f"(loop.micro_batch saves memory, too), or model.body: {{kind: language_model, text: adapted}}"
        )
    rows = block_BME.shape[1]
    layout = text_then_image(prefix.mask_BT, rows)
    cache = _cache()
    for number, (keys, values) in enumerate(prefix.layers):
        cache.update(keys, values, number)
    output = base(
        inputs_embeds=block_BME,
        attention_mask=_masks(base, layout, block_BME.dtype, rows=rows),
        position_ids=layout.positions()[:, -rows:],
        use_cache=True,
        **_handed(base, cache),
    )
    return last_states(output, where=where)


def run_whole(base: Any, front_BTE: Tensor, mask_BT: Tensor, block_BME: Tensor, *, where: str) -> Tensor:
    """The same states from one pass over texts, whose real places stand first, and blocks."""
    check_soft_cap(base, where=where)
    layout = text_then_image(mask_BT, block_BME.shape[1])
    joined_BLE = torch.cat([front_BTE, block_BME.to(front_BTE.dtype)], dim=1)
    output = base(
        inputs_embeds=joined_BLE,
        attention_mask=_masks(base, layout, joined_BLE.dtype),
        position_ids=layout.positions(),
        use_cache=False,
    )
    return last_states(output, where=where)[:, mask_BT.shape[1] :]


def all_states(base: Any, front_BTE: Tensor, *, where: str) -> tuple[Tensor, ...]:
    """The states of each layer of texts whose real places stand first."""
    output = base(inputs_embeds=front_BTE, use_cache=False, output_hidden_states=True)
    if getattr(output, "hidden_states", None) is None:
        raise VlkitError(f"{where}: it gives no states of its layers")
    return tuple(output.hidden_states[1:])


@torch.no_grad()
def try_blocks(base: Any, width: int, *, where: str) -> None:
    """Tries whether a block behind a text sees all of itself and is the same in one pass; architectures do not say.

    Raises:
        VlkitError: It does not, or the library cannot do it at all.
    """
    place = next(base.parameters())
    generator = torch.Generator().manual_seed(0)
    text_BTE, block_BME = torch.randn((2, 2, 3, width), generator=generator).to(place.device, place.dtype)
    block_BME[1, :-1] = block_BME[0, :-1]  # rows differ in their last place alone
    text_BTE[1] = text_BTE[0]
    mask_BT = torch.ones(2, 3, dtype=torch.int64, device=place.device)
    with foreign_errors(_unusable(base, where), error=VlkitError):
        behind_BME = run_behind(base, block_BME, keep_prefix(base, text_BTE, mask_BT, where=where), where=where)
        whole_BME = run_whole(base, text_BTE, mask_BT, block_BME, where=where)
    off = float((behind_BME - whole_BME).abs().max() / whole_BME.abs().mean())
    blind = torch.equal(behind_BME[0, :-1], behind_BME[1, :-1])
    if blind or not off < _ROUNDING:
        raise VlkitError(_unusable(base, where))


def check_soft_cap(base: Any, *, where: str) -> None:
    """Refuses a kernel that leaves the caps of attention scores out.

    Raises:
        VlkitError: The model has such caps, and its attention is SDPA or flash.
    """
    config = base.config
    kernel = getattr(config, "_attn_implementation", None)
    if getattr(config, "attn_logit_softcapping", None) and kernel not in (None, "eager", "flex_attention"):
        raise VlkitError(
            f"{where}: attention by {kernel} leaves out the model's soft cap of attention scores; load it with "
            f"attn_implementation = 'eager', or call model.set_attn_implementation('eager')"
        )


class OwnLayers(nn.Module):
    """A copy of a language model's layers, in float32, for blocks behind texts that the model itself has read."""

    def __init__(self, base: nn.Module, *, where: str) -> None:
        super().__init__()
        self.where = where
        layers: Any = copy.deepcopy(base).float()
        layers.set_input_embeddings(nn.Identity())  # it reads embeddings alone
        layers.supports_gradient_checkpointing = False  # the library would leave out what is kept of the text
        self.layers = layers
        for parameter in self.layers.parameters():
            parameter.requires_grad_(True)

    def forward(self, block_BME: Tensor, prefix: Prefix) -> Tensor:
        """states_BME of blocks."""
        place = next(self.layers.parameters())
        layers = tuple(tuple(one.to(place.dtype) for one in layer) for layer in prefix.layers)
        return run_behind(self.layers, block_BME.to(place.dtype), Prefix(prefix.mask_BT, layers), where=self.where)


def _cache() -> Any:
    from transformers import DynamicCache

    return DynamicCache()


def _handed(base: Any, cache: Any) -> dict[str, Any]:
    """The cache under the name that this transformers has for it."""
    names = inspect.signature(type(base).forward).parameters
    return {"cache" if "cache" in names else "past_key_values": cache}


def _masks(base: Any, layout: CodeLayout, dtype: torch.dtype, *, rows: int | None = None) -> Any:
    """What the library takes for a mask that is ready: one, or one for each sort of layer."""
    kinds = set(getattr(base.config, "layer_types", None) or ())
    if not kinds:
        return added(layout, dtype, rows=rows)
    window = getattr(base.config, "sliding_window", None)
    windows = {kind: window if kind == "sliding_attention" else None for kind in kinds}
    return {kind: added(layout, dtype, rows=rows, window=window) for kind, window in windows.items()}


def _unusable(base: Any, where: str) -> str:
    return (
        f"{where}: a model of model_type = {base.config.model_type!r} cannot read blocks that see all of themselves "
        f"behind a text; take Llama, Qwen, Gemma, ..., or a tower (model.body: {{kind: tower}})"
    )
