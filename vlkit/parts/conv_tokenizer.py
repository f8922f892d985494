"""vlkit's own image tokenizer: convolutions around a quantiser, trained by the kind of model ``image_tokenizer``.

Shapes: B batch, C channels, H height, W width, N codes of an image, q channels of a code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from vlkit.errors import AssetError, SpecError, VlkitError
from vlkit.nn.code_quantizers import CodeQuantizer
from vlkit.nn.conv_tokenizer import ConvDecoder, ConvEncoder
from vlkit.parts.building import weightless
from vlkit.parts.code_images import check_codes, check_pixels, square_transform
from vlkit.parts.weight_files import fill
from vlkit.paths import local_path
from vlkit.spec.image_tokenizers import ConvTokenizerSpec
from vlkit.spec.load import read_document

_LOW = -1.0  # of pixels; the highest is 1
_INSIDE = "tokenizer."  # the part of a model folder


class GivenBack(NamedTuple):
    """What becomes of images on their way through codes: ``pixels_BCHW`` as decoded, not cut to -1..1."""

    pixels_BCHW: Tensor
    latents_BqHW: Tensor
    codes_BN: Tensor


class ConvImageTokenizer(nn.Module):
    """A ``types.ImageTokenizer`` of vlkit's own, with random weights; pixels lie in -1..1."""

    pixel_low = _LOW

    def __init__(self, spec: ConvTokenizerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.codebook_size = spec.codebook_size
        # of channels, the one that changes fastest first: the first of fsq, the last of lfq
        self.code_levels = spec.levels if spec.quantizer == "fsq" else spec.levels[::-1]
        self.grid = (spec.side, spec.side)
        self.transform = square_transform(spec.image_size, low=_LOW)
        sizes = {"patch": spec.patch, "blocks": spec.blocks, "attention": spec.attention}
        self.encoder = ConvEncoder(spec.widths, len(spec.levels), **sizes)
        self.quantizer = CodeQuantizer(spec.quantizer, spec.levels)
        self.decoder = ConvDecoder(spec.widths, len(spec.levels), **sizes)

    @classmethod
    def build(cls, spec: ConvTokenizerSpec, *, saved: Path | None = None, empty: bool = False) -> ConvImageTokenizer:
        """See ``build_image_tokenizer``; nothing is read from ``saved``.

        Raises:
            AssetError: The folder that ``weights`` names cannot be read.
            VlkitError: Its tokenizer is another one.
        """
        folder = None if saved is not None or spec.weights is None else local_path(spec.weights)
        if folder is not None:
            spec = _resolved(spec, folder)
        with weightless(saved=saved is not None or folder is not None, empty=empty):
            built = cls(spec)
        if folder is not None and not empty:
            files = sorted(folder.glob("*.safetensors"))
            fill(built, files, prefix=_INSIDE, where=f"tokenizer.weights: {folder}", told_by="spec.yaml")
        return built

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """See ``types.ImageTokenizer``.

        Raises:
            VlkitError: Pixels of another size or range.
        """
        check_pixels(pixels_BCHW, size=self.spec.image_size, low=_LOW, where="the conv image tokenizer")
        with torch.no_grad(), torch.autocast(pixels_BCHW.device.type, enabled=False):
            return self.reconstruct(pixels_BCHW.float(), decode=False).codes_BN

    def decode(self, codes_BN: Tensor) -> Tensor:
        """See ``types.ImageTokenizer``; gradients reach the decoder.

        Raises:
            VlkitError: Codes that do not exist.
        """
        known: Any = {"codebook_size": self.codebook_size, "grid": self.grid}
        check_codes(codes_BN, **known, where="the conv image tokenizer")
        with torch.autocast(codes_BN.device.type, enabled=False):
            pixels_BCHW = self.decoder(self.quantizer.quantized(codes_BN, grid=self.grid))
        shown_BCHW: Tensor = ((pixels_BCHW + 1) / 2).clamp(0, 1)
        return shown_BCHW

    def reconstruct(self, pixels_BCHW: Tensor, *, decode: bool = True) -> GivenBack:
        """Images through codes and back, for training: gradients pass through the quantiser."""
        latents_BqHW = self.encoder(pixels_BCHW)
        quantized_BqHW, codes_BN = self.quantizer(latents_BqHW)
        return GivenBack(self.decoder(quantized_BqHW) if decode else pixels_BCHW, latents_BqHW, codes_BN)

    def forward(self, pixels_BCHW: Tensor) -> GivenBack:
        """See ``reconstruct``."""
        return self.reconstruct(pixels_BCHW)

    def save_config(self, folder: Path) -> None:
        """Nothing to write: the spec says all of it."""


def _resolved(spec: ConvTokenizerSpec, folder: Path) -> ConvTokenizerSpec:
    """``spec`` with the sizes of a trained tokenizer, where it does not give them itself."""
    stored = _stored_spec(folder)
    # a recipe that was read has all keys: those at their default count as not given
    given = spec.model_dump(exclude={"kind", "weights"}, exclude_defaults=True)
    kept = stored.model_dump(exclude={"weights"})
    if wrong := [name for name, value in given.items() if kept[name] != value]:
        told = ", ".join(f"{name} = {kept[name]} (here {given[name]})" for name in wrong)
        raise VlkitError(
            f"tokenizer.weights: the tokenizer in {folder} has {told}; leave these keys out to take it as is"
        )
    return ConvTokenizerSpec(**kept, weights=spec.weights)


def _stored_spec(folder: Path) -> ConvTokenizerSpec:
    path = folder / "spec.yaml"
    if not path.is_file():
        raise AssetError(
            f"tokenizer.weights: {folder} is no model folder (it has no spec.yaml); train one with: "
            f"vlkit train t2i/tokenizer_openmoji"
        )
    tree = read_document(path).plain()
    found = tree.get("model", {}).get("tokenizer") if isinstance(tree, dict) else None
    if not isinstance(found, dict) or found.get("kind") != "conv":
        raise VlkitError(f"tokenizer.weights: the model in {folder} has no tokenizer of kind conv")
    try:
        return ConvTokenizerSpec.model_validate(found)
    except ValidationError as error:
        raise SpecError([f"{path}: model.tokenizer: {one['msg']}" for one in error.errors()]) from error
