"""Image tokenizers of diffusers and transformers, read from folders and used as they are.

Shapes: B batch, C channels, H height, W width, N codes of an image, K codes there are, q channels of a code, P places.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import AssetError, MissingPackage, VlkitError
from vlkit.parts.assets import hub
from vlkit.parts.building import foreign_errors, weightless
from vlkit.parts.code_images import check_codes, check_pixels, square_transform
from vlkit.parts.configs import read_settings
from vlkit.parts.hf_common import quiet, read_config
from vlkit.parts.weight_files import fill, read_headers, within
from vlkit.paths import local_path
from vlkit.spec.image_tokenizers import BaseTokenizerSpec, DiffusersVqSpec, JanusTokenizerSpec

_CONFIG = "config.json"
_DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
_INSIDE_JANUS = ("model.vqmodel.", "vqmodel.")  # with an output map on top, and without


class LibraryTokenizer(nn.Module):
    """What image tokenizers of others share: a ``types.ImageTokenizer`` that checks what goes in and comes out.

    Args:
        spec: What built it.
        image_size: Side of the images in pixels.
        step: Pixels of a code's side.
        codebook_size: How many codes there are.
        pixel_low: The lowest value of pixels.

    Raises:
        VlkitError: Images are no whole number of codes wide.
    """

    def __init__(
        self, spec: BaseTokenizerSpec, *, image_size: int, step: int, codebook_size: int, pixel_low: float
    ) -> None:
        super().__init__()
        self.where = f"the {spec.kind} image tokenizer"
        if image_size % step:
            nearest = max(1, round(image_size / step)) * step
            raise VlkitError(
                f"{self.where}: image_size = {image_size} is no multiple of {step}, the pixels of a code's side; "
                f"nearest: {nearest}"
            )
        self.spec: Any = spec
        self.image_size, self.codebook_size, self.pixel_low = image_size, codebook_size, float(pixel_low)
        self.grid = (image_size // step, image_size // step)
        self.transform = square_transform(image_size, low=self.pixel_low)

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """See ``types.ImageTokenizer``.

        Raises:
            VlkitError: Pixels of another size or range.
        """
        check_pixels(pixels_BCHW, size=self.image_size, low=self.pixel_low, where=self.where)
        with torch.no_grad(), torch.autocast(pixels_BCHW.device.type, enabled=False):
            return self.codes_of(pixels_BCHW.float())

    def decode(self, codes_BN: Tensor) -> Tensor:
        """See ``types.ImageTokenizer``.

        Raises:
            VlkitError: Codes that do not exist.
        """
        check_codes(codes_BN, codebook_size=self.codebook_size, grid=self.grid, where=self.where)
        with torch.autocast(codes_BN.device.type, enabled=False):
            pixels_BCHW = self.pixels_of(codes_BN.long())
        return ((pixels_BCHW.float() - self.pixel_low) / (1 - self.pixel_low)).clamp(0, 1)

    def codes_of(self, pixels_BCHW: Tensor) -> Tensor:
        """codes_BN of pixels that are checked, in float32."""
        raise NotImplementedError

    def pixels_of(self, codes_BN: Tensor) -> Tensor:
        """pixels_BCHW, the lowest of them ``pixel_low``, of codes that are checked."""
        raise NotImplementedError


class QuantizedTokenizer(LibraryTokenizer):
    """A network of an encoder, a table of codes and a decoder, as VQGAN (arXiv 2012.09841, section 3.1) has them.

    Args:
        network: Has ``encoder``, ``quant_conv``, ``quantize``, ``post_quant_conv`` and ``decoder``.
        sphere: Codes and what is compared with them lie on the unit sphere.
        sizes: See ``LibraryTokenizer``.
    """

    def __init__(self, network: nn.Module, spec: BaseTokenizerSpec, *, sphere: bool, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.network: Any = network
        self.sphere = sphere

    def codes_of(self, pixels_BCHW: Tensor) -> Tensor:
        """See ``LibraryTokenizer``."""
        latents_BqHW = self.network.quant_conv(self.network.encoder(pixels_BCHW))
        return self.nearest(latents_BqHW.permute(0, 2, 3, 1).flatten(0, 2)).view(len(pixels_BCHW), -1)

    def pixels_of(self, codes_BN: Tensor) -> Tensor:
        """See ``LibraryTokenizer``."""
        quantized_BqHW = self.table()[codes_BN].transpose(1, 2).reshape(len(codes_BN), -1, *self.grid)
        pixels_BCHW: Tensor = self.network.decoder(self.network.post_quant_conv(quantized_BqHW))
        return pixels_BCHW

    def nearest(self, places_Pq: Tensor) -> Tensor:
        """codes_P whose rows of the table are nearest."""
        return torch.cdist(self._on_sphere(places_Pq), self.table()).argmin(dim=1)

    def table(self) -> Tensor:
        """The codes as the decoder reads them."""
        return self._on_sphere(self.network.quantize.embedding.weight)

    def _on_sphere(self, rows_Pq: Tensor) -> Tensor:
        return F.normalize(rows_Pq, dim=-1) if self.sphere else rows_Pq


class DiffusersVq(QuantizedTokenizer):
    """A ``VQModel`` of diffusers (aMUSEd, Meissonic)."""

    @classmethod
    def build(cls, spec: DiffusersVqSpec, *, saved: Path | None = None, empty: bool = False) -> DiffusersVq:
        """See ``build_image_tokenizer``.

        Raises:
            MissingPackage: diffusers is not installed.
            AssetError: The folder cannot be read.
            VlkitError: It holds another kind of model, or its files do not belong together.
        """
        try:
            from diffusers import VQModel
        except ImportError as error:
            raise MissingPackage("diffusers", purpose=f"tokenizer: {spec.kind}", extra="diffusers") from error
        kind: Any = VQModel
        folder = saved or local_path(spec.weights)
        settings = read_settings(folder / _CONFIG)
        if settings.get("_class_name") != "VQModel" or settings.get("norm_type", "group") != "group":
            raise VlkitError(
                f"tokenizer.weights: {folder / _CONFIG}: _class_name = {settings.get('_class_name')!r}, norm_type = "
                f"{settings.get('norm_type', 'group')!r}; allowed: a 'VQModel' of norm_type 'group'"
            )
        files = [] if saved else [_there(folder / _DIFFUSERS_WEIGHTS)]
        cannot = foreign_errors(f"cannot build the model of {folder / _CONFIG}")
        borne_out = within(read_headers(files), where=folder, settings=settings)
        with cannot, weightless(saved=True, empty=empty), borne_out, quiet():
            network = kind.from_config(settings)
        if files and not empty:
            fill(network, files, where=f"tokenizer.weights: {folder}")
        config = network.config
        step = 2 ** (len(config.block_out_channels) - 1)
        sizes = {"image_size": spec.image_size, "codebook_size": config.num_vq_embeddings}
        return cls(network, spec, sphere=False, step=step, pixel_low=spec.pixel_low, **sizes)

    def save_config(self, folder: Path) -> None:
        """See ``types.SavesConfig``."""
        self.network.save_config(folder)


class JanusTokenizer(QuantizedTokenizer):
    """The ``JanusVQVAE`` of transformers.

    Its decoder reads codes of unit length, so what is compared with them is brought to unit length as well, as in
    Janus's and LlamaGen's own code (``codebook_l2_norm``); transformers leaves that out when it encodes.
    """

    @classmethod
    def build(cls, spec: JanusTokenizerSpec, *, saved: Path | None = None, empty: bool = False) -> JanusTokenizer:
        """See ``build_image_tokenizer``.

        Raises:
            AssetError: The folder cannot be read.
            VlkitError: It holds another kind of model, or its files do not belong together.
        """
        from transformers.models.janus.modeling_janus import JanusVQVAE

        folder = saved or local_path(spec.weights)
        config = read_config(folder)
        whole = config.model_type == "janus"
        config = config.vq_config if whole else config
        if config.model_type != "janus_vqgan":
            raise VlkitError(
                f"tokenizer.weights: {folder}: model_type = {config.model_type!r}; allowed: 'janus_vqgan', 'janus'"
            )
        if not saved and (why := hub.weights_problem(folder)):
            raise AssetError(f"tokenizer.weights: {why}")
        files = [] if saved else hub.weight_files(folder)
        shapes = read_headers(files)
        cannot = foreign_errors(f"cannot build the model of {folder / _CONFIG}")
        borne_out = within(shapes, where=folder, settings=config.to_dict())
        with cannot, weightless(saved=True, empty=empty), borne_out, quiet():
            network = JanusVQVAE._from_config(config).float()
        if files and not empty:
            prefixes = [one for one in _INSIDE_JANUS if any(name.startswith(one) for name in shapes)] if whole else []
            fill(network, files, prefix=prefixes[0] if prefixes else "", where=f"tokenizer.weights: {folder}")
        step = 2 ** (len(config.channel_multiplier) - 1)
        sizes = {"image_size": config.num_patches * step, "codebook_size": config.num_embeddings}
        return cls(network, spec, sphere=True, step=step, pixel_low=-1, **sizes)

    def save_config(self, folder: Path) -> None:
        """See ``types.SavesConfig``."""
        cast("Any", self.network.config).save_pretrained(folder)


def _there(file: Path) -> Path:
    if file.is_file():
        return file
    found = hub.pickles(file.parent)
    more = f"; {found[0]} is a pickle, which can run code when read and is never loaded" if found else ""
    raise AssetError(f"tokenizer.weights: {file.parent} lacks {file.name}{more}")
