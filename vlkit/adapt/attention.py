"""LoRA for torch's own attention module, in which no linear layer is ever called.

Shapes: B batch, L length, D width.
"""

from __future__ import annotations

from typing import Any

from peft.tuners.lora.layer import MultiheadAttention
from torch import Tensor, nn
from torch.func import functional_call


class LoraAttention(MultiheadAttention):  # type: ignore[misc]
    """Like peft's own, but the weights themselves are never touched.

    peft adds the update to the weights before a forward pass and subtracts it afterwards, which moves the frozen
    weights by rounding and makes new parameters of them each time. Here the sums are handed to the module for one call.
    """

    def forward(self, query_BLD: Tensor, *inputs: Any, **options: Any) -> Any:
        """What ``nn.MultiheadAttention`` gives with W + alpha / rank * B A in the place of W."""
        base = self.get_base_layer()
        if self.merged or self.disable_adapters:
            return base(query_BLD, *inputs, **options)
        (name,) = self.active_adapters
        out = base.out_proj
        sums = {
            "in_proj_weight": base.in_proj_weight + self.get_delta_weight(name),
            "out_proj.base_layer.weight": out.get_base_layer().weight + out.get_delta_weight(name),
        }
        weights = {name: weight.to(base.in_proj_weight.dtype) for name, weight in sums.items()}
        return functional_call(base, weights, (query_BLD, *inputs), options)

    def fold(self) -> nn.MultiheadAttention:
        """The module itself, with the updates added to its weights."""
        base: nn.MultiheadAttention = self.get_base_layer()
        (name,) = self.active_adapters
        out: Any = base.out_proj
        plain = out.get_base_layer()
        base.in_proj_weight.data += self.get_delta_weight(name)
        plain.weight.data += out.get_delta_weight(name)
        base.out_proj = plain
        return base

    def _restore_weights(self) -> None:
        """Nothing to restore."""
