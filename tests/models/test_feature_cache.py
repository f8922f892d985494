"""Encoders that remember are the encoders: what was computed once is never computed again."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vlkit.models.dual_encoder.frozen import remembering
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.feature_cache import encode_frozen
from vlkit.models.registry import build
from vlkit.models.trainable import snapshot
from vlkit.spec.parts import TinyText
from vlkit.types import TextBatch

TEXTS = ["a cat", "Hund", "x", "a cat", "een heel lange zin"]


def counting(module: nn.Module) -> list[int]:
    rows: list[int] = []
    module.register_forward_pre_hook(
        lambda _, args: rows.append(len(args[0].ids_BL if isinstance(args[0], TextBatch) else args[0]))
    )
    return rows


def embed(model: DualEncoder, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return model.encode_image(pixels), model.encode_text(model.tokenize(TEXTS))


def test_a_remembering_model_is_the_model(model: DualEncoder, pixels: torch.Tensor) -> None:
    plain, before, parts = embed(model, pixels), snapshot(model), (model.image, model.text)
    counts = [counting(part) for part in parts]
    for expected in ([[5], [4]], [[5], [4]]):  # "a cat" comes twice; the second block reads the file
        with remembering(model):
            for _ in range(2):
                for one, two in zip(embed(model, pixels), plain, strict=True):
                    torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)
            assert model.spec.image == parts[0].spec and model.image.width == parts[0].width
            assert model.transform is parts[0].transform
        assert counts == expected
    assert (model.image, model.text) == parts and snapshot(model) == before
    assert [name for name, _ in model.named_children()][:2] == ["image", "text"]


def test_padding_is_not_part_of_a_text(model: DualEncoder) -> None:
    counts = counting(model.text)
    with remembering(model), torch.no_grad():
        model.encode_text(model.tokenize(["a cat"]))
        model.encode_text(model.tokenize(["a cat", "a much longer text"]))
    assert counts == [1, 1]


def test_another_encoder_or_other_weights_are_not_remembered(model: DualEncoder, pixels: torch.Tensor) -> None:
    with remembering(model):
        embed(model, pixels)
    with torch.no_grad():
        model.image.positions_ND += 0.5
    plain, counts = embed(model, pixels), counting(model.image)
    with remembering(model):
        torch.testing.assert_close(embed(model, pixels)[0], plain[0], atol=1e-6, rtol=1e-5)
    assert counts == [5]


def test_what_is_remembered_is_as_at_inference(pixels: torch.Tensor, spec: Any) -> None:
    model = build(spec)
    model.text.blocks[0].mlp.append(nn.Dropout(0.9))
    tokens = model.eval().tokenize(TEXTS)
    with torch.no_grad():
        plain = model.text(tokens)
    model.train()
    with remembering(model):
        found = model.text(tokens)
        assert not found.requires_grad
        assert model.text.encoder.blocks[0].mlp[-1].training
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=1e-5)


def test_the_mode_of_every_module_is_put_back() -> None:
    from vlkit.parts.encoders import build_text_encoder

    encoder = build_text_encoder(TinyText(width=16))
    encoder.train()
    encoder.blocks[1].eval()
    modes = [module.training for module in encoder.modules()]
    assert not encode_frozen(encoder, encoder.tokenize(["x"])).requires_grad
    assert [module.training for module in encoder.modules()] == modes
