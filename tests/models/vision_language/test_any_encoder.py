"""Every image encoder before every bridge, and in a whole model of each kind of language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vlkit
from tests.helpers import encoder_factory as factory
from tests.helpers.vision_language import BRIDGES, dialogues, picture
from vlkit.errors import ShapeError
from vlkit.models.folder import load, save
from vlkit.models.registry import build
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.objectives.tokens.answer_loss import AnswerLoss
from vlkit.parts.encoders import build_image_encoder
from vlkit.spec.model import VisionLanguageSpec
from vlkit.spec.objectives import AnswersObjective
from vlkit.spec.parts import HfImage, MultiwayImage, OpenClipImage, TiledImage, TimmImage, TinyImage

MULTIWAY = MultiwayImage(width=32, heads=2, ffn=64, layers=1, vl_layers=1, image_size=32, patch_size=8)
MAKE: dict[str, Any] = {
    "timm vit": lambda folder: TimmImage(name="test_vit", pretrained=False, image_size=32, layers=(-2,)),
    "timm cnn": lambda folder: TimmImage(name="test_efficientnet", pretrained=False, image_size=64),
    "open_clip": lambda folder: OpenClipImage(name=str(factory.open_clip_folder(folder)), layers=(-2, -1)),
    "hf clip": lambda folder: HfImage(name=str(factory.clip(folder)), layers=(-2,), fit="pad"),
    "hf siglip": lambda folder: HfImage(name=str(factory.siglip(folder))),
    "hf dinov2": lambda folder: HfImage(name=str(factory.dinov2(folder)), fit="squash"),
    "hf resnet": lambda folder: HfImage(name=str(factory.resnet(folder))),
    "multiway": lambda folder: MULTIWAY,
    "tiled channels": lambda folder: TiledImage(of=TinyImage(image_size=16, layers=(1, -1))),
    "tiled tokens": lambda folder: TiledImage(of=TinyImage(image_size=16), merge="tokens"),
}


@pytest.mark.parametrize("kind", MAKE)
def test_every_bridge_takes_every_encoder_s_tokens(kind: str, tmp_path: Path) -> None:
    encoder: Any = build_image_encoder(MAKE[kind](tmp_path))
    pixels = torch.stack([encoder.transform(factory.random_image(seed)) for seed in range(2)])
    tokens = encoder.tokens(pixels)
    for name, fields in BRIDGES.items():
        bridge = vlkit.bridge(in_width=encoder.token_width, out_width=24, **fields)
        if (name, kind) == ("pixel_shuffle", "tiled tokens"):
            with pytest.raises(ShapeError, match="20 image tokens form none"):
                bridge(tokens)
            continue
        out = bridge(tokens)
        assert out.shape == (2, bridge.num_tokens(encoder.num_tokens(encoder.image_size)), 24)
        out.square().mean().backward(retain_graph=True)
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in bridge.parameters())
    assert any(weight.grad is not None for weight in encoder.parameters())


@pytest.mark.parametrize("architecture", ["gemma3", "t5"])
@pytest.mark.parametrize("kind", ["timm vit", "timm cnn", "open_clip", "hf clip", "multiway", "tiled channels"])
def test_every_encoder_trains_writes_and_comes_back(kind: str, architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = MAKE[kind](tmp_path / "encoder").model_dump()
    language_model = {"kind": "tiny", "architecture": architecture}
    given = {"encoder": encoder, "bridge": BRIDGES["qformer"], "language_model": language_model}
    model: Any = build(VisionLanguageSpec.model_validate(given))
    batch = dialogues(model, (1, ("what?", "a cat")), (2, ("which <image> <image>", "b")))
    model.train()
    loss = AnswerLoss(AnswersObjective())(model, batch).total
    loss.backward()
    assert loss.isfinite() and all(weight.grad is not None for weight in model.bridge.parameters())
    model.eval()
    answer = model.ask(picture(1), "what is this?", max_tokens=4)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model", expect=VisionLanguageModel)
    torch.testing.assert_close(again(batch).states_RE, model(batch).states_RE, atol=1e-5, rtol=1e-5)
    assert again.ask(picture(1), "what is this?", max_tokens=4) == answer
