"""An image encoder that sees tiles of an image beside the whole, around any other image encoder.

Unlike in Centurio's code the whole image is made of the large one, and not of the file once more, so that one transform
gives all pixels.

Shapes: B batch, C channels, H height, W width, M tokens, T their width, D encoder width, m tiles in a row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.nn.tiling import averaged, cut, shrunk, stitch
from vlkit.parts.building import ImageTransform, image_facts
from vlkit.spec.parts import TiledImage
from vlkit.types import GivesStates, ImageEncoder, ImageFacts, ResizesImages, TellsFacts, TransformsAtSizes

_OF = "of"


class TiledImageEncoder(nn.Module):
    """Tokens of an image's tiles and, with ``whole``, of the image; pooled features are those of the whole image.

    Args:
        of: The encoder of a tile, an ``nn.Module``.
        spec: How tiles are cut and put together; ``spec.of`` is that of ``of``.

    Raises:
        VlkitError: The encoder cannot prepare images of another size.
    """

    of: Any

    def __init__(self, of: ImageEncoder, spec: TiledImage) -> None:
        super().__init__()
        if not isinstance(of, TransformsAtSizes):
            raise VlkitError(
                f"a tiled image encoder prepares images {spec.grid} times as large as a tile, and {type(of).__name__} "
                f"has no transform_at; see vlkit.types.TransformsAtSizes"
            )
        self.of, self.spec = of, spec
        self.width, self.image_size = of.width, spec.grid * of.image_size
        self.token_width = of.token_width * (2 if spec.merge == "channels" and spec.whole else 1)
        if isinstance(of, ResizesImages):
            self.resized_to = spec.grid * of.resized_to
        self.transform = self.transform_at(self.image_size)

    @classmethod
    def build(cls, spec: TiledImage, *, saved: Path | None = None, empty: bool = False) -> TiledImageEncoder:
        """See ``encoders.build_image_encoder``."""
        from vlkit.parts.encoders import build_image_encoder

        of: Any = build_image_encoder(spec.of, saved=saved and saved / _OF, empty=empty)
        return cls(of, spec.model_copy(update={"of": of.spec}))

    def transform_at(self, size: int) -> ImageTransform:
        """Its preprocessing for square images of another size."""
        steps: Any = self.of.transform_at(size)
        return ImageTransform(steps, {"tiles": self.spec.grid, "size": size, "of": repr(steps)})

    def num_tokens(self, size: int) -> int:
        """M of ``tokens`` for square images of ``size`` pixels a side.

        Raises:
            VlkitError: They cannot be cut into the tiles.
        """
        if size % self.spec.grid:
            raise VlkitError(
                f"images of {size}x{size} pixels cannot be cut into {self.spec.grid}x{self.spec.grid} square tiles"
            )
        one: int = self.of.num_tokens(size // self.spec.grid)
        return one if self.spec.merge == "channels" else one * (self.spec.grid**2 + self.spec.whole)

    def facts(self) -> ImageFacts:
        """See ``types.TellsFacts``; what the encoder of a tile does not tell is left empty."""
        inner = self.of.facts() if isinstance(self.of, TellsFacts) else None
        extra, mean, std = (0, (), ()) if inner is None else (inner.extra_tokens, inner.mean, inner.std)
        return image_facts(self, extra_tokens=extra, mean=mean, std=std)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """features_BD of the whole image."""
        features_BD: Tensor = self.of(shrunk(pixels_BCHW, self.spec.grid))
        return features_BD

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """tokens_BMT, see ``merge`` of the spec; the tiles of all images go through the encoder together."""
        tiles, whole = cut(pixels_BCHW, self.spec.grid), self.spec.whole
        seen = torch.cat([shrunk(pixels_BCHW, self.spec.grid).to(tiles), tiles]) if whole else tiles
        found = self.of.tokens(seen)
        return self._merged(found[: len(found) - len(tiles)] if whole else None, found[-len(tiles) :])

    def pooled_and_states(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """features_BD and ``tokens``; the whole image is seen once."""
        of = self.of
        if not (isinstance(of, GivesStates) and self.spec.whole):
            return self(pixels_BCHW), self.tokens(pixels_BCHW)
        features_BD, whole_BNT = of.pooled_and_states(shrunk(pixels_BCHW, self.spec.grid))
        return features_BD, self._merged(whole_BNT, self.of.tokens(cut(pixels_BCHW, self.spec.grid)))

    def _merged(self, whole_BNT: Tensor | None, tiles: Tensor) -> Tensor:
        grid, channels = self.spec.grid, self.spec.merge == "channels"
        joined = averaged(stitch(tiles, grid), grid) if channels else stitch(tiles, grid)
        return joined if whole_BNT is None else torch.cat([whole_BNT, joined], dim=-1 if channels else 1)

    def save_config(self, folder: Path) -> None:
        """Writes what the encoder needs into a folder below."""
        (folder / _OF).mkdir(parents=True, exist_ok=True)
        self.of.save_config(folder / _OF)
