"""What image encoders tell of themselves in one call: sizes, places, tokens that are none, preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import encoder_factory as factory
from tests.parts.test_token_layers import dinov2_with_registers, yolos
from vlkit.models.image_facts import facts_of_images
from vlkit.parts.encoders import build_image_encoder
from vlkit.spec.parts import HfImage, MultiwayImage, OpenClipImage, TiledImage, TimmImage, TinyImage
from vlkit.types import ImageFacts, TellsFacts

HALF = (0.5, 0.5, 0.5)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SIDE = 4  # of the grids of images of 32 pixels in patches of 8


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: HfImage(name=str(factory.clip(folder))), ImageFacts(12, 16, 32, 16, SIDE, 1, *CLIP)),
        (lambda folder: HfImage(name=str(factory.siglip(folder))), ImageFacts(16, 16, 32, 16, SIDE, 0, HALF, HALF)),
        (
            lambda folder: HfImage(name=str(dinov2_with_registers(folder)), layers=(1, -1)),
            ImageFacts(16, 32, 28, 4, 2, 5, *CLIP),
        ),
        (
            lambda folder: HfImage(name=str(yolos(folder)), pooling="mean"),
            ImageFacts(16, 16, 32, 16, SIDE, 6, HALF, HALF),
        ),
        (
            lambda folder: OpenClipImage(name=str(factory.open_clip_folder(folder))),
            ImageFacts(12, 16, 32, 16, SIDE, 1, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)),
        ),
        (
            lambda folder: TimmImage(name="test_vit", pretrained=False, image_size=64),
            ImageFacts(64, 64, 64, 16, SIDE, 1, HALF, HALF),
        ),
        (
            lambda folder: MultiwayImage(width=32, heads=2, ffn=64, layers=1, vl_layers=1, image_size=32, patch_size=8),
            ImageFacts(32, 32, 32, 16, SIDE, 1, HALF, HALF),
        ),
        (lambda folder: TinyImage(), ImageFacts(32, 32, 32, 16, SIDE, 0, HALF, HALF)),
        (lambda folder: TiledImage(of=TinyImage()), ImageFacts(32, 64, 64, 16, SIDE, 0, HALF, HALF)),
        (
            lambda folder: TiledImage(of=TinyImage(), merge="tokens"),
            ImageFacts(32, 32, 64, 80, None, 0, HALF, HALF),
        ),
    ],
)  # fmt: skip
def test_an_encoder_tells_what_it_is(make: Any, expected: ImageFacts, tmp_path: Path) -> None:
    encoder: Any = build_image_encoder(make(tmp_path))
    assert isinstance(encoder, TellsFacts)
    found = encoder.facts()
    assert found[:6] == expected[:6]
    assert found.mean == pytest.approx(expected.mean) and found.std == pytest.approx(expected.std)


def test_models_tell_it_in_words() -> None:
    assert facts_of_images(build_image_encoder(TinyImage())) == {
        "image size": 32, "encoder tokens per image": 16, "encoder token width": 32, "class and register tokens": 0,
        "encoder grid": "4x4", "image mean": "0.5, 0.5, 0.5", "image std": "0.5, 0.5, 0.5",
    }  # fmt: skip
