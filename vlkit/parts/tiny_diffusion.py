"""The tiny twin of a diffusion pipeline: Stable Diffusion's parts with a few channels and random weights."""

from __future__ import annotations

from typing import Any

import torch

from vlkit.parts.diffusion_pipelines import BasePipeline, assembled
from vlkit.spec.diffusion import TinyPipelineSpec

_START, _END = "<|startoftext|>", "<|endoftext|>"
_SIDE = 8  # of latents


class TinyPipeline(BasePipeline):
    """Images of 16 pixels a side, which are noise; texts are read byte by byte."""

    def __init__(self, spec: TinyPipelineSpec) -> None:
        super().__init__()
        self.spec, self.width, self.count = spec, spec.width, spec.tokens

    def _load(self) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            return tiny_pipeline(self.spec)


def tiny_pipeline(spec: TinyPipelineSpec) -> Any:
    """The pipeline of diffusers, with weights from torch's global generator."""
    tokenizer = _tokenizer(spec.tokens)
    unet, vae, scheduler = _painter(spec.width)
    return assembled(
        unet=unet, vae=vae, scheduler=scheduler, tokenizer=tokenizer, text_encoder=_reader(spec, tokenizer)
    )


def _painter(width: int) -> tuple[Any, Any, Any]:
    import diffusers

    kinds: Any = diffusers
    unet = kinds.UNet2DConditionModel(
        sample_size=_SIDE,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = kinds.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=2 * _SIDE,
    )
    return unet, vae, kinds.DDIMScheduler(steps_offset=1, clip_sample=False)


def _reader(spec: TinyPipelineSpec, tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.width,
        intermediate_size=2 * spec.width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=spec.tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _tokenizer(tokens: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), _START, _END]
    core = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = [(name, names.index(name)) for name in (_START, _END)]
    core.post_processor = processors.TemplateProcessing(single=f"{_START} $A {_END}", special_tokens=marks)
    special = {"bos_token": _START, "eos_token": _END, "pad_token": _END, "unk_token": _END}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=tokens, **special)
