"""Exports to transformers: equal logits there, nothing kept where they are not, and what has no place is told."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

import vlkit
from tests.helpers import whole_models as theirs
from tests.helpers.vision_language import picture, tiny
from vlkit.errors import UnknownName, VlkitError
from vlkit.models.vision_language.export.to_llava import chat_template
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.parts.encoders import build_image_encoder
from vlkit.spec.adapt import LoRA
from vlkit.spec.model import DialogueSpec
from vlkit.spec.parts import TimmImage


def adapted(model: VisionLanguageModel) -> VisionLanguageModel:
    """With LoRA in its language model that has learned something."""
    language_model: Any = model.language_model
    vlkit.add_lora(language_model, LoRA(rank=2, targets="all"))
    torch.manual_seed(1)
    for name, parameter in language_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def asked(model: VisionLanguageModel) -> torch.Tensor:
    return model.log_likelihoods([vlkit.types.Question("What is this?", (picture(0),))], ["a cat"])


def as_its_card_says(folder: Path) -> str:
    """What the lines of an export's README.md print."""
    code = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    printed = io.StringIO()
    picture(0).save("photo.jpg")
    with contextlib.redirect_stdout(printed):
        exec(code.replace("path/to/this/folder", str(folder)), {})
    return printed.getvalue().strip()


