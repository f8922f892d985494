"""Small random models of every kind, saved as folders in hub layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

TEXTS = ["a cat", "ein sehr großer Hund läuft über den Berg", "猫", "قطة صغيرة"]
NLLB_CODES = ["eng_Latn", "deu_Latn", "afr_Latn", "als_Latn", "uzn_Latn"]
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]


def fast_tokenizer(
    *,
    ends: bool = True,
    starts: bool = True,
    pad: str | None = "<pad>",
    extra: int = 0,
    pad_id: int = 0,
    max_length: int = 512,
    ends_last: bool = False,
) -> Any:
    """A character-level tokenizer of 300 pieces (+ ``extra``) with the usual special tokens.

    ``ends_last`` gives the end token the highest id, as CLIP's has it.
    """
    from transformers import PreTrainedTokenizerFast

    characters = sorted({*map(chr, range(32, 127)), *"".join(TEXTS), "▁"})
    specials = [token for token in SPECIALS if token != "<pad>"]
    specials.insert(pad_id, "<pad>")
    pieces = [*specials, *characters]
    pieces += [f"<x{i}>" for i in range(300 + extra - len(pieces))]
    if ends_last:
        pieces = [*(piece for piece in pieces if piece != "</s>"), "</s>"]
    core = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    ids = {piece: i for i, piece in enumerate(pieces)}
    parts = (["<s>"] if starts else []) + ["$A"] + (["</s>"] if ends else [])
    if len(parts) > 1:
        core.post_processor = processors.TemplateProcessing(
            single=" ".join(parts), special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=pad,
        model_max_length=max_length,
    )


def random_image(seed: int = 0, *, size: tuple[int, int] = (50, 40)) -> Image.Image:
    pixels = torch.randint(
        0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    return Image.fromarray(pixels.numpy()).resize((64, 48)).resize(size)


def _save(model: Any, tokenizer: Any, folder: Path) -> Path:
    torch.manual_seed(1)
    for parameter in model.parameters():  # init is near zero; make every part matter
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.eval().save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


_SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 80,
}  # fmt: skip


def bert(folder: Path, *, rows: int = 300, tokenizer: Any = None) -> Path:
    from transformers import BertConfig, BertModel

    return _save(BertModel(BertConfig(vocab_size=rows, **_SIZES)), tokenizer or fast_tokenizer(), folder)


def xlm_roberta(folder: Path, *, tokenizer: Any = None) -> Path:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(vocab_size=300, pad_token_id=1, **_SIZES)
    return _save(XLMRobertaModel(config), tokenizer or fast_tokenizer(pad_id=1), folder)


def llama(folder: Path, *, tokenizer: Any = None) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=300, num_key_value_heads=1, bos_token_id=1, eos_token_id=2, **_SIZES)
    return _save(LlamaForCausalLM(config), tokenizer or fast_tokenizer(ends=False, pad=None), folder)


def t5(folder: Path) -> Path:
    from transformers import T5Config, T5Model

    config = T5Config(
        vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0, eos_token_id=2
    )
    return _save(T5Model(config), fast_tokenizer(starts=False), folder)


def _clip_text_sizes() -> dict[str, Any]:
    return {**_SIZES, "vocab_size": 300, "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": 2}


_VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip


def clip_text(folder: Path) -> Path:
    from transformers import CLIPTextConfig, CLIPTextModel

    return _save(CLIPTextModel(CLIPTextConfig(**_clip_text_sizes())), fast_tokenizer(), folder)


def clip(folder: Path) -> Path:
    """With an eos id that is not the legacy 2, so that the library finds the first end token."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = fast_tokenizer(pad_id=3)
    text = {**_clip_text_sizes(), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=12)
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(CLIPModel(config), tokenizer, folder)


def chinese_clip(folder: Path) -> Path:
    from transformers import ChineseCLIPConfig, ChineseCLIPModel, CLIPImageProcessor

    text = {**_SIZES, "vocab_size": 300, "pad_token_id": 0}
    config = ChineseCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=12)
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(ChineseCLIPModel(config), fast_tokenizer(), folder)


def alt_clip(folder: Path) -> Path:
    from transformers import AltCLIPConfig, AltCLIPModel, CLIPImageProcessor

    text = {**_SIZES, "vocab_size": 300, "project_dim": 12, "pad_token_id": 1, "type_vocab_size": 1}
    config = AltCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=12)
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(AltCLIPModel(config), fast_tokenizer(pad_id=1), folder)


def metaclip_2(folder: Path) -> Path:
    from transformers import CLIPImageProcessor, MetaClip2Config, MetaClip2Model

    # like the released models, ends at id 2, which here is no sign of a legacy config
    config = MetaClip2Config(text_config=_clip_text_sizes(), vision_config=_VISION, projection_dim=12)
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(MetaClip2Model(config), fast_tokenizer(pad_id=0), folder)


def align(folder: Path) -> Path:
    """An EfficientNet without a projection, and a scale that divides."""
    from transformers import AlignConfig, AlignModel, EfficientNetImageProcessor

    vision = {
        "image_size": 64, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 64, "kernel_sizes": [3, 3],
        "in_channels": [32, 16], "out_channels": [16, 24], "depthwise_padding": [], "strides": [1, 2],
        "num_block_repeats": [1, 1], "expand_ratios": [1, 6],
    }  # fmt: skip
    config = AlignConfig(text_config={**_SIZES, "vocab_size": 300}, vision_config=vision, projection_dim=8)
    size = {"height": 64, "width": 64}
    EfficientNetImageProcessor(size=size, crop_size=size).save_pretrained(folder)
    return _save(AlignModel(config), fast_tokenizer(), folder)


