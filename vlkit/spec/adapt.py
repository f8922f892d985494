"""Specs of adapters: the few weights that train while an encoder's own stay as they are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlkit.spec.base import Spec


class LoRA(Spec):
    """Low-rank updates of linear layers (arXiv 2106.09685): W + alpha / rank * B A, with B zero at the start."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1)
    """Rank of an update."""
    alpha: float = Field(default=16.0, gt=0)
    """An update counts alpha / rank times."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of a layer's inputs that its update does not see in training; not where the attention of the encoder is
    torch's own (open_clip), whose updates are added to the weights."""
    targets: Literal["attention", "mlp", "all"] | tuple[str, ...] = "attention"
    """The linear layers that get one: those of the attention, of the perceptrons of the blocks, both, or a list of
    names or ends of names (`[query, value]`)."""


class Bottleneck(Spec):
    """Small two-layer perceptrons after the sub-layers of each block (Houlsby, arXiv 1902.00751; Pfeiffer, 2005.00052).

    The output h of a sub-layer becomes h + up(gelu(down(h))), with `up` zero at the start.
    """

    kind: Literal["bottleneck"] = "bottleneck"
    width: int = Field(default=48, ge=1)
    """Width of the bottleneck."""
    targets: Literal["attention", "mlp", "all"] = "mlp"
    """The sub-layers that get one: `mlp` alone is Pfeiffer's choice, `all` Houlsby's."""


AdapterSpec = Annotated[LoRA | Bottleneck, Field(discriminator="kind")]
