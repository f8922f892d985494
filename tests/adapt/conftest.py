"""Encoders of every library, small and random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import encoder_factory as factory
from vlkit.models.folder import load, save
from vlkit.parts.encoders import image_encoder, text_encoder

TEXTS = ("a cat", "ein Hund", "猫")


def _pixels(encoder: Any) -> torch.Tensor:
    return torch.stack([encoder.transform(factory.random_image(seed)) for seed in range(2)])


def _make(kind: str, folder: Path) -> tuple[Any, Any]:
    """An encoder and inputs for it."""
    library, _, name = kind.partition(":")
    if library == "open_clip":
        whole = factory.open_clip_folder(folder / "m", siglip_like=True)
        encoder = (image_encoder if name == "image" else text_encoder)(f"open_clip:{whole}")
    elif library == "timm":
        encoder = image_encoder(f"timm:{name}", pretrained=False, image_size=32)
    elif library == "tiny":
        encoder = (image_encoder if name == "image" else text_encoder)("tiny")
    else:
        where = getattr(factory, name)(folder / "m")
        encoder = (image_encoder if name in ("vit", "dinov2") else text_encoder)(f"hf:{where}")
    return encoder, encoder.tokenize(TEXTS, language="en") if hasattr(encoder, "tokenize") else _pixels(encoder)


@pytest.fixture
def encoder_of(tmp_path: Path) -> Callable[[str], tuple[Any, Any]]:
    return lambda kind: _make(kind, tmp_path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model folder."""
    return save(load("tiny"), tmp_path / "base")
