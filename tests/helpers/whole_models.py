"""Small random vision-language models of transformers in folders: BLIP-2, mBLIP, LLaVA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import Blip2Config, Blip2ForConditionalGeneration, LlavaConfig, LlavaForConditionalGeneration

from vlkit.parts.hf_common import quiet
from vlkit.parts.tiny_language import tiny_config
from vlkit.spec.language import TinyLanguage

_SIGNS = sorted(pre_tokenizers.ByteLevel.alphabet())
ROWS, IMAGE_SIZE, QUERIES = 320, 16, 3
IMAGE_ROW = ROWS - 1  # no byte has it

_VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "image_size": IMAGE_SIZE, "patch_size": 8,
}  # fmt: skip
_QFORMER = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def text_config(architecture: str, *, rows: int = ROWS) -> Any:
    if architecture != "opt":
        return tiny_config(TinyLanguage(architecture=architecture), rows=rows)  # type: ignore[arg-type]
    return transformers.OPTConfig(
        vocab_size=rows, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=600, word_embed_proj_dim=32, pad_token_id=0, bos_token_id=259, eos_token_id=1,
        init_std=0.2,
    )  # fmt: skip


def tokenizer(architecture: str) -> Any:
    """One token a byte; an end token behind texts for encoder-decoders, a start token before them for others."""
    encodes = architecture in ("mt5", "t5")
    core = Tokenizer(models.BPE(vocab={sign: number + 3 for number, sign in enumerate(_SIGNS)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<pad>", "</s>", "<s>"])
    ids = {token: core.token_to_id(token) for token in ("</s>", "<s>")}
    frame = "$A </s>" if encodes else "$A" if architecture == "bloom" else "<s> $A"
    core.post_processor = processors.TemplateProcessing(single=frame, special_tokens=[*ids.items()])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", bos_token=None if encodes else "<s>"
    )


def blip2(folder: Path, architecture: str, *, image_token: bool = True, rows: int = ROWS) -> Any:
    """A BLIP-2 in a folder; without ``image_token`` its files are as those of before transformers 5."""
    torch.manual_seed(0)
    config = Blip2Config(
        vision_config={**_VISION, "initializer_range": 0.2},
        qformer_config={**_QFORMER, "initializer_range": 0.2},
        text_config=text_config(architecture, rows=rows).to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=IMAGE_ROW,
    )
    model = Blip2ForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.query_tokens)  # the library has them all alike
    torch.nn.init.normal_(model.vision_model.embeddings.position_embedding)
    with quiet():
        model.save_pretrained(folder)
    if not image_token:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        del settings["image_token_index"]
        (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    transformers.BlipImageProcessor(size=size).save_pretrained(folder)
    tokenizer(architecture).save_pretrained(folder)
    return model


def llava(folder: Path, *, tower: str = "clip_vision_model", **settings: Any) -> Any:
    """A LLaVA in a folder; ``settings`` are of its configuration."""
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config={**_VISION, "model_type": tower},
        text_config=text_config("llama").to_dict(),
        image_token_index=IMAGE_ROW,
        **settings,
    )
    model = LlavaForConditionalGeneration(config).eval()
    for parameter in model.model.multi_modal_projector.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with quiet():
        model.save_pretrained(folder)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    transformers.CLIPImageProcessor(size=size, crop_size=size).save_pretrained(folder)
    tokenizer("llama").save_pretrained(folder)
    return model
