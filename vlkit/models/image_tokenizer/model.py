"""An image tokenizer as a model: it is trained and measured here, and used as the part of another one.

Shapes: B images, C channels, H height, W width, N codes of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vlkit.models.assembly import checked_part, place_of, spec_of
from vlkit.models.augment import Augment
from vlkit.models.image_tokenizer.batch import ImagePreparer
from vlkit.models.model_html import model_html
from vlkit.models.trainable import adapter_specs, hold_frozen_in_eval
from vlkit.spec.dataset import DataSpec
from vlkit.spec.model import ImageTokenizerModelSpec
from vlkit.types import ImageTokenizer, Preparer

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Self


class ImageTokenizerModel(nn.Module):
    """A tokenizer alone: images to codes and back.

    Those of kind ``conv`` train (``reconstruct``); all others are measured as they are.

    Args:
        tokenizer: A ``types.ImageTokenizer`` that is an ``nn.Module``, and has ``pixel_low`` where it is to be
            measured (``types.GivesImagesBack``).

    Raises:
        VlkitError: It is none.
    """

    tokenizer: Any

    def __init__(self, tokenizer: ImageTokenizer | nn.Module) -> None:
        super().__init__()
        self.tokenizer = checked_part("image tokenizer", tokenizer, ImageTokenizer, owner=type(self).__name__)
        self.loaded_from: str | None = None  # what vlkit.load was given

    def parts(self) -> dict[str, nn.Module]:
        """See ``types.Model``."""
        return {"tokenizer": self.tokenizer}

    @property
    def spec(self) -> ImageTokenizerModelSpec:
        """The spec that builds this model again, read off its part.

        Raises:
            VlkitError: The tokenizer carries no spec of vlkit's.
        """
        return ImageTokenizerModelSpec(tokenizer=spec_of(self, "tokenizer"), adapters=adapter_specs(self))

    @property
    def transform(self) -> Callable[[Image], Tensor]:
        """Turns an RGB image into pixels_CHW as the tokenizer wants them."""
        transform: Callable[[Image], Tensor] = self.tokenizer.transform
        return transform

    @property
    def codebook_size(self) -> int:
        """How many codes there are."""
        return int(self.tokenizer.codebook_size)

    @property
    def pixel_low(self) -> float:
        """The lowest value of pixels; the highest is 1."""
        return float(self.tokenizer.pixel_low)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's codes."""
        rows, columns = self.tokenizer.grid
        return rows, columns

    def preparer(
        self, data: DataSpec, *, needs: Collection[str] | None = None, tables: Mapping[str, Any] | None = None
    ) -> Preparer:
        """See ``types.Model``."""
        return ImagePreparer(self.transform, Augment(data.augment))

    def _repr_html_(self) -> str:
        return model_html(self)

    def figures(self) -> dict[str, float]:
        """See ``types.Model``: nothing of its own."""
        return {}

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, but for what is frozen."""
        super().train(mode)
        hold_frozen_in_eval(self)
        return self

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """codes_BN of images on any device."""
        codes_BN: Tensor = self.tokenizer.encode(self._moved(pixels_BCHW))
        return codes_BN

    def decode(self, codes_BN: Tensor) -> Tensor:
        """pixels_BCHW float32 in 0..1 of codes on any device."""
        pixels_BCHW: Tensor = self.tokenizer.decode(self._moved(codes_BN))
        return pixels_BCHW

    def _moved(self, x: Tensor) -> Tensor:
        place = place_of(self.tokenizer)
        return x if place is None else x.to(place[0])
