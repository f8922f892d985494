"""A model in a user's hands: pictures and sentences as they are, what to call instead, and how it shows itself."""

from __future__ import annotations

import inspect
import pydoc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlkit
from tests.helpers import encoder_factory as factory
from vlkit.errors import DataError, VlkitError
from vlkit.models.dual_encoder.model import DualEncoder


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return vlkit.load("tiny")  # type: ignore[no-any-return]


def pixels(model: DualEncoder, *images: Image.Image) -> torch.Tensor:
    return torch.stack([model.transform(image) for image in images])


def test_images_and_texts_are_embedded_as_by_hand(model: DualEncoder, tmp_path: Path) -> None:
    images = [factory.random_image(seed, size=(40, 30)).convert("RGB") for seed in range(3)]
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    with torch.no_grad():
        image_NE = model.encode_image(pixels(model, *images))
        text_TE = model.encode_text(model.tokenize(["a cat", "eine Katze"], language="de"))
    found = model.embed(
        images=[paths[0], str(paths[1]), images[2]], texts=["a cat", " eine Katze\u200e"], language="de"
    )
    assert found.image_NE is not None and found.text_TE is not None
    torch.testing.assert_close(found.image_NE, image_NE)
    torch.testing.assert_close(found.text_TE, text_TE)
    assert not found.image_NE.requires_grad
    one = model.embed(images=paths[1], texts="a cat", language="de")
    torch.testing.assert_close(one.image_NE, image_NE[1:2])
    torch.testing.assert_close(one.text_TE, text_TE[:1])
    assert model.embed(images=np.asarray(images[0])).text_TE is None
    torch.testing.assert_close(model.embed(images=(paths[0].read_bytes(),)).image_NE, image_NE[:1])


def test_many_are_embedded_piece_by_piece_and_none_give_none(model: DualEncoder) -> None:
    images = [factory.random_image(seed, size=(20, 20)) for seed in range(35)]
    texts = [f"thing {number}" for number in range(130)]
    found = model.embed(images=images, texts=texts)
    torch.testing.assert_close(found.image_NE[34:], model.embed(images=images[34]).image_NE)
    torch.testing.assert_close(found.text_TE[129:], model.embed(texts=texts[129]).text_TE)
    assert len(found.image_NE) == 35 and len(found.text_TE) == 130
    assert [list(x.shape) for x in model.embed(images=[], texts=[])] == [[0, 32], [0, 32]]


def test_a_model_that_trains_is_embedded_as_in_use_and_trains_on(tmp_path: Path) -> None:
    model = vlkit.load("tiny").train()
    modes = {name: part.training for name, part in model.named_modules()}
    first, second = model.embed(texts=["a cat"] * 2).text_TE
    assert torch.equal(first, second)
    assert {name: part.training for name, part in model.named_modules()} == modes


TOKENS = "encode_text takes tokens as model.tokenize(texts, language=...) makes them, not a "
PIXELS = "encode_image takes pixels_BCHW as model.transform makes them, not a "


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda m: m.encode_text(["a cat"]),
            f'{TOKENS}list of str; for texts: model.embed(texts=[...], language="en")',
        ),
        (lambda m: m.encode_text("a cat"), f"{TOKENS}str; for texts: "),
        (lambda m: m.encode_text(torch.ones(1, 3)), f"{TOKENS}Tensor; for texts: "),
        (
            lambda m: m.encode_image(["cat.jpg"]),
            f"{PIXELS}list of str; for paths and PIL images: model.embed(images=[...])",
        ),
        (lambda m: m.encode_image(Path("cat.jpg")), f"{PIXELS}PosixPath; for paths"),
        (lambda m: m.encode_image(Image.new("RGB", (9, 9))), f"{PIXELS}Image; for paths"),
        (
            lambda m: m.encode_image(torch.zeros(3, 32, 32)),
            "encode_image takes pixels_BCHW, four dimensions, and this is [3, 32, 32]; for one image: "
            "model.encode_image(pixels[None])",
        ),
        (
            lambda m: m.embed(),
            "embed takes images=[...] (paths, PIL images, arrays), texts=[...] with language=..., or",
        ),
        (lambda m: m.embed(texts=[Path("x.jpg")]), "embed takes texts as str, not PosixPath; images go into images=["),
    ],
)
def test_what_does_not_fit_says_what_to_call(model: DualEncoder, call: Any, said: str) -> None:
    with pytest.raises(VlkitError) as caught:
        call(model)
    assert str(caught.value).startswith(said)


def test_an_image_that_is_not_there_is_named(model: DualEncoder) -> None:
    with pytest.raises(DataError, match=r"no-cat\.jpg"):
        model.embed(images=["no-cat.jpg"])


def test_a_model_shows_itself_in_a_few_lines(tmp_path: Path) -> None:
    model = vlkit.load(factory.open_clip_folder(tmp_path / "oc"))
    vlkit.freeze(model, "image")
    vlkit.add_lora(model.text, vlkit.LoRA(rank=2))
    lines = repr(model).splitlines()
    assert lines[0] == f"DualEncoder(embed_dim={model.embed_dim}" and lines[-1] == ")" and len(lines) <= 9
    assert all(len(line) <= 100 for line in lines)
    said = {line.strip().partition(":")[0]: line for line in lines[1:-1]}
    assert set(said) == {"image", "text", "text_adapter", "image_head", "text_head", "scale"}
    assert "OpenClipImageEncoder ..." in said["image"] and said["image"].endswith("parameters, frozen")
    assert said["text"].endswith("parameters, frozen") and said["scale"] == "  scale: 1 parameters, 1 train"
    (count,) = {row.parameters for row in vlkit.trainable_report(model).rows if row.part == "text_adapter"}
    assert said["text_adapter"] == f"  text_adapter: in text, {count:,} parameters, {count:,} train"
    assert len(repr(vlkit.load("tiny")).splitlines()) <= 8


def test_what_trains_beside_an_adapter_is_said(tmp_path: Path) -> None:
    model = vlkit.load("tiny")
    assert vlkit.trainable_report(model).note == ""
    vlkit.add_lora(model.text, vlkit.LoRA(rank=2))
    report = vlkit.trainable_report(model)
    note = (
        "beside text_adapter also image, image_head, text_head, scale train; vlkit.freeze(model, 'image', "
        "'image_head', 'text_head', 'scale') stops them"
    )
    assert report.note == note and str(report).endswith(f"\n{note}")
    vlkit.freeze(model, "image", "image_head", "text_head", "scale")
    assert vlkit.trainable_report(model).note == ""
    assert [row.part for row in vlkit.trainable_report(model).rows if row.trainable] == ["text_adapter"]


def test_help_shows_the_arguments_of_what_is_public() -> None:
    for name, wanted in (
        ("train", ["Recipe | str | PathLike[str]", "resume", "overwrite", "Args:", "contrastive/tiny"]),
        ("evaluate", ["model", "suite", "folder", "Args:"]),
        ("load", ["name_or_path", "device", "Args:"]),
    ):
        shown = pydoc.render_doc(getattr(vlkit, name), renderer=pydoc.plaintext)
        assert inspect.isfunction(getattr(vlkit, name)) and all(word in shown for word in wanted), shown
