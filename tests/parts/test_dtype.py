"""Encoders whose weights are held in fewer bits: half the bytes, features that are close, and saved as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

from tests.helpers import encoder_factory as factory
from vlkit.adapt.inject import add_adapter
from vlkit.errors import VlkitError
from vlkit.models.folder import load, save
from vlkit.models.registry import build
from vlkit.models.trainable import set_trainable, trainable_report
from vlkit.parts.building import build_part
from vlkit.parts.encoders import IMAGE_ENCODERS, TEXT_ENCODERS, image_encoder, text_encoder
from vlkit.spec.adapt import Bottleneck, LoRA
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import (
    HfImage,
    HfText,
    LinearHeadSpec,
    MultiwayImage,
    MultiwayText,
    OpenClipImage,
    OpenClipText,
    TimmImage,
    TinyImage,
    TinyText,
)

_SMALL = {"width": 32, "heads": 2, "ffn": 64, "layers": 1, "vl_layers": 1}


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("models")
    folder = str(factory.open_clip_folder(root / "oc"))
    clip = str(factory.clip(root / "clip"))
    return {
        "image timm": TimmImage(name="test_vit", pretrained=False),
        "image timm cnn": TimmImage(name="test_efficientnet", pretrained=False),
        "image open_clip": OpenClipImage(name=folder),
        "image hf": HfImage(name=str(factory.vit(root / "vit"))),
        "image hf clip": HfImage(name=clip),
        "image hf cls": HfImage(name=clip, pooling="cls"),
        "image multiway": MultiwayImage(**_SMALL, image_size=32, patch_size=8),
        "image tiny": TinyImage(),
        "text hf": HfText(name=str(factory.bert(root / "bert"))),
        "text hf llama": HfText(name=str(factory.llama(root / "llama")), layers=(0, -1)),
        "text hf clip": HfText(name=clip),
        "text open_clip": OpenClipText(name=folder),
        "text multiway": MultiwayText(**_SMALL),
        "text tiny": TinyText(),
    }


_KINDS = [
    "image timm", "image timm cnn", "image open_clip", "image hf", "image hf clip", "image hf cls", "image multiway",
    "image tiny", "text hf", "text hf llama", "text hf clip", "text open_clip", "text multiway", "text tiny",
]  # fmt: skip


def _built(spec: Any, *, saved: Path | None = None, empty: bool = False) -> Any:
    torch.manual_seed(0)
    kinds = IMAGE_ENCODERS if type(spec).__name__.endswith("Image") else TEXT_ENCODERS
    return build_part(kinds, spec, saved=saved, empty=empty)


def _inputs(encoder: Any) -> Any:
    if hasattr(encoder, "tokenize"):
        return encoder.tokenize(factory.TEXTS)
    return torch.stack([encoder.transform(factory.random_image(seed)) for seed in range(3)])


def _bytes(encoder: Any) -> int:
    return sum(parameter.nbytes for parameter in encoder.parameters())


@pytest.mark.parametrize("kind", _KINDS)
def test_half_the_bytes_and_close_features(kind: str, specs: dict[str, Any]) -> None:
    whole, half = _built(specs[kind]), _built(specs[kind].model_copy(update={"dtype": "bfloat16"}))
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert _bytes(half) * 2 == _bytes(whole)
    inputs = _inputs(whole)
    with torch.no_grad():
        expected, features = whole(inputs), half(inputs)
        pooled, states = half.pooled_and_states(inputs)
    assert features.dtype == pooled.dtype == states.dtype == expected.dtype == torch.float32
    assert not torch.equal(features, expected)
    assert cosine_similarity(features, expected).min() > 0.99
    assert torch.equal(pooled, features)
    if kind.startswith("image"):
        with torch.no_grad():
            assert torch.equal(half.tokens(inputs), states)
        assert half.num_tokens(half.image_size) == states.shape[1]


@pytest.mark.parametrize("kind", _KINDS)
def test_saved_and_empty_ones_are_held_alike(kind: str, specs: dict[str, Any], tmp_path: Path) -> None:
    half = _built(specs[kind].model_copy(update={"dtype": "float16"}))
    half.save_config(tmp_path)
    again = _built(half.spec, saved=tmp_path)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float16}
    again.load_state_dict(half.state_dict())
    inputs = _inputs(half)
    with torch.no_grad():
        assert torch.equal(again(inputs), half(inputs))
    assert _bytes(_built(half.spec, empty=True)) == _bytes(half)


def test_a_model_folder_keeps_the_precision_of_its_parts(tmp_path: Path) -> None:
    image, text = TinyImage(dtype="bfloat16"), TinyText()
    model = build(DualEncoderSpec(image=image, text=text, embed_dim=8)).eval()
    assert model.spec.image.dtype == "bfloat16"
    again = load(save(model, tmp_path / "model"))
    assert {parameter.dtype for parameter in again.image.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in again.text.parameters()} == {torch.float32}
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.encode_image(pixels), model.encode_image(pixels))


@pytest.mark.parametrize("kind", ["text hf", "image open_clip", "image hf", "text multiway"])
@pytest.mark.parametrize("adapter", [LoRA(rank=2), Bottleneck(width=4)])
def test_an_adapter_of_an_encoder_of_fewer_bits_is_float32(adapter: Any, kind: str, specs: dict[str, Any]) -> None:
    plain = _built(specs[kind].model_copy(update={"dtype": "bfloat16"}))
    inputs = _inputs(plain)
    expected = plain(inputs).detach()
    encoder = add_adapter(plain, adapter)
    trains = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trains} == {torch.float32}
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32, torch.bfloat16}
    features = encoder(inputs)
    near = 0.02 if kind == "image open_clip" else 0.0  # torch's own attention takes other ways where nothing trains
    torch.testing.assert_close(features, expected, atol=near, rtol=near)
    features.square().sum().backward()
    grads = [parameter.grad for parameter in trains if parameter.grad is not None]
    assert features.dtype == torch.float32 and any(bool(grad.any()) for grad in grads)


def test_an_adapter_of_fewer_bits_is_saved_as_it_is(tmp_path: Path) -> None:
    spec = DualEncoderSpec(image=TinyImage(dtype="bfloat16"), text=TinyText(), embed_dim=8, adapters={"image": LoRA()})
    model = build(spec).eval()
    set_trainable(model, ["image_adapter", "image_head"])
    again = load(save(model, tmp_path / "model"))
    assert {row.part: row.dtype for row in trainable_report(again).rows}["image_adapter"] == "float32"
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.encode_image(pixels), model.encode_image(pixels))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_fewer_bits_do_not_train(dtype: Any) -> None:
    model = build(DualEncoderSpec(image=TinyImage(dtype=dtype), text=TinyText(), embed_dim=8))
    set_trainable(model, ["image_head"])
    before = [parameter.requires_grad for parameter in model.parameters()]
    for part in ("image", "image.blocks"):
        with pytest.raises(VlkitError) as caught:
            set_trainable(model, ["text", part])
        assert str(caught.value) == (
            f"part {part!r} is to train and holds its weights in {dtype}, where most steps of an optimizer are rounded "
            f"away: set dtype: float32 in its spec (loop.precision: bf16 computes in fewer bits all the same), or "
            f"leave it frozen and train an adapter in it, which has float32 weights"
        )
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    set_trainable(model, ["text", "image_head", "scale"])


def test_by_name() -> None:
    image, text = image_encoder("tiny", dtype="bfloat16"), text_encoder("tiny", dtype="float16")
    assert next(image.parameters()).dtype == torch.bfloat16 and next(text.parameters()).dtype == torch.float16
    assert next(image_encoder("tiny").parameters()).dtype == torch.float32


def test_heads_stay_in_float32() -> None:
    spec = DualEncoderSpec(
        image=TinyImage(dtype="bfloat16"), text=TinyText(dtype="bfloat16"), embed_dim=8, image_head=LinearHeadSpec()
    )
    model = build(spec)
    assert {parameter.dtype for parameter in model.image_head.parameters()} == {torch.float32}
