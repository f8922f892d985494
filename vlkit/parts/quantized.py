"""Weights of linear layers held in 8 or 4 bits by bitsandbytes, while a language model is loaded."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from vlkit.errors import MissingPackage, VlkitError
from vlkit.spec.language import HfLanguage


def quantization(spec: HfLanguage) -> Any:
    """The settings of transformers for what a spec asks for; None where it asks for nothing.

    8 bits as LLM.int8 (arXiv 2208.07339); 4 bits as the NormalFloat of QLoRA (arXiv 2305.14314, section 3), computed
    with in bfloat16, its scales not quantised again. Embeddings, norms and the output map keep their precision.
    """
    from transformers import BitsAndBytesConfig

    if spec.quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if spec.quantize == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_use_double_quant=False,
        )
    return None


def loading(spec: HfLanguage, *, saved: bool) -> dict[str, Any]:
    """Arguments with which transformers loads the weights of a spec quantised; none where nothing is.

    Raises:
        VlkitError: There is no GPU, or the weights are those of a model folder.
        MissingPackage: bitsandbytes is not installed.
    """
    if spec.quantize == "none":
        return {}
    asked = f"{spec.name}: quantize = {spec.quantize!r}"
    if saved:
        raise VlkitError(
            f"{asked}: weights of {spec.quantize} are not read back from a model folder; save the adapters alone "
            f"(adapters_only), or train with quantize = 'none' and dtype = 'bfloat16'"
        )
    if not torch.cuda.is_available():
        raise VlkitError(
            f"{asked} needs an NVIDIA GPU, and torch sees none here; set quantize to none, and dtype to bfloat16 to "
            f"halve the memory"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingPackage("bitsandbytes", purpose=asked, extra="quantize")
    return {"quantization_config": quantization(spec), "device_map": {"": torch.cuda.current_device()}}
