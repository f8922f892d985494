"""The pretrained parts, through our encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from vlkit.parts.encoders import build_image_encoder, build_text_encoder, image_encoder, text_encoder

pytestmark = pytest.mark.assets


def test_e5_knows_its_prefix_and_translations(tmp_path: Path) -> None:
    encoder = text_encoder("hf:intfloat/multilingual-e5-small")
    assert (encoder.spec.pooling, encoder.spec.prefix, encoder.width) == ("mean", "query: ", 384)
    with torch.no_grad():
        dog, hund, mbwa, cat = torch.nn.functional.normalize(
            encoder(encoder.tokenize(["dog", "Hund", "mbwa", "cat"])), dim=-1
        )
    # measured when the weights were converted: .935, .928, .901
    assert float(dog @ hund) == pytest.approx(0.935, abs=0.002)
    assert float(dog @ mbwa) == pytest.approx(0.928, abs=0.002)
    assert float(dog @ cat) == pytest.approx(0.901, abs=0.002)
    encoder.save_config(tmp_path)
    again = build_text_encoder(encoder.spec, saved=tmp_path)
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(again(again.tokenize(["chat"])), encoder(encoder.tokenize(["chat"])))


def test_efficientnet_sees_a_cat(tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    encoder = image_encoder("timm:tf_efficientnet_lite0.in1k")
    rows = encoder.class_rows()
    assert rows is not None and encoder.width == rows.weight_KD.shape[1] == 1280
    pixels_1CHW = encoder.transform(Image.fromarray(data.chelsea())).unsqueeze(0)
    with torch.no_grad():
        logits_K = encoder(pixels_1CHW)[0] @ rows.weight_KD.T + rows.bias_K
    assert any("cat" in " ".join(rows.names[index]) for index in logits_K.topk(2).indices)
    encoder.save_config(tmp_path)
    again = build_image_encoder(encoder.spec, saved=tmp_path)
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(again(pixels_1CHW), encoder(pixels_1CHW))


def test_a_causal_model_as_text_encoder() -> None:
    encoder = text_encoder("hf:HuggingFaceTB/SmolLM2-135M-Instruct")
    assert (encoder.spec.pooling, encoder.width) == ("last", 576)
    with torch.no_grad():
        together = encoder(encoder.tokenize(["a dog", "a very long sentence about the city of Paris"]))
        alone = encoder(encoder.tokenize(["a dog"]))
    torch.testing.assert_close(together[:1], alone, atol=1e-3, rtol=1e-4)
