"""Language models by spec or by name: transformers', and their tiny twins."""

from __future__ import annotations

from pathlib import Path

from vlkit.parts.building import build_part, spec_by_name
from vlkit.registry import Registry
from vlkit.spec.language import HfLanguage, LanguageSpec, TinyLanguage
from vlkit.spec.parts import Dtype
from vlkit.types import LanguageModel

LANGUAGE_MODELS = Registry(
    "language model",
    {
        "hf": "vlkit.parts.hf_language:HfLanguageModel",
        "joined": "vlkit.parts.joined_language:JoinedLanguageModel",
        "tiny": "vlkit.parts.tiny_language:TinyLanguageModel",
    },
    hint="Names read 'hf:ID', 'hf:FOLDER', 'hf:FILE.gguf', 'tiny'.",
)
_SPECS: dict[str, type[HfLanguage | TinyLanguage]] = {"hf": HfLanguage, "tiny": TinyLanguage}


def build_language_model(spec: LanguageSpec, *, saved: Path | None = None, empty: bool = False) -> LanguageModel:
    """Builds the language model a spec describes, with its own tokenizer, in eval mode: a torch module with ``spec``.

    Args:
        spec: What to build.
        saved: The folder its ``save_config`` wrote: no download, and weights stay unset until a state dict is loaded.
        empty: No weights at all: parameters on the meta device, to count and to show them.

    Raises:
        AssetError: The weights cannot be had.
        VlkitError: The model cannot be built so, or its tokenizer is another model's.
    """
    model: LanguageModel = build_part(LANGUAGE_MODELS, spec, saved=saved, empty=empty)
    return model


def language_model(
    name: str,
    *,
    pretrained: bool | None = None,
    dtype: Dtype | None = None,
    quantize: str | None = None,
    max_length: int | None = None,
) -> LanguageModel:
    """Builds a language model by name; what is None is as in its spec.

    Args:
        name: ``hf:ID`` (also with a folder or a GGUF file), or ``tiny``.
        pretrained: False starts from random weights.
        dtype: Precision in which the weights are held.
        quantize: ``int8`` or ``nf4`` holds those of its linear layers in 8 or 4 bits.
        max_length: Longest input in tokens.

    Raises:
        UnknownName: The part before the colon is no kind of language model.
    """
    options = {"pretrained": pretrained, "dtype": dtype, "quantize": quantize, "max_length": max_length}
    return build_language_model(spec_by_name(name, kinds=LANGUAGE_MODELS, named=_SPECS, **options))