@pytest.mark.parametrize("architecture", ["opt", "mt5"])
def test_a_blip2_comes_back_as_it_was(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs.blip2(tmp_path / "theirs", architecture, image_token=False)
    model = adapted(vlkit.load(tmp_path / "theirs", expect=VisionLanguageModel))
    before = asked(model)
    exported = vlkit.export(model, tmp_path / "out", format="blip2")
    assert exported.notes == () and max(exported.differences) <= exported.tolerance == 1e-4
    assert torch.equal(asked(model), before)  # it was not changed
    again = vlkit.load(tmp_path / "out", expect=VisionLanguageModel)
    torch.testing.assert_close(asked(again), before, atol=1e-4, rtol=1e-4)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    whole = transformers.Blip2ForConditionalGeneration.from_pretrained(tmp_path / "out")
    token = whole.config.image_token_index
    assert token == 259 and processor.tokenizer.convert_tokens_to_ids("<image>") == token
    assert processor.num_query_tokens == theirs.QUERIES
    assert as_its_card_says(tmp_path / "out") == model.ask("photo.jpg", "What is this?", max_tokens=64)
    # the library's own processor asks it as we do
    inputs = processor(images=picture(0), text="What is this?", return_tensors="pt")
    written = whole.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    answer = written[0] if architecture == "mt5" else written[0, inputs["input_ids"].shape[1] :]
    text = processor.tokenizer.decode(answer, skip_special_tokens=True)
    assert text.strip() == model.ask(picture(0), "What is this?", max_tokens=4, min_tokens=4)


@pytest.mark.parametrize(
    ("name", "layers", "arguments"),
    [
        ("vit_tiny_patch16_224", (-1,), {}),
        ("eva_giant_patch14_clip_224", (-2,), {"embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 16}),
    ],
)
def test_a_vision_transformer_of_timm_becomes_that_of_a_blip2(
    name: str, layers: tuple[int, ...], arguments: dict[str, Any], tmp_path: Path
) -> None:
    folder = timm_folder(tmp_path / "timm", name, **arguments)
    theirs.blip2(tmp_path / "theirs", "mt5")
    encoder = build_image_encoder(TimmImage(name=str(folder), layers=layers, extra_tokens=True, fit="squash"))
    language_model = vlkit.language_model(f"hf:{tmp_path / 'theirs'}")
    assert encoder.num_tokens(32) == 5  # with the class token
    sizes = {"num_queries": 2, "width": 16, "layers": 2, "heads": 2, "norm_image": layers != (-1,)}
    bridge = vlkit.QFormer(encoder.token_width, language_model.width, **sizes)
    for parameter in bridge.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = VisionLanguageModel(encoder, bridge.eval(), language_model)
    exported = vlkit.export(model, tmp_path / "out", format="blip2")
    assert exported.differences.logits <= 1e-4
    vision = transformers.Blip2ForConditionalGeneration.from_pretrained(tmp_path / "out").vision_model
    pixels = torch.randn(1, 3, 32, 32)
    states = vision(pixel_values=pixels).last_hidden_state
    tokens = encoder.tokens(pixels) if bridge.image_norm is None else bridge.image_norm(encoder.tokens(pixels))
    torch.testing.assert_close(states, tokens, atol=1e-5, rtol=1e-4)


def timm_folder(folder: Path, name: str, **arguments: Any) -> Path:
    """A small random model of timm in hub layout."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, img_size=32, depth=3, num_classes=0, **arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    arguments |= {"img_size": 32, "depth": 3}
    settings: dict[str, Any] = {
        "num_classes": 0,
        "input_size": [3, 32, 32],
        "fixed_input_size": True,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    config = {
        "architecture": name,
        "num_classes": 0,
        "pretrained_cfg": settings | {"interpolation": "bicubic"},
        "model_args": arguments,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def test_rows_for_the_image_token_are_the_mean_of_all_others(tmp_path: Path) -> None:
    theirs.blip2(tmp_path / "theirs", "mt5", rows=259)
    model = vlkit.load(tmp_path / "theirs", expect=VisionLanguageModel)
    vlkit.export(model, tmp_path / "out", format="blip2")
    whole = transformers.Blip2ForConditionalGeneration.from_pretrained(tmp_path / "out")
    head = whole.language_model.lm_head.weight
    assert len(head) == 320 and whole.config.text_config.vocab_size == 320 and whole.config.image_token_index == 259
    torch.testing.assert_close(head[259:], head[:259].mean(dim=0).expand(61, -1))


@pytest.mark.parametrize("settings", [{}, {"vision_feature_layer": [-3, -2], "vision_feature_select_strategy": "full"}])
def test_a_llava_comes_back_as_it_was(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs.llava(tmp_path / "theirs", **settings)
    model = adapted(vlkit.load(tmp_path / "theirs", expect=VisionLanguageModel))
    exported = vlkit.export(model, tmp_path / "out", format="llava")
    assert exported.notes == () and max(exported.differences) <= 1e-4
    assert as_its_card_says(tmp_path / "out") == model.ask("photo.jpg", "What is this?", max_tokens=64)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    whole = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "out")
    content = [{"type": "image", "image": picture(0)}, {"type": "text", "text": "What is this?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    written = whole.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    text = processor.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text.strip() == model.ask(picture(0), "What is this?", max_tokens=4, min_tokens=4)


def test_what_has_no_place_is_told_at_once(tmp_path: Path) -> None:
    model = tiny("mlp")
    with pytest.raises(VlkitError) as told:
        vlkit.export(model, tmp_path / "out", format="blip2")
    assert str(told.value).splitlines() == [
        "encoder: transformers' model has an image encoder of transformers or timm (kind: hf or timm), and this is of "
        "kind tiny: keep vlkit's own format (vlkit.save)",
        "bridge: transformers' model has a Q-Former (kind: qformer), and this is of kind mlp: keep vlkit's own format "
        "(vlkit.save)",
    ]
    with pytest.raises(UnknownName, match="no format 'blip3'; did you mean 'blip2'"):
        vlkit.export(model, tmp_path / "out", format="blip3")
    theirs.blip2(tmp_path / "theirs", "mt5")
    encoder = vlkit.image_encoder(f"hf:{tmp_path / 'theirs'}")  # without its class token
    language_model = vlkit.language_model(f"hf:{tmp_path / 'theirs'}")
    bridge = vlkit.QFormer(16, language_model.width, num_queries=2, width=16, layers=1, heads=2, norm_image=True)
    with pytest.raises(VlkitError) as told:
        vlkit.export(VisionLanguageModel(encoder, bridge, language_model), tmp_path / "out", format="blip2")
    assert [line.split(",")[0] for line in str(told.value).splitlines()] == [
        "encoder: a Q-Former of BLIP-2 sees the class token",
        "bridge: with norm_image = true the image tokens are normed a second time",
    ]
    with pytest.raises(VlkitError, match="LLaVA's is decoder-only, and this is an encoder-decoder"):
        bridge = vlkit.bridge("mlp", 16, language_model.width)
        vlkit.export(VisionLanguageModel(encoder, bridge, language_model), tmp_path / "out", format="llava")
    assert not (tmp_path / "out").exists()


def test_templates_write_what_the_model_reads() -> None:
    dialogue = DialogueSpec(system='Be "brief".\n', user="U: {text}\n", assistant="A: {text};", end="<e>")
    from jinja2 import Environment

    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(chat_template(dialogue, starts=True))
    image, text = {"type": "image"}, {"type": "text", "text": " wo? "}
    talk = [
        {"role": "user", "content": [image, text]},
        {"role": "assistant", "content": "da"},
        {"role": "user", "content": "<b>"},
    ]
    written = template.render(messages=talk, bos_token="<s>", eos_token="</s>", add_generation_prompt=True)
    assert written == '<s>Be "brief".\nU: <image> wo? \nA: da<e>;U: <b>\nA: '


def test_adapters_alone_name_and_hash_their_base(tmp_path: Path) -> None:
    theirs.llava(tmp_path / "theirs")
    model = adapted(vlkit.load(f"hf:{tmp_path / 'theirs'}", expect=VisionLanguageModel))
    with torch.no_grad():
        model.bridge.maps[0].weight.add_(0.1)
    vlkit.save(model, tmp_path / "adapters", adapters_only=True)
    spec = (tmp_path / "adapters" / "spec.yaml").read_text(encoding="utf-8")
    assert f'path: "hf:{tmp_path / "theirs"}"' in spec and "base: " in spec
    from safetensors import safe_open

    with safe_open(tmp_path / "adapters" / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
    assert "bridge.maps.0.weight" in names and "bridge.maps.1.weight" not in names
    assert all("lora_" in name for name in names if name.startswith("language_model."))
    again = vlkit.load(tmp_path / "adapters", expect=VisionLanguageModel)
    assert torch.equal(asked(again), asked(model))


def test_a_merged_model_is_one_folder_that_loads_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs.blip2(tmp_path / "theirs", "mt5")
    model = adapted(vlkit.load(tmp_path / "theirs", expect=VisionLanguageModel))
    before = asked(model)
    vlkit.merge(model)
    torch.testing.assert_close(asked(model), before, atol=1e-4, rtol=1e-4)
    vlkit.save(model, tmp_path / "merged")
    shutil.move(tmp_path / "merged", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "theirs")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))
    again = vlkit.load(tmp_path / "elsewhere", expect=VisionLanguageModel)
    assert torch.equal(asked(again), asked(model))
    assert again.caption(picture(0), language="sw", max_tokens=4) == model.caption(
        picture(0), language="sw", max_tokens=4
    )
    assert not (tmp_path / "home").exists()
