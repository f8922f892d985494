"""Foreign two-tower models: our features are the library's own, end to end from images and strings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import encoder_factory as factory
from vlkit.errors import AssetError, VlkitError
from vlkit.parts.clip_models import load_hf_clip, load_open_clip
from vlkit.parts.encoders import build_image_encoder, build_text_encoder
from vlkit.spec.parts import HfImage, HfText, OpenClipImage

_LONG = [*factory.TEXTS, "x" * 200]


def _ours(image: Any, text: Any) -> tuple[torch.Tensor, torch.Tensor]:
    pixels_BCHW = torch.stack([image.transform(factory.random_image(seed)) for seed in range(3)])
    with torch.no_grad():
        return image(pixels_BCHW), text(text.tokenize(_LONG))


def _close(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.abs().max() > 1e-3
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flavour", ["native", "siglip", "hf_text", "coca", "timm"])
def test_open_clip_folder_equals_open_clip(flavour: str, tmp_path: Path) -> None:
    import open_clip

    hf_text = factory.xlm_roberta(tmp_path / "xlmr") if flavour == "hf_text" else None
    if flavour == "coca":
        folder = factory.coca_folder(tmp_path / "oc")
    else:
        timm = "test_vit" if flavour == "timm" else None
        folder = factory.open_clip_folder(tmp_path / "oc", siglip_like=flavour == "siglip", hf_text=hf_text, timm=timm)
    image, text, scale_bias = load_open_clip(str(folder))
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    pixels_BCHW = torch.stack([preprocess(factory.random_image(seed)) for seed in range(3)])
    with torch.no_grad():
        want = (
            model.encode_image(pixels_BCHW, normalize=False),
            model.encode_text(tokenizer(_LONG), normalize=False),
        )
    got = _ours(image, text)
    _close(got[0], want[0])
    _close(got[1], want[1])
    assert scale_bias.scale == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-6)
    assert scale_bias.bias == (-10.0 if flavour == "siglip" else None)


@pytest.mark.parametrize("flavour", ["native", "siglip", "coca"])
def test_open_clip_texts_are_cut_to_the_longest_where_that_changes_nothing(flavour: str, tmp_path: Path) -> None:
    make = factory.coca_folder if flavour == "coca" else factory.open_clip_folder
    folder = make(tmp_path / "oc", **({"siglip_like": True} if flavour == "siglip" else {}))
    _, text, _ = load_open_clip(str(folder))
    seen: list[int] = []
    text.tower.transformer.resblocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    short = text.tokenize(["a cat", "un petit chat noir"])
    with torch.no_grad():
        want = text(short)
    for _ in range(2):  # what is changed for the call is put back
        with torch.inference_mode():
            _close(text(short), want)
    with torch.no_grad():
        assert torch.equal(text(short), want)
    whole, longest = seen[0], int(short.mask_BL.sum(1).max())
    assert longest < short.ids_BL.shape[1] <= whole
    assert seen == [whole, *[longest if flavour == "native" else whole] * 2, whole]


def test_open_clip_local_weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    import open_clip

    folder = factory.open_clip_folder(tmp_path / "oc")
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "Tiny-CLIP.json").write_text(json.dumps(config))
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIG_PATHS", [tmp_path / "Tiny-CLIP.json"])
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", {})
    open_clip.factory._rescan_model_configs()
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    for file in (folder / "open_clip_model.safetensors", tmp_path / "weights.pt"):
        image, text, _ = load_open_clip(f"Tiny-CLIP/{file}")
        pixels_BCHW = torch.stack([image.transform(factory.random_image(seed)) for seed in range(3)])
        with torch.no_grad():
            _close(image(pixels_BCHW), model.encode_image(pixels_BCHW))
            _close(text(text.tokenize(_LONG)), model.encode_text(open_clip.SimpleTokenizer(context_length=20)(_LONG)))
    # one tower alone takes the same weights
    alone = build_image_encoder(OpenClipImage(name=f"Tiny-CLIP/{file}"))
    with torch.no_grad():
        assert torch.equal(alone(pixels_BCHW), image(pixels_BCHW))


def test_open_clip_pickle_is_refused(tmp_path: Path) -> None:
    folder = factory.open_clip_folder(tmp_path / "oc")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": {}, "code": Path("/")}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(AssetError, match=r"cannot read .*model\.bin: it is a pickle of more than tensors \(pathlib"):
        load_open_clip(str(folder))


def test_no_hub_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(AssetError) as caught:
        load_open_clip("nllb-clip-base/v1")
    assert str(caught.value).startswith(
        "cannot load the weights of open_clip:nllb-clip-base/v1 (the hub was not asked: HF_HUB_OFFLINE=1 is set): "
    )
    assert str(caught.value).endswith("open_clip_model.safetensors and the tokenizer's files")
    assert not constants.HF_HUB_OFFLINE


_HF: dict[str, Callable[[Path], Path]] = {
    "clip": factory.clip, "siglip": factory.siglip, "vision_text": factory.vision_text, "chinese": factory.chinese_clip,
    "alt": factory.alt_clip, "metaclip_2": factory.metaclip_2, "align": factory.align, "groupvit": factory.groupvit,
    "owlvit": factory.owlvit,
}  # fmt: skip


@pytest.mark.parametrize("kind", _HF)
def test_hf_folder_equals_transformers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = _HF[kind](tmp_path)
    image, text, scale_bias = load_hf_clip(str(folder))
    model = AutoModel.from_pretrained(folder).eval()
    processor, tokenizer = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    options = {"padding": "max_length"} if kind == "siglip" else {"padding": True}
    cut = text.tokenizer.max_length
    tokens = tokenizer(_LONG, return_tensors="pt", truncation=True, max_length=cut, **options)
    if kind == "siglip":  # its own processor passes no mask
        tokens.pop("attention_mask")
    tokens.pop("token_type_ids", None)
    images = [factory.random_image(seed) for seed in range(3)]
    with torch.no_grad():
        want = model(pixel_values=processor(images, return_tensors="pt")["pixel_values"], **tokens)
        got = [torch.nn.functional.normalize(features, dim=-1) for features in _ours(image, text)]
    _close(got[0], want.image_embeds)
    _close(got[1], want.text_embeds)
    logits = scale_bias.scale * got[0] @ got[1].T + (scale_bias.bias or 0)
    torch.testing.assert_close(logits, want.logits_per_image, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [*_HF, "open_clip"])
def test_each_side_holds_its_own_half(kind: str, tmp_path: Path) -> None:
    load, make = (load_open_clip, factory.open_clip_folder) if kind == "open_clip" else (load_hf_clip, _HF[kind])
    image, text, _ = load(str(make(tmp_path / "model")))
    images, texts = ({p.data_ptr() for p in encoder.parameters()} for encoder in (image, text))
    assert images and texts and not images & texts
    names = [name for name, _ in image.named_parameters()], [name for name, _ in text.named_parameters()]
    assert not any("text" in name or "logit" in name for name in names[0])
    assert not any("visi" in name or "visual" in name or "logit" in name for name in names[1])


@pytest.mark.parametrize("kind", [*_HF, "open_clip"])
def test_foreign_encoders_build_again_from_their_folders(kind: str, tmp_path: Path) -> None:
    load, make = (load_open_clip, factory.open_clip_folder) if kind == "open_clip" else (load_hf_clip, _HF[kind])
    image, text, _ = load(str(make(tmp_path / "model")))
    image.save_config(tmp_path / "image")
    text.save_config(tmp_path / "text")
    image_2, text_2 = (
        build_image_encoder(image.spec, saved=tmp_path / "image"),
        build_text_encoder(text.spec, saved=tmp_path / "text"),
    )
    image_2.load_state_dict(image.state_dict())
    text_2.load_state_dict(text.state_dict())
    for one, other in zip(_ours(image, text), _ours(image_2, text_2), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("kind", "width", "tokens"), [("align", 8, (256, 8)), ("groupvit", 12, (2, 16))])
def test_widths_that_no_configuration_names_are_measured(
    kind: str, width: int, tokens: tuple[int, int], tmp_path: Path
) -> None:
    image, text, _ = load_hf_clip(str(_HF[kind](tmp_path)))
    features_BD, tokens_BNT = image.pooled_and_states(torch.stack([image.transform(factory.random_image())]))
    assert (image.width, text.width, features_BD.shape) == (width, width, (1, width))
    assert (image.num_tokens(image.image_size), image.token_width) == tuple(tokens_BNT.shape[1:]) == tokens


def test_a_model_of_images_before_a_language_model_is_no_pair(tmp_path: Path) -> None:
    folder = factory.blip_2(tmp_path)
    with pytest.raises(VlkitError, match=r"'blip-2' has no scale of similarities, .*in no shared space; use it as one"):
        load_hf_clip(str(folder))
    with pytest.raises(VlkitError, match=r"'blip-2' has no text model beside its image model; name its language model"):
        build_text_encoder(HfText(name=str(folder)))
    assert build_image_encoder(HfImage(name=str(folder))).width == 16


def test_a_single_encoder_is_no_pair(tmp_path: Path) -> None:
    folder = factory.bert(tmp_path)
    with pytest.raises(VlkitError, match=r"model_type = 'bert' is no two-tower model; use it as one encoder"):
        load_hf_clip(str(folder))
