"""Tiled image encoders: how many tokens, in which order, and that the whole image is what the encoder alone sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers import encoder_factory as factory
from vlkit.errors import VlkitError
from vlkit.models.digest import part_digest
from vlkit.parts.encoders import build_image_encoder
from vlkit.parts.tiled_image import TiledImageEncoder
from vlkit.spec.parts import HfImage, OpenClipImage, TiledImage, TimmImage, TinyImage


def build(**options) -> Any:
    torch.manual_seed(0)
    return build_image_encoder(TiledImage(**{"of": TinyImage(), **options}))


def pixels(encoder: Any, count: int = 2) -> torch.Tensor:
    return torch.stack([encoder.transform(factory.random_image(seed, size=(90, 80))) for seed in range(count)])


@pytest.mark.parametrize("grid", [2, 3])
def test_tokens_on_channels_are_those_of_the_whole_beside_the_means_of_the_tiles(grid: int) -> None:
    encoder = build(grid=grid)
    x = pixels(encoder)
    assert x.shape == (2, 3, 32 * grid, 32 * grid) and encoder.image_size == 32 * grid
    tokens = encoder.tokens(x)
    assert tokens.shape == (2, 16, 64) == (2, encoder.num_tokens(encoder.image_size), encoder.token_width)
    small = torch.nn.functional.interpolate(x, size=(32, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(tokens[..., :32], encoder.of.tokens(small))
    rows = [
        torch.cat(
            [encoder.of.tokens(x[..., r : r + 32, c : c + 32]).view(2, 4, 4, 32) for c in range(0, 32 * grid, 32)], 2
        )
        for r in range(0, 32 * grid, 32)
    ]
    pooled = torch.nn.functional.avg_pool2d(torch.cat(rows, 1).permute(0, 3, 1, 2), grid).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens[..., 32:], pooled)
    torch.testing.assert_close(encoder(x), encoder.of(small))


def test_tokens_one_after_the_other_are_the_whole_then_the_large_grid_row_by_row() -> None:
    encoder = build(merge="tokens")
    x = pixels(encoder)
    tokens = encoder.tokens(x)
    assert tokens.shape == (2, 80, 32) == (2, encoder.num_tokens(64), encoder.token_width)
    torch.testing.assert_close(tokens[:, :16], build(merge="channels").tokens(x)[..., :32])
    top_left = encoder.of.tokens(x[..., :32, :32]).view(2, 4, 4, 32)
    bottom_right = encoder.of.tokens(x[..., 32:, 32:]).view(2, 4, 4, 32)
    large = tokens[:, 16:].view(2, 8, 8, 32)
    torch.testing.assert_close(large[:, :4, :4], top_left)
    torch.testing.assert_close(large[:, 4:, 4:], bottom_right)


@pytest.mark.parametrize(("merge", "count", "width"), [("channels", 16, 32), ("tokens", 64, 32)])
def test_without_the_whole_the_tiles_are_alone(merge: str, count: int, width: int) -> None:
    encoder, full = build(merge=merge, whole=False), build(merge=merge)
    x = pixels(encoder)
    tokens = encoder.tokens(x)
    assert tokens.shape == (2, count, width) and encoder.num_tokens(64) == count and encoder.token_width == width
    torch.testing.assert_close(tokens, full.tokens(x)[..., -32:] if merge == "channels" else full.tokens(x)[:, 16:])
    torch.testing.assert_close(encoder.pooled_and_states(x)[1], tokens)


def test_centurio_s_numbers() -> None:
    """A grid of 27x27: 729 tokens of twice the width, or 3,645 of the same width."""
    of = TinyImage(image_size=108, patch_size=4, depth=1, layers=(-1,))
    joined, one_by_one = build(of=of), build(of=of, merge="tokens")
    x = pixels(joined, 1)
    assert joined.tokens(x).shape == (1, 729, 64) == (1, joined.num_tokens(216), joined.token_width)
    assert one_by_one.tokens(x).shape == (1, 3645, 32) == (1, one_by_one.num_tokens(216), one_by_one.token_width)


def test_a_place_in_the_image_is_its_place_among_the_tokens() -> None:
    encoder = build(of=TinyImage(depth=1))
    dark = Image.new("RGB", (64, 64), "black")
    for row, column in ((0, 0), (1, 6), (7, 3)):
        spot = dark.copy()
        spot.paste("white", (8 * column, 8 * row, 8 * column + 8, 8 * row + 8))
        large = build(of=TinyImage(depth=1), merge="tokens", whole=False)
        large.of.blocks = torch.nn.ModuleList()  # nothing goes from one place to another
        changed = (large.tokens(large.transform(spot)[None]) - large.tokens(large.transform(dark)[None])).abs().sum(-1)
        assert changed.view(8, 8).nonzero().tolist() == [[row, column]]
        encoder.of.blocks = torch.nn.ModuleList()
        changed = encoder.tokens(encoder.transform(spot)[None]) - encoder.tokens(encoder.transform(dark)[None])
        assert changed[..., 32:].abs().sum(-1).view(4, 4).nonzero().tolist() == [[row // 2, column // 2]]


@pytest.mark.parametrize("kind", ["hf", "open_clip", "timm"])
def test_encoders_of_libraries_are_tiled_saved_and_built_again(kind: str, tmp_path: Path) -> None:
    of: Any = {
        "hf": lambda: HfImage(name=str(factory.clip(tmp_path / "clip")), layers=(-2, -1), fit="squash"),
        "open_clip": lambda: OpenClipImage(name=str(factory.open_clip_folder(tmp_path / "oc")), layers=(1,)),
        "timm": lambda: TimmImage(name="test_vit", pretrained=False, image_size=32, fit="pad"),
    }[kind]()
    first: Any = build_image_encoder(TiledImage(of=of))
    tokens = first.tokens(pixels(first))
    assert tokens.shape == (2, first.num_tokens(first.image_size), first.token_width)
    first.save_config(tmp_path / "saved")
    gone = first.spec.model_copy(update={"of": first.spec.of.model_copy(update={"name": "gone/away"})})
    second: Any = build_image_encoder(gone, saved=tmp_path / "saved")
    second.load_state_dict(first.state_dict())
    assert repr(second.transform) == repr(first.transform) and torch.equal(second.tokens(pixels(second)), tokens)
    assert part_digest(second) == part_digest(first)
    other = build_image_encoder(gone.model_copy(update={"merge": "tokens"}), saved=tmp_path / "saved")
    other.load_state_dict(first.state_dict())  # type: ignore[attr-defined]
    assert part_digest(other) != part_digest(first)  # type: ignore[arg-type]


def test_sizes_that_are_no_whole_number_of_tiles_are_refused() -> None:
    with pytest.raises(VlkitError, match=r"^images of 63x63 pixels cannot be cut into 2x2 square tiles$"):
        build().num_tokens(63)


def test_an_encoder_that_prepares_one_size_alone_is_refused() -> None:
    class Fixed(torch.nn.Module):
        width = token_width = 2
        image_size = 8

    with pytest.raises(VlkitError) as error:
        TiledImageEncoder(Fixed(), TiledImage(of=TinyImage()))  # type: ignore[arg-type]
    assert str(error.value) == (
        "a tiled image encoder prepares images 2 times as large as a tile, and Fixed has no transform_at; see "
        "vlkit.types.TransformsAtSizes"
    )