def groupvit(folder: Path) -> Path:
    """Perceptrons as projections, and fewer tokens than patches."""
    from transformers import CLIPImageProcessor, GroupViTConfig, GroupViTModel

    tokenizer = fast_tokenizer(pad_id=3)
    text = {**_clip_text_sizes(), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    groups = {
        "depths": [1, 1, 1],
        "num_hidden_layers": 3,
        "num_group_tokens": [4, 2, 0],
        "num_output_groups": [4, 2, 2],
    }
    config = GroupViTConfig(
        text_config=text, vision_config={**_VISION, **groups}, projection_dim=12, projection_intermediate_dim=16
    )
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(GroupViTModel(config), tokenizer, folder)


def owlvit(folder: Path) -> Path:
    """Reads texts at their highest id."""
    from transformers import OwlViTConfig, OwlViTImageProcessor, OwlViTModel

    tokenizer = fast_tokenizer(ends_last=True, max_length=16)
    text = {**_clip_text_sizes(), "max_position_embeddings": 16, "eos_token_id": tokenizer.eos_token_id}
    config = OwlViTConfig(text_config=text, vision_config=_VISION, projection_dim=12)
    OwlViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(OwlViTModel(config), tokenizer, folder)


def blip_2(folder: Path) -> Path:
    """An image encoder before a language model: images and texts share no space."""
    from transformers import Blip2Config, Blip2Model, BlipImageProcessor

    text = {
        "model_type": "opt", "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": 300, "word_embed_proj_dim": 16, "max_position_embeddings": 40,
    }  # fmt: skip
    reader = {**_SIZES, "vocab_size": 300, "encoder_hidden_size": 16}
    config = Blip2Config(vision_config=_VISION, qformer_config=reader, text_config=text, num_query_tokens=4)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(Blip2Model(config), fast_tokenizer(), folder)


def siglip(folder: Path) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    text = {**_clip_text_sizes(), "max_position_embeddings": 16}
    config = SiglipConfig(text_config=text, vision_config=_VISION)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(SiglipModel(config), fast_tokenizer(starts=False, max_length=16), folder)


def vision_text(folder: Path) -> Path:
    from transformers import (
        BertConfig,
        VisionTextDualEncoderConfig,
        VisionTextDualEncoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        ViTConfig(**_VISION), BertConfig(vocab_size=300, **_SIZES), projection_dim=12
    )
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(VisionTextDualEncoderModel(config), fast_tokenizer(), folder)


def vit(folder: Path, *, pooler: bool = True) -> Path:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(ViTModel(ViTConfig(**_VISION), add_pooling_layer=pooler), None, folder)


def dinov2(folder: Path) -> Path:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    BitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(
        Dinov2Model(Dinov2Config(**{k: v for k, v in _VISION.items() if k != "intermediate_size"})), None, folder
    )


def resnet(folder: Path) -> Path:
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.9).save_pretrained(folder)
    return _save(
        ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")),
        None,
        folder,
    )


def open_clip_folder(
    folder: Path,
    *,
    siglip_like: bool = False,
    hf_text: Path | None = None,
    timm: str | None = None,
    vision: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> Path:
    """An open_clip model in hub layout: native text tower, SigLIP-like one, or a transformers one from ``hf_text``.

    ``timm`` names an architecture for the images, ``vision`` another native one, ``more`` settings of the whole model.
    """
    import open_clip
    from safetensors.torch import save_file

    text: dict[str, Any] = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    config: dict[str, Any] = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
        "text_cfg": text,
    }
    if siglip_like:
        config |= {"init_logit_bias": -10, "custom_text": True}
        text |= {
            "no_causal_mask": True,
            "pool_type": "last",
            "vocab_size": 300,
            "hf_tokenizer_name": "own",
            "proj_bias": True,
        }
        fast_tokenizer(starts=False).save_pretrained(folder)
    if hf_text is not None:
        config["text_cfg"] = {
            "hf_model_name": str(hf_text), "hf_tokenizer_name": "own", "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
        }  # fmt: skip
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(hf_text).save_pretrained(folder)
    if timm is not None:
        config["vision_cfg"] = {"timm_model_name": timm, "timm_pool": "", "timm_proj": "linear", "image_size": 160}
    config |= {"vision_cfg": vision} if vision else {}
    config |= more or {}
    torch.manual_seed(2)
    folder.mkdir(exist_ok=True)
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def coca_folder(folder: Path) -> Path:
    """CoCa: attentional pooling, a class token at the end of the text, and a caption decoder."""
    vision = {
        "image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8, "attentional_pool": True,
        "attn_pooler_heads": 2, "attn_pooler_queries": 4, "output_tokens": True,
    }  # fmt: skip
    text = {
        "context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2, "embed_cls": True,
        "output_tokens": True,
    }  # fmt: skip
    decoder = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1, "attn_pooler_heads": 2}
    more = {"text_cfg": text, "multimodal_cfg": decoder, "custom_text": True}
    return open_clip_folder(folder, vision=vision, more=more)


def nllb_tokenizer() -> Any:
    from transformers import NllbTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz", "▁a"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return NllbTokenizer(vocab=vocabulary, merges=[("▁", "a")], extra_special_tokens=NLLB_CODES)


def nllb(folder: Path) -> Path:
    """An NLLB-type encoder-decoder, whose tokenizer puts the language before the text."""
    from transformers import M2M100Config, M2M100Model

    tokenizer = nllb_tokenizer()
    config = M2M100Config(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=80, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    return _save(M2M100Model(config), tokenizer, folder)
