"""vlkit: multilingual vision-language models, made of any image encoder and any language model.

The names below are the public ones; each is imported when it is first used, so that ``import vlkit`` is immediate.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vlkit.version import __version__

if TYPE_CHECKING:
    from vlkit.adapt.inject import add_lora, merge
    from vlkit.errors import VlkitError
    from vlkit.evaluation.classify.zero_shot import ZeroShotClassifier
    from vlkit.evaluation.embed.arrays import embed_images, embed_texts
    from vlkit.evaluation.run import evaluate
    from vlkit.evaluation.search.image_index import ImageIndex, index_images
    from vlkit.models.catalog import list_models, list_parts
    from vlkit.models.dual_encoder.model import DualEncoder
    from vlkit.models.folder import load, save
    from vlkit.models.push import push_to_hub
    from vlkit.models.registry import build, export
    from vlkit.models.text_to_image.model import TextToImageModel
    from vlkit.models.trainable import freeze, trainable_report, unfreeze
    from vlkit.models.vision_language.model import VisionLanguageModel
    from vlkit.parts.bridges import QFormer, bridge
    from vlkit.parts.cut_vocabulary import add_tokens, cut_vocabulary
    from vlkit.parts.encoders import image_encoder, text_encoder
    from vlkit.parts.language_models import language_model
    from vlkit.spec.adapt import LoRA
    from vlkit.spec.load import load_recipe
    from vlkit.training.loop import train

_HOMES = {
    "DualEncoder": "vlkit.models.dual_encoder.model",
    "ImageIndex": "vlkit.evaluation.search.image_index",
    "LoRA": "vlkit.spec.adapt",
    "QFormer": "vlkit.parts.bridges",
    "TextToImageModel": "vlkit.models.text_to_image.model",
    "VisionLanguageModel": "vlkit.models.vision_language.model",
    "VlkitError": "vlkit.errors",
    "ZeroShotClassifier": "vlkit.evaluation.classify.zero_shot",
    "add_lora": "vlkit.adapt.inject",
    "add_tokens": "vlkit.parts.cut_vocabulary",
    "bridge": "vlkit.parts.bridges",
    "build": "vlkit.models.registry",
    "cut_vocabulary": "vlkit.parts.cut_vocabulary",
    "embed_images": "vlkit.evaluation.embed.arrays",
    "embed_texts": "vlkit.evaluation.embed.arrays",
    "evaluate": "vlkit.evaluation.run",
    "export": "vlkit.models.registry",
    "freeze": "vlkit.models.trainable",
    "image_encoder": "vlkit.parts.encoders",
    "index_images": "vlkit.evaluation.search.image_index",
    "language_model": "vlkit.parts.language_models",
    "list_models": "vlkit.models.catalog",
    "list_parts": "vlkit.models.catalog",
    "load": "vlkit.models.folder",
    "load_recipe": "vlkit.spec.load",
    "merge": "vlkit.adapt.inject",
    "push_to_hub": "vlkit.models.push",
    "save": "vlkit.models.folder",
    "text_encoder": "vlkit.parts.encoders",
    "train": "vlkit.training.loop",
    "trainable_report": "vlkit.models.trainable",
    "unfreeze": "vlkit.models.trainable",
}

__all__ = [
    "DualEncoder", "ImageIndex", "LoRA", "QFormer", "TextToImageModel", "VisionLanguageModel", "VlkitError",
    "ZeroShotClassifier", "__version__", "add_lora", "add_tokens", "bridge", "build", "cut_vocabulary",
    "embed_images", "embed_texts", "evaluate", "export", "freeze", "image_encoder", "index_images", "language_model",
    "list_models", "list_parts", "load", "load_recipe", "merge", "push_to_hub", "save", "text_encoder", "train",
    "trainable_report", "unfreeze",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        from vlkit.errors import did_you_mean

        guess = "" if name.startswith("_") else did_you_mean(name, _HOMES)
        raise AttributeError(f"module 'vlkit' has no attribute {name!r}" + (f"; {guess}" if guess else ""))
    value = getattr(importlib.import_module(_HOMES[name]), name)
    return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
