"""Image tokenizers by spec: the laws that all of them keep, and what they refuse."""

from __future__ import annotations

import re

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from tests.helpers.stored_tokenizers import STORED
from vlkit.errors import ShapeError, VlkitError
from vlkit.parts.image_tokenizers import build_image_tokenizer
from vlkit.spec.image_tokenizers import ConvTokenizerSpec
from vlkit.types import ImageTokenizer

TINY = {"image_size": 16, "patch": 2, "widths": (8,), "blocks": 1, "levels": (5, 3)}
SPECS = [
    ConvTokenizerSpec(**TINY),
    ConvTokenizerSpec(**TINY | {"widths": (8, 32), "attention": 1, "quantizer": "lfq", "levels": (2, 2, 2)}),
]


@pytest.fixture(scope="module", params=["fsq", "lfq", *STORED])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImageTokenizer:
    torch.manual_seed(0)
    own = dict(zip(("fsq", "lfq"), SPECS, strict=True))
    if request.param in own:
        return build_image_tokenizer(own[request.param])
    return build_image_tokenizer(STORED[request.param](tmp_path_factory.mktemp("stored")))


def pixels(tokenizer: ImageTokenizer, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    noise = torch.randint(0, 256, (count, 20, 24, 3), generator=generator, dtype=torch.uint8)
    return torch.stack([tokenizer.transform(Image.fromarray(one.numpy())) for one in noise])


def test_images_become_codes_and_codes_images(tokenizer: ImageTokenizer) -> None:
    assert isinstance(tokenizer, ImageTokenizer) and not tokenizer.training
    images = pixels(tokenizer)
    codes = tokenizer.encode(images)
    rows, columns = tokenizer.grid
    assert codes.dtype == torch.int64 and codes.shape == (3, rows * columns)
    assert codes.min() >= 0 and codes.max() < tokenizer.codebook_size
    back = tokenizer.decode(codes)
    assert back.dtype == torch.float32 and back.shape == images.shape and back.min() >= 0 and back.max() <= 1
    assert torch.equal(tokenizer.encode(images[1:2]), codes[1:2])  # rows do not depend on each other
    assert torch.allclose(tokenizer.decode(codes[1:2]), back[1:2], atol=1e-6)


def test_codes_and_pixels_are_those_of_float32_whatever_the_precision(tokenizer: ImageTokenizer) -> None:
    images = pixels(tokenizer)
    codes = tokenizer.encode(images)
    back = tokenizer.decode(codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tokenizer.encode(images), codes) and torch.equal(tokenizer.decode(codes), back)


def test_images_of_another_size_or_range_are_refused(tokenizer: ImageTokenizer) -> None:
    images = pixels(tokenizer)
    for wrong, said in [
        (images[0], r"reads pixels of shape \[batch, 3, 16, 16\] and was given \[3, 16, 16\]"),
        (images[:, :, :8], r"was given \[3, 3, 8, 16\]; its transform makes them"),
    ]:
        with pytest.raises(ShapeError, match=said):
            tokenizer.encode(wrong)
    with pytest.raises(VlkitError, match=r"values from 0 to 255; its transform makes them"):
        tokenizer.encode(torch.linspace(0, 255, 768).view(1, 3, 16, 16))
    with pytest.raises(VlkitError, match="values from nan to nan"):
        tokenizer.encode(images * float("nan"))
    with pytest.raises(VlkitError, match=r"reads floating point pixels in .*\.\.1 and was given torch.uint8"):
        tokenizer.encode(images.to(torch.uint8))


def test_codes_that_do_not_exist_are_refused(tokenizer: ImageTokenizer) -> None:
    codes = tokenizer.encode(pixels(tokenizer))
    most = tokenizer.codebook_size
    for wrong in (-1, most):
        with pytest.raises(
            VlkitError, match=f"has the codes 0..{most - 1} and was given {wrong}; a code that is still"
        ):
            tokenizer.decode(codes.index_fill(1, torch.tensor([2]), wrong))
    with pytest.raises(ShapeError, match=r"decodes codes of shape \[batch, \d+\].* and was given \[3, 5\]"):
        tokenizer.decode(codes[:, :5])
    with pytest.raises(VlkitError, match=r"decodes int64 codes and was given torch\.float32"):
        tokenizer.decode(codes.float())


def test_one_without_weights_has_the_same_sizes(tokenizer: ImageTokenizer) -> None:
    empty = build_image_tokenizer(tokenizer.spec, empty=True)
    assert all(weight.is_meta for weight in empty.parameters())
    assert {name: one.shape for name, one in empty.state_dict().items()} == {
        name: one.shape for name, one in tokenizer.state_dict().items()
    }


def test_the_middle_of_an_image_is_taken() -> None:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (10, 0, 30, 20))
    taken = build_image_tokenizer(SPECS[0]).transform(image)
    assert torch.equal(taken, torch.tensor([-1.0, -1.0, 1.0])[:, None, None].expand(3, 16, 16))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": 20, "widths": (8, 8)}, "image_size = 20 is no multiple of 8, by which patch = 4 and 2 widths "
         "divide it; nearest: 16"),
        ({"levels": (8, 2)}, "levels: 2 is none of quantizer fsq; allowed: 3 or more each (2 each is quantizer: lfq)"),
        ({"quantizer": "lfq", "levels": (2, 3)}, "levels: 3 is none of quantizer lfq; allowed: 2 each"),
        ({"levels": (64, 64, 64, 3)}, "levels: 786,432 codes; allowed: up to 262,144"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(fields: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        ConvTokenizerSpec(**fields)
