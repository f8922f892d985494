"""Tiny language models: real architectures of transformers, small and random, that read and write bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlkit.parts.building import weightless
from vlkit.parts.hf_common import quiet, read_config
from vlkit.parts.hf_language import HfLanguageModel, auto_class
from vlkit.parts.tokenizers import load_tokenizer, vocabulary_size
from vlkit.spec.language import TinyLanguage

_ENCODE = ("t5", "mt5")
_HEAD = 16  # width of an attention head


class TinyLanguageModel(HfLanguageModel):
    """A small random language model of one of transformers' architectures."""

    @classmethod
    def build(cls, spec: Any, *, saved: Path | None = None, empty: bool = False) -> TinyLanguageModel:
        """Random weights from torch's global generator; see ``language_models.build_language_model``."""
        tokenizer = load_tokenizer(saved) if saved else byte_tokenizer(spec)
        config = read_config(saved) if saved else tiny_config(spec, rows=vocabulary_size(tokenizer))
        with weightless(saved=saved is not None, empty=empty), quiet():
            model = auto_class(config).from_config(config).float()
        where = f"tiny {spec.architecture}"
        return cls(model, config, tokenizer=tokenizer, spec=spec, where=where, folder=saved)


def byte_tokenizer(spec: TinyLanguage) -> Any:
    """One token a byte, a start token for decoder-only models and an end token."""
    from transformers import ByT5Tokenizer

    start = {} if spec.architecture in _ENCODE else {"bos_token": "<s>"}
    return ByT5Tokenizer(extra_ids=0, **start)


def tiny_config(spec: TinyLanguage, *, rows: int) -> Any:
    """The architecture's configuration; first weights are drawn as wide as so narrow layers need."""
    from transformers import AutoConfig

    heads = spec.width // _HEAD
    if spec.architecture in _ENCODE:
        return AutoConfig.for_model(
            spec.architecture, vocab_size=rows, d_model=spec.width, d_kv=_HEAD, d_ff=2 * spec.width, num_heads=heads,
            num_layers=spec.depth, num_decoder_layers=spec.depth, relative_attention_num_buckets=8,
            relative_attention_max_distance=32, dropout_rate=0.0, decoder_start_token_id=0,
            pad_token_id=0, eos_token_id=1,
        )  # fmt: skip
    shared = {
        "vocab_size": rows, "hidden_size": spec.width, "initializer_range": spec.width**-0.5, "pad_token_id": 0,
        "eos_token_id": 1, "bos_token_id": 259,
    }  # fmt: skip
    if spec.architecture == "bloom":
        return AutoConfig.for_model("bloom", n_layer=spec.depth, n_head=heads, **shared)
    layers: dict[str, Any] = {
        "intermediate_size": 2 * spec.width, "num_hidden_layers": spec.depth, "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2), "head_dim": _HEAD, "max_position_embeddings": 4096,
    }  # fmt: skip
    if spec.architecture == "qwen3":
        layers["max_window_layers"] = spec.depth
    if spec.architecture.startswith("gemma"):  # windows shorter than texts, so that they count
        layers |= {"sliding_window": 16, "query_pre_attn_scalar": _HEAD}
        layers |= {"layer_types": [("sliding_attention", "full_attention")[n % 2] for n in range(spec.depth)]}
    kind = "gemma3_text" if spec.architecture == "gemma3" else spec.architecture
    return AutoConfig.for_model(kind, **shared, **layers)
