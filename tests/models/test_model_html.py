"""In a notebook a model tells its parts, their sizes and what of them trains; so does the table of what trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vlkit
from vlkit.models.image_tokenizer.model import ImageTokenizerModel
from vlkit.parts.image_tokenizers import build_image_tokenizer
from vlkit.spec.image_tokenizers import ConvTokenizerSpec


def tiny() -> vlkit.VisionLanguageModel:
    encoder, language_model = vlkit.image_encoder("tiny"), vlkit.language_model("tiny")
    bridge = vlkit.bridge("mlp", encoder.token_width, language_model.width)
    return vlkit.VisionLanguageModel(encoder, bridge, language_model)


def test_a_model_shows_its_parts_with_sizes_and_what_trains() -> None:
    model = tiny()
    vlkit.freeze(model, "encoder", "language_model")
    vlkit.add_lora(model.language_model, vlkit.LoRA(rank=2))
    page, report = model._repr_html_(), vlkit.trainable_report(model)
    for row in report.rows:
        assert f">{row.part}</td>" in page and f">{row.parameters:,}</td>" in page
        assert row.trainable == 0 or f">{row.trainable:,}</span>" in page
    assert page.count(">frozen</span>") == 2 and ">lora</td>" in page and ">mlp</td>" in page
    assert f"model tokens per image: {model.image_tokens}" in page and "<b>VisionLanguageModel</b>" in page


def test_every_kind_that_can_be_built_here_shows_itself() -> None:
    tokenizer = ImageTokenizerModel(build_image_tokenizer(ConvTokenizerSpec(image_size=16, widths=(8,), levels=(3, 3))))
    assert "codes per image" in tokenizer._repr_html_() and "embedding width" in vlkit.load("tiny")._repr_html_()


class Own(nn.Module):
    width, token_width, image_size = 8, 8, 8

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 8)

    def transform(self, image: object) -> torch.Tensor:
        return torch.zeros(3, 8, 8)

    def num_tokens(self, size: int) -> int:
        return 1

    def tokens(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.map(pixels_BCHW.mean(dim=(2, 3)))[:, None]

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.tokens(pixels_BCHW)[:, 0]

    def save_config(self, folder: object) -> None:
        pass


def test_a_module_of_ones_own_is_called_by_its_class() -> None:
    language_model = vlkit.language_model("tiny")
    model = vlkit.VisionLanguageModel(Own(), vlkit.bridge("linear", 8, language_model.width), language_model)
    with pytest.raises(vlkit.VlkitError):
        model.spec  # noqa: B018 - no spec describes it
    assert ">Own</td>" in model._repr_html_()


def test_the_table_of_what_trains_is_the_one_that_is_printed() -> None:
    model = tiny()
    vlkit.freeze(model, "encoder")
    report = vlkit.trainable_report(model, {"bridge": 1e-3})
    page = report._repr_html_()
    assert all(f">{cell}</td>" in page for row in report.cells() for cell in row if cell)
    assert page.count("width:100.0%") == 2 and page.count("width:0.0%") == 1  # bridge and language model train
