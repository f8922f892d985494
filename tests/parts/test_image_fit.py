"""How images become square: squashed whole, or with borders of the mean colour, in every library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers import encoder_factory as factory
from vlkit.errors import VlkitError
from vlkit.parts.encoders import build_image_encoder
from vlkit.parts.image_fit import Padded
from vlkit.spec.parts import HfImage, OpenClipImage, TimmImage

KINDS = ["clip", "dinov2", "siglip", "open_clip", "timm"]


def build(kind: str, folder: Path, **options) -> Any:
    if kind == "timm":
        return build_image_encoder(TimmImage(name="test_vit", pretrained=False, image_size=32, **options))
    if kind == "open_clip":
        return build_image_encoder(OpenClipImage(name=str(factory.open_clip_folder(folder)), **options))
    return build_image_encoder(HfImage(name=str(getattr(factory, kind)(folder)), **options))


def halves() -> Image.Image:
    """Twice as wide as high: red margins of a quarter on the left and right, blue between them."""
    image = Image.new("RGB", (128, 64), "blue")
    image.paste("red", (0, 0, 32, 64))
    image.paste("red", (96, 0, 128, 64))
    return image


def shown(encoder: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels as 0..1 again."""
    settings = encoder.transform.settings
    mean, std = (settings.get(key, settings.get(f"image_{key}")) for key in ("mean", "std"))
    return pixels * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_squashed_images_are_seen_whole(kind: str, tmp_path: Path) -> None:
    encoder = build(kind, tmp_path, fit="squash")
    seen = shown(encoder, encoder.transform(halves()))
    assert seen.shape == (3, 32, 32)
    expected = torch.tensor([1.0, 0, 0])[:, None].repeat(1, 32)
    expected[0, 8:24], expected[2, 8:24] = 0, 1
    away = [*range(5), *range(11, 21), *range(27, 32)]  # from the edges, where colours mix
    torch.testing.assert_close(seen[:, 16, away], expected[:, away], atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_padded_images_keep_their_shape_between_borders_of_the_mean(kind: str, tmp_path: Path) -> None:
    encoder = build(kind, tmp_path, fit="pad")
    pixels = encoder.transform(halves())
    assert pixels.shape == (3, 32, 32)
    assert pixels[:, :5].abs().max() < 0.02 and pixels[:, -5:].abs().max() < 0.02
    seen = shown(encoder, pixels)
    torch.testing.assert_close(seen[:, 16, 2], torch.tensor([1.0, 0, 0]), atol=0.02, rtol=0)
    torch.testing.assert_close(seen[:, 16, 16], torch.tensor([0, 0, 1.0]), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fit", ["own", "squash", "pad"])
def test_each_way_works_at_any_size_and_is_saved(kind: str, fit: str, tmp_path: Path) -> None:
    encoder = build(kind, tmp_path / "made", fit=fit)
    assert encoder.transform_at(48)(halves()).shape == (3, 48, 48)
    assert repr(encoder.transform_at(32)) == repr(encoder.transform)
    assert torch.equal(encoder.transform_at(32)(halves()), encoder.transform(halves()))
    encoder.save_config(tmp_path / "saved")
    again = build_image_encoder(encoder.spec, saved=tmp_path / "saved")
    assert repr(again.transform) == repr(encoder.transform)


def test_ways_have_different_reprs(tmp_path: Path) -> None:
    for kind in KINDS:
        found = {repr(build(kind, tmp_path / f"{kind}-{fit}", fit=fit).transform) for fit in ("own", "squash", "pad")}
        assert len(found) == (2 if kind == "open_clip" else 3)  # that one squashes of itself


def test_a_strip_becomes_no_square_that_no_memory_holds() -> None:
    seen: list[tuple[int, int]] = []
    padded = Padded(lambda image: seen.append(image.size) or torch.zeros(3, 1, 1), (0.5, 0.5, 0.5))
    padded(Image.new("RGB", (60_000, 3)))
    padded(Image.new("RGB", (7, 300)))
    assert seen == [(4096, 4096), (300, 300)]


def test_a_processor_that_always_crops_is_told(tmp_path: Path) -> None:
    with pytest.raises(VlkitError) as error:
        build("resnet", tmp_path, fit="squash")
    assert str(error.value) == (
        f"{tmp_path}: its image processor (ConvNextImageProcessor) always cuts margins off; set fit to own"
    )
