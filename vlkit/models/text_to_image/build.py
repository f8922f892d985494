"""From its spec to a text-to-image model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vlkit.models.text_to_image.bodies import build_body
from vlkit.models.text_to_image.model import TextToImageModel
from vlkit.nn.code_head import CodeHead
from vlkit.parts.building import weightless
from vlkit.parts.image_tokenizers import build_image_tokenizer
from vlkit.parts.language_models import build_language_model
from vlkit.spec.model import TextToImageSpec

_ROWS = 4096  # of the word embeddings, that say how large embeddings are


def build(spec: TextToImageSpec, *, saved: Path | None, empty: bool) -> TextToImageModel:
    """The model of a spec, without its adapters; see ``models.registry.build``."""
    tokenizer = build_image_tokenizer(spec.tokenizer, saved=saved and saved / "tokenizer", empty=empty)
    language_model = build_language_model(spec.language_model, saved=saved and saved / "language_model", empty=empty)
    with weightless(saved=saved is not None and not empty, empty=empty):
        body = build_body(spec.body, language_model)
        head = CodeHead(
            tokenizer.codebook_size,
            tokenizer.grid,
            body.width,
            scale=_scale(language_model) if body.reads_words and saved is None and not empty else 1.0,
            places=spec.head.places,
            tied=spec.head.tied,
            cap=spec.head.cap,
            levels=getattr(tokenizer, "code_levels", ()) if spec.head.levels else (),
        )
    head.spec = spec.head  # type: ignore[assignment]
    return TextToImageModel(language_model, tokenizer, head, body, prompt=spec.prompt, sampling=spec.sampling)


@torch.no_grad()
def _scale(language_model: Any) -> float:
    """How large the numbers are that the language model's layers read."""
    ids_1R = torch.arange(min(_ROWS, language_model.vocab_size)).unsqueeze(0)
    return float(language_model.embed(ids_1R).float().std())
