"""Tiny text-to-image models of every body."""

from __future__ import annotations

from typing import Any

import torch

from vlkit.models.registry import build
from vlkit.spec.image_tokenizers import ConvTokenizerSpec
from vlkit.spec.language import TinyLanguage
from vlkit.spec.model import TextToImageSpec
from vlkit.spec.text_to_image import LanguageModelBodySpec, OwnLayersBodySpec, TowerBodySpec

TOKENIZER = ConvTokenizerSpec(image_size=16, patch=4, widths=(8,), blocks=1, levels=(5, 3, 3))  # 4x4 codes of 45
BODIES = {
    "tower": TowerBodySpec(width=32, layers=3, heads=2, ffn=64),
    "adapted": LanguageModelBodySpec(),
    "frozen": LanguageModelBodySpec(text="frozen"),
    "own_layers": OwnLayersBodySpec(),
}


def painter(
    body: str = "tower", *, architecture: str = "gemma3", seed: int = 0, lively: bool = True, **more: Any
) -> Any:
    """A model in eval mode; a ``lively`` one has logits that differ, where a new one's are all zero."""
    torch.manual_seed(seed)
    language: Any = TinyLanguage(architecture=architecture)  # type: ignore[arg-type]
    spec = TextToImageSpec(language_model=language, tokenizer=TOKENIZER, body=BODIES[body], **more)
    model: Any = build(spec).eval()
    if lively:
        enliven(model)
    return model


@torch.no_grad()
def enliven(model: Any, *, by: float = 0.3) -> None:
    """Moves all that is zero at the start."""
    for name, parameter in model.named_parameters():
        if name.startswith(("head.", "body.tower")) or "lora_B" in name:
            parameter.add_(torch.randn_like(parameter) * by)
