"""Tiny image tokenizers of other libraries with random weights, written to disk as those libraries write them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from vlkit.spec.image_tokenizers import (
    BaseTokenizerSpec,
    DiffusersVqSpec,
    JanusTokenizerSpec,
    TorchScriptTokenizerSpec,
)

SIDE = 16


def diffusers_network() -> nn.Module:
    from diffusers import VQModel

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 6, "vq_embed_dim": 4}
    network = VQModel(**blocks, **sizes, num_vq_embeddings=24, lookup_from_codebook=True, sample_size=SIDE)
    nn.init.normal_(network.quantize.embedding.weight)  # else all of them are nearly 0
    return network.eval()


def janus_network() -> nn.Module:
    from transformers.models.janus.configuration_janus import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAE

    sizes = {"base_channels": 32, "channel_multiplier": [1, 1], "latent_channels": 32, "num_res_blocks": 1}
    network = JanusVQVAE(JanusVQVAEConfig(**sizes, embed_dim=4, num_embeddings=24, num_patches=SIDE // 2)).float()
    nn.init.normal_(network.quantize.embedding.weight)
    return network.eval()


class Program(nn.Module):
    """Codes are the rounded grey values of 2 x 2 pixels, 24 of them; it gives codes and the means, as Cosmos does."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(23.0), requires_grad=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        grey = nn.functional.avg_pool2d(pixels.mean(dim=1, keepdim=True), 2)[:, 0]
        return ((grey + 1) / 2 * self.step).round().clamp(0, 23).to(torch.int32), grey

    @torch.jit.export
    def back(self, codes: Tensor) -> Tensor:
        grey = codes / self.step * 2 - 1
        return grey[:, None].expand(-1, 3, -1, -1).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def diffusers_vq(folder: Path) -> DiffusersVqSpec:
    diffusers_network().save_pretrained(folder / "vqvae")
    return DiffusersVqSpec(weights=str(folder / "vqvae"), image_size=SIDE)


def janus(folder: Path) -> JanusTokenizerSpec:
    janus_network().save_pretrained(folder / "janus")
    return JanusTokenizerSpec(weights=str(folder / "janus"))


def torchscript(folder: Path) -> TorchScriptTokenizerSpec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Program()).save(str(folder / "both.jit"))
    sizes = {"image_size": SIDE, "step": 2, "codebook_size": 24}
    return TorchScriptTokenizerSpec(encoder=str(folder / "both.jit"), decode="back", codes_at=0, run_code=True, **sizes)


STORED: dict[str, Callable[[Path], BaseTokenizerSpec]] = {
    "diffusers_vq": diffusers_vq, "janus": janus, "torchscript": torchscript,
}  # fmt: skip
