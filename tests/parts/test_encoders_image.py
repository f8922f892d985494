"""Laws of image encoders: one == many, save/build identity, transforms that say all of themselves."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import encoder_factory as factory
from vlkit.errors import AssetError, UnknownName, VlkitError
from vlkit.parts.encoders import IMAGE_ENCODERS, build_image_encoder, image_encoder
from vlkit.spec.parts import HfImage, MultiwayImage, OpenClipImage, TiledImage, TimmImage, TinyImage
from vlkit.types import GivesStates, ImageEncoder, ResizesImages

_HF: dict[str, Callable[[Path], Path]] = {
    "vit": factory.vit, "dinov2": factory.dinov2, "resnet": factory.resnet, "clip": factory.clip,
    "siglip": factory.siglip, "vision_text": factory.vision_text,
}  # fmt: skip
_TIMM = {"timm_vit": "test_vit", "timm_cnn": "test_efficientnet", "timm_resnet": "test_resnet"}
_KINDS = [*_HF, *_TIMM, "tiny", "multiway", "open_clip", "tiled"]
_TOKENS = {"resnet": 16, "timm_cnn": 25, "timm_resnet": 25, "timm_vit": 100}  # others: (32 / 8)^2


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("models")
    found: dict[str, Any] = {name: HfImage(name=str(make(root / name))) for name, make in _HF.items()}
    found |= {key: TimmImage(name=name, pretrained=False) for key, name in _TIMM.items()}
    found["tiny"] = TinyImage()
    found["multiway"] = MultiwayImage(width=32, heads=2, ffn=64, layers=1, vl_layers=1, image_size=32, patch_size=8)
    found["tiled"] = TiledImage(of=TinyImage())
    found["open_clip"] = OpenClipImage(name=str(factory.open_clip_folder(root / "oc")))
    return found


def _pixels(encoder: Any, count: int = 3) -> torch.Tensor:
    return torch.stack([encoder.transform(factory.random_image(seed)) for seed in range(count)])


def _features(encoder: Any, count: int = 3) -> torch.Tensor:
    with torch.no_grad():
        return encoder(_pixels(encoder, count))


def test_every_registered_kind_is_tested_here(specs: dict[str, Any]) -> None:
    assert {spec.kind for spec in specs.values()} == set(IMAGE_ENCODERS)


@pytest.mark.parametrize("kind", _KINDS)
def test_protocol_and_one_equals_many(kind: str, specs: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder = build_image_encoder(specs[kind])
    assert isinstance(encoder, ImageEncoder)
    assert not encoder.training
    pixels_BCHW = _pixels(encoder)
    assert pixels_BCHW.shape == (3, 3, encoder.image_size, encoder.image_size) and pixels_BCHW.dtype == torch.float32
    with torch.no_grad():
        together, tokens_BND = encoder(pixels_BCHW), encoder.tokens(pixels_BCHW)
        alone = torch.cat([encoder(pixels_1CHW) for pixels_1CHW in pixels_BCHW.split(1)])
    assert together.shape == (3, encoder.width)
    assert len(torch.unique(together, dim=0)) == 3
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)
    assert tokens_BND.shape[:2] == (3, _TOKENS.get(kind, 16))
    assert encoder.num_tokens(encoder.image_size) == _TOKENS.get(kind, 16)


@pytest.mark.parametrize("kind", _KINDS)
def test_features_and_tokens_in_one_pass_are_those_of_two(kind: str, specs: dict[str, Any]) -> None:
    encoder: Any = build_image_encoder(specs[kind])
    pixels_BCHW = _pixels(encoder, 2)
    with torch.no_grad():
        features_BD, tokens_BND = encoder.pooled_and_states(pixels_BCHW)
        torch.testing.assert_close(features_BD, encoder(pixels_BCHW))
        torch.testing.assert_close(tokens_BND, encoder.tokens(pixels_BCHW))
    assert isinstance(encoder, GivesStates) and tokens_BND.shape[-1] == encoder.token_width


@pytest.mark.parametrize("kind", _KINDS)
def test_saved_config_and_state_give_the_same_features(kind: str, specs: dict[str, Any], tmp_path: Path) -> None:
    first = build_image_encoder(specs[kind])
    first.save_config(tmp_path)
    spec = first.spec.model_copy(update={} if kind in {"tiny", "multiway", "tiled"} else {"name": "gone/away"})
    second = build_image_encoder(spec, saved=tmp_path)
    second.load_state_dict(first.state_dict())
    assert repr(second.transform) == repr(first.transform)
    assert torch.equal(_features(first), _features(second))


@pytest.mark.parametrize("kind", _KINDS)
def test_empty_has_the_same_parameters_and_no_storage(kind: str, specs: dict[str, Any]) -> None:
    empty = build_image_encoder(specs[kind], empty=True)
    assert all(parameter.is_meta for parameter in empty.parameters())
    real = build_image_encoder(specs[kind])
    assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}


@pytest.mark.parametrize(
    "kind", ["vit", "dinov2", "clip", "siglip", "vision_text", "timm_vit", "timm_cnn", "open_clip", "tiny"]
)
def test_another_image_size(kind: str, specs: dict[str, Any], tmp_path: Path) -> None:
    spec = specs[kind].model_copy(update={"image_size": 64})
    encoder = build_image_encoder(spec)
    assert encoder.image_size == 64
    assert _pixels(encoder).shape == (3, 3, 64, 64)
    assert torch.isfinite(_features(encoder)).all()
    encoder.save_config(tmp_path)
    again = build_image_encoder(spec, saved=tmp_path)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(_features(encoder), _features(again))


@pytest.mark.parametrize("kind", _KINDS)
def test_transform_is_deterministic_and_takes_any_mode(kind: str, specs: dict[str, Any]) -> None:
    transform = build_image_encoder(specs[kind]).transform
    image = factory.random_image()
    assert torch.equal(transform(image), transform(image))
    copied = pickle.loads(pickle.dumps(transform))  # noqa: S301 - worker processes get it so
    assert torch.equal(copied(image), transform(image)) and repr(copied) == repr(transform)
    opaque = image.copy()
    opaque.putalpha(255)
    assert torch.equal(transform(opaque), transform(image))
    assert transform(image.convert("L")).shape == transform(image).shape
    assert "0x" not in repr(transform) and "size" in repr(transform)


def test_transforms_that_differ_have_different_reprs(specs: dict[str, Any]) -> None:
    for kind in ("vit", "timm_vit", "open_clip", "tiny"):
        plain, large = (
            build_image_encoder(specs[kind].model_copy(update=change)) for change in ({}, {"image_size": 64})
        )
        assert repr(plain.transform) != repr(large.transform)


def test_random_start_follows_the_seed() -> None:
    def build() -> torch.Tensor:
        torch.manual_seed(3)
        return _features(build_image_encoder(TinyImage()))

    assert torch.equal(build(), build())


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_hf_pooling_is_what_its_name_says(pooling: str, specs: dict[str, Any]) -> None:
    from transformers import AutoModel

    encoder = build_image_encoder(specs["vit"].model_copy(update={"pooling": pooling}))
    with torch.no_grad():
        states = AutoModel.from_pretrained(specs["vit"].name)(_pixels(encoder)).last_hidden_state
    want = {"cls": states[:, 0], "mean": states[:, 1:].mean(dim=1)}[pooling]
    torch.testing.assert_close(_features(encoder), want, atol=1e-5, rtol=1e-5)


def test_auto_takes_the_model_pooler(specs: dict[str, Any]) -> None:
    from transformers import AutoModel

    encoder = build_image_encoder(specs["vit"])
    with torch.no_grad():
        want = AutoModel.from_pretrained(specs["vit"].name)(_pixels(encoder)).pooler_output
    torch.testing.assert_close(_features(encoder), want, atol=1e-5, rtol=1e-5)


def test_auto_without_pooler_weights_is_the_mean_and_says_so(tmp_path: Path) -> None:
    encoder = build_image_encoder(HfImage(name=str(factory.vit(tmp_path, pooler=False))))
    assert encoder.spec.pooling == "mean"
    assert not any("pooler" in name for name, _ in encoder.named_parameters())


def test_explicit_pooling_of_a_two_tower_model_does_not_project(specs: dict[str, Any], tmp_path: Path) -> None:
    encoder = build_image_encoder(specs["clip"].model_copy(update={"pooling": "cls"}))
    assert encoder.width == 16 and build_image_encoder(specs["clip"]).width == 12
    encoder.save_config(tmp_path)
    again = build_image_encoder(encoder.spec, saved=tmp_path)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(_features(again), _features(encoder))


def _timm_folder(folder: Path, *, classes: int) -> Path:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=classes)
    cfg = {"input_size": [3, 160, 160], "interpolation": "bicubic", "crop_pct": 0.95, "mean": [0.5] * 3,
           "std": [0.5] * 3, "num_classes": classes, "first_conv": "conv_stem", "classifier": "classifier"}  # fmt: skip
    content = {"architecture": "test_efficientnet", "num_classes": classes, "pretrained_cfg": cfg}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def test_class_rows_give_the_classifier_logits(tmp_path: Path) -> None:
    encoder = build_image_encoder(TimmImage(name=str(_timm_folder(tmp_path, classes=1000))))
    rows = encoder.class_rows()
    assert rows is not None and len(rows.names) == 1000
    assert rows.names[0] == ("tench", "Tinca tinca")
    assert rows.names[1][0] == "goldfish"
    with torch.no_grad():
        want = encoder.model(_pixels(encoder))
    torch.testing.assert_close(_features(encoder) @ rows.weight_KD.T + rows.bias_K, want, atol=1e-4, rtol=1e-4)
    assert not rows.weight_KD.requires_grad


def test_the_classifier_survives_saving(tmp_path: Path) -> None:
    first = build_image_encoder(TimmImage(name=str(_timm_folder(tmp_path / "a", classes=1000))))
    first.save_config(tmp_path / "b")
    second = build_image_encoder(first.spec, saved=tmp_path / "b")
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.class_rows().weight_KD, first.class_rows().weight_KD)


def test_no_class_rows_without_an_imagenet_classifier(tmp_path: Path, specs: dict[str, Any]) -> None:
    assert build_image_encoder(TimmImage(name=str(_timm_folder(tmp_path, classes=10)))).class_rows() is None
    assert build_image_encoder(specs["timm_cnn"]).class_rows() is None


def test_timm_weights_are_loaded(tmp_path: Path) -> None:
    folder = _timm_folder(tmp_path, classes=1000)
    from safetensors.torch import load_file

    want = load_file(folder / "model.safetensors")
    state = build_image_encoder(TimmImage(name=str(folder))).model.state_dict()
    assert want.keys() == state.keys() and all(torch.equal(want[key], state[key]) for key in want)


def test_wrong_inputs(tmp_path: Path, specs: dict[str, Any]) -> None:
    with pytest.raises(UnknownName, match=r"no timm model 'resnet51'; did you mean .*resnet5"):
        image_encoder("timm:resnet51", pretrained=False)
    with pytest.raises(UnknownName) as caught:
        image_encoder("tim:resnet50")
    assert str(caught.value) == (
        "no image encoder 'tim'; did you mean 'timm'? Names read 'timm:NAME', 'open_clip:MODEL/TAG', 'hf:ID', 'tiny'."
    )
    with pytest.raises(VlkitError, match="tiny takes no name; write 'tiny'"):
        image_encoder("tiny:x")
    with pytest.raises(VlkitError, match="image_size = 33 is no multiple of its patch size 8; nearest: 32"):
        image_encoder("tiny", image_size=33)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AssetError, match="has no key 'architecture'; it is no timm model"):
        build_image_encoder(TimmImage(name=str(tmp_path)))
    with pytest.raises(AssetError, match=r"is no open_clip folder in hub layout: it has no open_clip_config.json"):
        build_image_encoder(OpenClipImage(name=str(tmp_path)))
    with pytest.raises(VlkitError, match=r"test_vit: image_size = 30 is no multiple of its patch size 16; nearest: 32"):
        build_image_encoder(specs["timm_vit"].model_copy(update={"image_size": 30}))


@pytest.mark.parametrize("kind", ["vit", "clip", "open_clip"])
def test_an_image_size_that_patches_do_not_fill(kind: str, specs: dict[str, Any]) -> None:
    with pytest.raises(VlkitError, match="image_size = 30 is no multiple of its patch size 8; nearest: 32"):
        build_image_encoder(specs[kind].model_copy(update={"image_size": 30}))


def test_a_folder_without_an_image_processor(tmp_path: Path) -> None:
    folder = factory.vit(tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(AssetError, match="holds no image processor that can be read"):
        build_image_encoder(HfImage(name=str(folder)))


def test_names_build_their_kind(specs: dict[str, Any]) -> None:
    assert image_encoder("tiny", image_size=64).spec == TinyImage(image_size=64)
    assert image_encoder(f"hf:{specs['vit'].name}").spec == specs["vit"]
    assert image_encoder("timm:test_vit", pretrained=False, image_size=64).spec == TimmImage(
        name="test_vit", pretrained=False, image_size=64
    )
    assert image_encoder(f"open_clip:{specs['open_clip'].name}").spec == specs["open_clip"]


@pytest.mark.parametrize("kind", ["vit", "dinov2", "resnet", "timm_cnn", "timm_resnet", "tiny"])
def test_the_count_of_tokens_is_that_of_the_tokens_at_any_size(kind: str, specs: dict[str, Any]) -> None:
    encoder: Any = build_image_encoder(specs[kind].model_copy(update={"image_size": 64}))
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    sizes = (64,) if kind == "tiny" else (64, 96, 136)
    for size in sizes:
        with torch.no_grad():
            assert encoder.num_tokens(size) == encoder.tokens(torch.zeros(1, 3, size, size)).shape[1]
    assert encoder.train().num_tokens(64) == encoder.eval().num_tokens(64)  # and no batch statistics moved
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())


def test_the_count_of_tokens_at_a_size_that_the_model_does_not_take(specs: dict[str, Any]) -> None:
    encoder = build_image_encoder(specs["vit"])
    with pytest.raises(VlkitError, match=r"^HfImageEncoder takes no images of 64x64 pixels: .*64"):
        encoder.num_tokens(64)


def test_a_dry_run_counts_tokens_too(specs: dict[str, Any]) -> None:
    for kind in ("timm_vit", "vit", "open_clip"):
        encoder = build_image_encoder(specs[kind], empty=True)
        assert encoder.num_tokens(encoder.image_size) == _TOKENS.get(kind, 16)


@pytest.mark.parametrize("kind", _KINDS)
def test_images_are_not_resized_to_less_than_the_transform_wants(kind: str, specs: dict[str, Any]) -> None:
    encoder = build_image_encoder(specs[kind])
    assert isinstance(encoder, ResizesImages) and encoder.resized_to >= encoder.image_size
    if kind == "timm_cnn":  # crops the middle 87.5 % of what it resizes to
        assert encoder.resized_to == math.ceil(encoder.image_size / encoder.transform.settings["crop_pct"])


@pytest.mark.parametrize(
    ("vision", "timm", "width"),
    [({"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}, None, 256), (None, "test_vit", 64)],
)
def test_the_width_of_tokens_of_open_clips_other_towers(
    vision: dict[str, Any] | None, timm: str | None, width: int, tmp_path: Path
) -> None:
    folder = factory.open_clip_folder(tmp_path / "oc", vision=vision, timm=timm)
    encoder: Any = build_image_encoder(OpenClipImage(name=str(folder)))
    assert isinstance(encoder, ImageEncoder) and encoder.token_width == width
    with torch.no_grad():
        tokens_BNT = encoder.tokens(torch.zeros(1, 3, encoder.image_size, encoder.image_size))
    assert tokens_BNT.shape == (1, encoder.num_tokens(encoder.image_size), width)


def test_timm_models_that_make_no_tokens_of_an_image_say_so() -> None:
    encoder: Any = build_image_encoder(TimmImage(name="crossvit_tiny_240", pretrained=False), empty=True)
    pixels_BCHW = torch.empty(2, 3, 240, 240, device="meta")
    assert encoder(pixels_BCHW).shape == (2, encoder.width)
    for ask in (encoder.tokens, encoder.pooled_and_states, lambda _: encoder.num_tokens(240)):
        with pytest.raises(
            VlkitError, match=r"^timm:crossvit_tiny_240 gives no tokens, .* a list of 2; leave decoders"
        ):
            ask(pixels_BCHW)
