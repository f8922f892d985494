"""GGUF files: converted once, equal to what they hold, and named when they are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vlkit.errors import AssetError, MissingPackage, VlkitError
from vlkit.parts.assets import gguf_weights
from vlkit.parts.language_models import build_language_model, language_model
from vlkit.spec.language import TinyLanguage

gguf = pytest.importorskip("gguf")

_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_MARKS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
_PIECES = [*_MARKS, *_BYTES, "▁", "a", "b", "c", "ab", "▁ab"]


def _write(path: Path, *, layers: int = 2) -> Any:
    """A Gemma 3 in GGUF as llama.cpp writes it; its model."""
    torch.manual_seed(0)
    model: Any = build_language_model(TinyLanguage(architecture="gemma3"))
    model.whole.resize_token_embeddings(len(_PIECES), mean_resizing=False)
    config, writer = model.whole.config, gguf.GGUFWriter(path, "gemma3")
    writer.add_context_length(4096)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(config.sliding_window)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(_PIECES)
    writer.add_token_scores([-float(index) for index in range(len(_PIECES))])
    writer.add_token_types([3, 3, 3, 2, 3, *[6] * 256, *[1] * 6])
    for name, index in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
        getattr(writer, f"add_{name}_token_id")(index)
    writer.add_add_bos_token(True)
    for name, tensor in model.whole.state_dict().items():
        plain = name.removeprefix("model.").removesuffix(".weight")
        if plain == "lm_head":
            continue
        known = {"embed_tokens": "token_embd", "norm": "output_norm"}.get(plain)
        if known is None:
            _, number, part = plain.split(".", 2)
            known = f"blk.{number}.{_NAMES[part]}"
        values = tensor + 1 if "norm" in plain else tensor  # llama.cpp keeps what norms multiply by
        writer.add_tensor(f"{known}.weight", values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def test_a_file_is_converted_once_and_is_the_model_that_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.gguf"
    want = _write(path)
    model: Any = language_model(f"hf:{path}", max_length=64)
    state = want.whole.state_dict()
    got = model.whole.state_dict()
    assert state.keys() == got.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(got[name], tensor, atol=1e-6, rtol=1e-6)
    rates = model.whole.config.rope_parameters
    assert (rates["full_attention"]["rope_theta"], rates["sliding_attention"]["rope_theta"]) == (1e6, 1e4)
    assert model.whole.config.sliding_window == 16 and model.end_ids == (1,)
    ids = model.tokenizer("ab猫")["input_ids"]
    assert ids[0] == 2 and model.tokenizer.convert_ids_to_tokens(ids[1:]) == ["ab", "<0xE7>", "<0x8C>", "<0xAB>"]
    assert model.tokenizer.decode(ids, skip_special_tokens=True) == "ab猫"
    monkeypatch.setattr(gguf_weights, "_written", None)  # would fail
    assert language_model(f"hf:{path}").where == str(path)


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.gguf"
    with pytest.raises(AssetError) as caught:
        language_model(f"hf:{path}")
    assert str(caught.value) == f"no file {path}; give a GGUF file, or a folder with config.json and model.safetensors"
    path.write_bytes(b"not one")
    with pytest.raises(AssetError, match=f"cannot read {path}: "):
        language_model(f"hf:{path}")
    _write(path, layers=5000)
    with pytest.raises(VlkitError, match="describes a model much larger than its weights, which hold "):
        language_model(f"hf:{path}")
    assert gguf.GGUFReader.__name__ == "GGUFReader"
    monkeypatch.setattr(gguf_weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"reading .*small\.gguf needs the package 'gguf'"):
        language_model(f"hf:{path}")
