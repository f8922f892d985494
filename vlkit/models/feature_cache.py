"""Frozen parts and encoders that remember: nothing is computed again for the same weights, input and settings.

Shapes: N inputs, B batch, M tokens, D encoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from vlkit.models.digest import part_digest
from vlkit.models.feature_store import Blocks, FeatureStore, Numbers, key_of, shared_folder
from vlkit.models.trainable import in_eval
from vlkit.types import TextBatch

if TYPE_CHECKING:
    from PIL.Image import Image


class Remembering(nn.Module):
    """A frozen encoder that encodes each image or text once in all; it behaves as the encoder itself.

    Features agree with those computed directly up to the rounding that the composition of batches brings. They carry no
    gradient.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self._store = FeatureStore(shared_folder({"encoder": part_digest(encoder), "by": "content"}))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("encoder"), name)

    def forward(self, given: Tensor | TextBatch) -> Tensor:
        """features_ND of pixels or tokens."""

        def compute(rows: list[int]) -> Blocks:
            part = TextBatch(*(side[rows] for side in given)) if isinstance(given, TextBatch) else given[rows]
            yield rows, encode_frozen(self.encoder, part)

        device = given.ids_BL.device if isinstance(given, TextBatch) else given.device
        return self._store.fetch(content_keys(given), compute).to(device)

    def flush(self) -> None:
        """Writes what is not on disk yet."""
        self._store.flush()


class TokenizesOne(Protocol):
    """Texts of one language to tokens."""

    def __call__(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """``language`` is BCP 47."""


@dataclass(frozen=True)
class BaseFrozen:
    """What a model's folder says of a part whose outputs can be computed once where it is frozen, and looked up then.

    Attributes:
        name: In the parts of its model.
        module: The part; its weights and spec are part of what the rows are known by.
        encode: Input to rows, pooled [B, D] or a grid [B, M, D]; None calls the part itself.
        dtype: Of the rows as they are kept.
        settings: What else decides the rows, as JSON can hold it.
        beside: Parts that have to be looked up as well, or this one is not.
    """

    name: str
    module: nn.Module
    _: KW_ONLY
    encode: Callable[[Any], Tensor] | None = None
    dtype: torch.dtype = torch.float32
    settings: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrozenImages(BaseFrozen):
    """A part that takes images: its rows are those of each image of the data, plain and in augmented views.

    ``transform`` makes pixels_CHW of an RGB image; it is known by its ``repr``. With ``at_most_one`` samples may
    have no image, and rows are only looked up where none has several; else each sample must have one.
    """

    transform: Callable[[Image], Tensor]
    at_most_one: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class FrozenTexts(BaseFrozen):
    """A part that takes texts: its rows are those of each caption in each language; ``tokenize`` is the part's own."""

    tokenize: TokenizesOne


FrozenPart: TypeAlias = FrozenImages | FrozenTexts


@torch.no_grad()
def encode_frozen(
    encoder: nn.Module, inputs: Tensor | TextBatch, *, encode: Callable[[Any], Tensor] | None = None
) -> Tensor:
    """features_ND as they are at inference: in eval mode, without gradient; ``encode`` is the encoder's own method."""
    with in_eval(encoder):
        features_ND: Tensor = (encode or encoder)(inputs)
    return features_ND


def content_keys(given: Tensor | TextBatch) -> Numbers:
    """The keys of pixels or tokens in a store: by what they hold, without the padding."""
    if isinstance(given, TextBatch):
        pairs = zip(given.ids_BL.cpu(), given.mask_BL.cpu(), strict=True)
        return np.array([key_of(ids_L[mask_L.bool()].numpy().tobytes()) for ids_L, mask_L in pairs], dtype=np.int64)
    return np.array([key_of(pixels_CHW.contiguous().numpy().tobytes()) for pixels_CHW in given.cpu()], dtype=np.int64)
