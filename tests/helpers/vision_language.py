"""Tiny vision-language models, and conversations for them."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from vlkit.models.registry import build
from vlkit.models.vision_language.batch import DialogueBatch, DialogueRow, collate
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.spec.model import VisionLanguageSpec
from vlkit.types import Turn

BRIDGES: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear"},
    "mlp": {"kind": "mlp"},
    "mlp_norm": {"kind": "mlp", "norm": True},
    "pixel_shuffle": {"kind": "pixel_shuffle", "factor": 2},
    "qformer": {"kind": "qformer", "num_queries": 3, "width": 16, "layers": 2, "heads": 2, "ffn": 32},
    "resampler": {"kind": "resampler", "num_queries": 3, "layers": 1, "heads": 2},
}


LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "joined": {
        "kind": "joined",
        "encoder": {"kind": "tiny", "architecture": "t5", "width": 32},
        "decoder": {"kind": "tiny", "architecture": "gemma2", "width": 48},
        "heads": 4,
    }
}


def spec(bridge: str = "linear", architecture: str = "llama", **more: Any) -> VisionLanguageSpec:
    return VisionLanguageSpec.model_validate(
        {
            "encoder": {"kind": "tiny", "image_size": 16, "width": 16, "depth": 1},
            "bridge": BRIDGES[bridge],
            "language_model": LANGUAGE_MODELS.get(
                architecture, {"kind": "tiny", "architecture": architecture, "width": 32}
            ),
            **more,
        }
    )


def tiny(bridge: str = "linear", architecture: str = "llama", *, seed: int = 0, **more: Any) -> VisionLanguageModel:
    torch.manual_seed(seed)
    model = build(spec(bridge, architecture, **more))
    if not isinstance(model, VisionLanguageModel):
        raise TypeError(type(model))
    return model.eval()


def picture(number: int, size: int = 20) -> Image.Image:
    noise = torch.randint(0, 256, (size, size, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
    return Image.fromarray(noise.numpy())


def dialogues(model: VisionLanguageModel, *rows: tuple[int, tuple[str, ...]], seed: int = 0) -> DialogueBatch:
    """Rows of a number of images and texts of user and assistant in turn, as a batch."""
    made, number = [], 0
    for count, texts in rows:
        images = tuple(model.transform(picture(number + one)) for one in range(count))
        number += count
        turns = [Turn("user" if place % 2 == 0 else "assistant", text, "en") for place, text in enumerate(texts)]
        laid = model.layout.learned(turns, images=count, seed=seed, where=f"row {len(made)}")
        made.append(DialogueRow(images, laid, "en", "here", "caption"))
    return collate(made, model.layout, looked_up=False)
