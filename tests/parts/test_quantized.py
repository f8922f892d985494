"""Language models in 8 or 4 bits: what is asked of bitsandbytes, and what is said where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vlkit.errors import MissingPackage, VlkitError
from vlkit.parts import quantized
from vlkit.parts.building import hold
from vlkit.parts.language_models import build_language_model
from vlkit.spec.language import HfLanguage, TinyLanguage


def test_settings_are_those_of_the_papers() -> None:
    assert quantized.quantization(HfLanguage(name="m")) is None
    eight = quantized.quantization(HfLanguage(name="m", quantize="int8"))
    assert eight.load_in_8bit and not eight.load_in_4bit
    four = quantized.quantization(HfLanguage(name="m", quantize="nf4"))
    assert four.load_in_4bit and four.bnb_4bit_quant_type == "nf4" and not four.bnb_4bit_use_double_quant
    assert four.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantized.loading(HfLanguage(name="m"), saved=True) == {}


def test_without_a_gpu_or_the_package_or_from_a_folder_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = HfLanguage(name="org/m", quantize="nf4")
    with pytest.raises(VlkitError) as caught:
        quantized.loading(spec, saved=False)
    assert str(caught.value) == (
        "org/m: quantize = 'nf4' needs an NVIDIA GPU, and torch sees none here; set quantize to none, and dtype to "
        "bfloat16 to halve the memory"
    )
    with pytest.raises(VlkitError) as caught:
        quantized.loading(spec, saved=True)
    assert str(caught.value) == (
        "org/m: quantize = 'nf4': weights of nf4 are not read back from a model folder; save the adapters alone "
        "(adapters_only), or train with quantize = 'none' and dtype = 'bfloat16'"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(quantized.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage) as missing:
        quantized.loading(spec, saved=False)
    assert str(missing.value).startswith(
        "org/m: quantize = 'nf4' needs the package 'bitsandbytes', which is not installed; run: pip install "
    )


def test_settings_reach_the_loader_and_embeddings_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    tiny: Any = build_language_model(TinyLanguage())
    tiny.whole.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    seen: dict[str, Any] = {}
    plain = LlamaForCausalLM.from_pretrained.__func__

    def load(cls: Any, *inputs: Any, **options: Any) -> Any:
        seen.update({name: options.pop(name) for name in ("quantization_config", "device_map")})
        seen["dtype"] = options["dtype"]
        return plain(cls, *inputs, **options)

    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", classmethod(load))
    monkeypatch.setattr(quantized, "loading", lambda spec, *, saved: {
        "quantization_config": quantized.quantization(spec), "device_map": {"": "cpu"}})  # fmt: skip
    model: Any = build_language_model(HfLanguage(name=str(tmp_path), quantize="int8", dtype="bfloat16"))
    assert seen["quantization_config"].load_in_8bit and seen["dtype"] == torch.bfloat16
    assert model.whole.get_input_embeddings().weight.dtype == torch.bfloat16


def test_what_stands_beside_quantised_weights_is_not_cast() -> None:
    class Quantised(torch.nn.Linear):
        """As bitsandbytes' layers: whole numbers, and a scale that only the state dict tells of."""

        def __init__(self) -> None:
            super().__init__(2, 2, bias=False)
            self.weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.uint8), requires_grad=False)
            self.absmax = {"scale": torch.ones(2)}

        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[f"{prefix}weight.absmax"] = self.absmax["scale"]

    model = torch.nn.Sequential(Quantised(), torch.nn.LayerNorm(2))
    hold(model, TinyLanguage(dtype="bfloat16"))
    assert model[0].weight.dtype == torch.uint8 and model[0].absmax["scale"].dtype == torch.float32
    assert model[1].weight.dtype == torch.bfloat16
