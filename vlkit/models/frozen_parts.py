"""What a model's folder says of the parts whose outputs can be computed once where they are frozen, and looked up then.

Shapes: B batch, C channels, H height, W width, M tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from vlkit.types import TextBatch

if TYPE_CHECKING:
    from PIL.Image import Image


class TokenizesOne(Protocol):
    """Texts of one language to tokens."""

    def __call__(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """``language`` is BCP 47."""


@dataclass(frozen=True)
class FrozenImages:
    """A part that takes images: its rows are those of each image of the data, plain and in augmented views.

    Attributes:
        name: In the parts of its model.
        module: The part; its weights and spec are part of what the rows are known by.
        transform: RGB image to pixels_CHW; known by its ``repr``.
        encode: pixels_BCHW to rows, pooled [B, D] or a grid [B, M, D]; None calls the part itself.
        dtype: Of the rows as they are kept.
        settings: What else decides the rows, as JSON can hold it.
        beside: Parts that have to be looked up as well, or this one is not.
    """

    name: str
    module: nn.Module
    transform: Callable[[Image], Tensor]
    encode: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype = torch.float32
    settings: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrozenTexts:
    """A part that takes texts: its rows are those of each caption in each language; attributes as ``FrozenImages``.

    Attributes:
        tokenize: The part's own.
        encode: Tokens to rows; None calls the part itself.
    """

    name: str
    module: nn.Module
    tokenize: TokenizesOne
    encode: Callable[[TextBatch], Tensor] | None = None
    dtype: torch.dtype = torch.float32
    settings: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()


FrozenPart: TypeAlias = FrozenImages | FrozenTexts
