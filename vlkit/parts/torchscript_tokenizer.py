"""Image tokenizers that come as TorchScript programs, run where their user said so.

Shapes: B batch, C channels, H height, W width, N codes of an image.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from vlkit.errors import AssetError, VlkitError
from vlkit.files import sha256
from vlkit.parts.building import foreign_errors
from vlkit.parts.library_tokenizers import LibraryTokenizer
from vlkit.paths import local_path
from vlkit.spec.image_tokenizers import TorchScriptTokenizerSpec

ALLOWED = "VLKIT_RUN_TORCHSCRIPT"
"""The environment variable that lets models read from folders run the TorchScript files that they name, where it is 1:
a recipe is its user's word, what a folder says may be somebody else's."""


class TorchScriptTokenizer(LibraryTokenizer):
    """Programs for both ways.

    Their weights are no parameters: they stay in float32, and a model folder names the files with their digests and
    holds nothing of them.
    """

    def __init__(self, spec: TorchScriptTokenizerSpec, *, encoder: Any, decoder: Any) -> None:
        super().__init__(
            spec,
            image_size=spec.image_size,
            step=spec.step,
            codebook_size=spec.codebook_size,
            pixel_low=spec.pixel_low,
        )
        self._programs = (encoder, decoder)  # in a tuple, so that torch does not count them among its modules
        self._device = torch.device("cpu")

    @classmethod
    def build(
        cls, spec: TorchScriptTokenizerSpec, *, saved: Path | None = None, empty: bool = False
    ) -> TorchScriptTokenizer:
        """See ``build_image_tokenizer``; where it is ``empty`` no program is read.

        Raises:
            AssetError: A file is missing, damaged, or not the one that the spec has the digest of.
            VlkitError: A folder's model would run programs and nobody allowed it, or one has no such method.
        """
        if empty:
            return cls(spec, encoder=None, decoder=None)
        if saved is not None and os.environ.get(ALLOWED) != "1":
            raise VlkitError(
                f"tokenizer.run_code: the model folder {saved.parent} would run {spec.encoder}, a program; if you "
                f"trust both, set {ALLOWED}=1"
            )
        paths = [local_path(spec.encoder), *([local_path(spec.decoder)] if spec.decoder else [])]
        digests = tuple(_digest(path) for path in paths)
        if spec.sha256 and spec.sha256 != digests:
            raise AssetError(
                f"tokenizer.sha256: {' and '.join(map(str, paths))} are not the files that this model was made with "
                f"({', '.join(one[:12] for one in spec.sha256)}, here {', '.join(one[:12] for one in digests)}); get "
                f"those"
            )
        programs = [_read(path) for path in paths]
        for program, name, path in ((programs[0], spec.encode, paths[0]), (programs[-1], spec.decode, paths[-1])):
            if not callable(getattr(program, name, None)):
                raise VlkitError(f"tokenizer: the program {path} has no method {name!r}")
        return cls(spec.model_copy(update={"sha256": digests}), encoder=programs[0], decoder=programs[-1])

    def codes_of(self, pixels_BCHW: Tensor) -> Tensor:
        """See ``LibraryTokenizer``.

        Raises:
            VlkitError: The program fails, or gives something else than the codes of these images.
        """
        spec, count = self.spec, self.grid[0] * self.grid[1]
        with foreign_errors(f"tokenizer: {spec.encoder} cannot encode", error=VlkitError):
            found = getattr(self._programs[0], spec.encode)(pixels_BCHW.to(self._device))
            found = found if spec.codes_at is None else found[spec.codes_at]
        if not isinstance(found, Tensor) or found.is_floating_point() or found.numel() != len(pixels_BCHW) * count:
            raise VlkitError(
                f"tokenizer: {spec.encoder} was to give {count} whole numbers an image and gave {_told(found)}; see "
                f"image_size, step and codes_at"
            )
        codes_BN = found.long().reshape(len(pixels_BCHW), count)
        wrong = codes_BN[(codes_BN < 0) | (codes_BN >= self.codebook_size)]
        if len(wrong):
            raise VlkitError(
                f"tokenizer: {spec.encoder} gave the code {int(wrong[0])}; codebook_size = {self.codebook_size} "
                f"does not fit it"
            )
        return codes_BN

    def pixels_of(self, codes_BN: Tensor) -> Tensor:
        """See ``LibraryTokenizer``.

        Raises:
            VlkitError: The program fails, or gives something else than images of this size.
        """
        spec, side = self.spec, self.image_size
        codes = codes_BN.view(-1, *self.grid) if spec.codes_as == "grid" else codes_BN
        with foreign_errors(f"tokenizer: {spec.decoder or spec.encoder} cannot decode", error=VlkitError):
            found = getattr(self._programs[1], spec.decode)(codes.to(self._device))
        if not isinstance(found, Tensor) or tuple(found.shape) != (len(codes_BN), 3, side, side):
            raise VlkitError(
                f"tokenizer: {spec.decoder or spec.encoder} was to give images of {side}x{side} pixels and gave "
                f"{_told(found)}; see image_size and codes_as"
            )
        return found

    def save_config(self, folder: Path) -> None:
        """Nothing to write: the spec names the files."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follows the module to another device, and stays float32."""
        self._device = fn(torch.empty(0, device=self._device)).device
        for program in self._programs:
            if program is not None and self._device.type != "meta":
                program.to(self._device)
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved


def _digest(path: Path) -> str:
    if not path.is_file():
        raise AssetError(f"tokenizer: there is no file {path}")
    return sha256(path)


def _read(path: Path) -> Any:
    with foreign_errors(f"{path} is no TorchScript program that can be read"):
        return torch.jit.load(str(path), map_location="cpu").float().eval()  # type: ignore[no-untyped-call]


def _told(found: object) -> str:
    return f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
