"""Whole models of transformers load as ours, and give the logits that they give there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import vlkit
from tests.helpers import whole_models as theirs
from tests.helpers.vision_language import picture
from vlkit.errors import VlkitError
from vlkit.models.vision_language.export.check import _logits, probe
from vlkit.models.vision_language.model import VisionLanguageModel


def furthest(model: VisionLanguageModel, whole: Any) -> float:
    """The largest difference of logits over the questions of an export's check."""
    found = 0.0
    start = model.language_model.start_id if model.layout.encodes else None  # type: ignore[attr-defined]
    whole.config.image_token_index = theirs.IMAGE_ROW
    with torch.no_grad():
        for one in probe(model):
            ids = [
                theirs.IMAGE_ROW if slot else token for token, slot in zip(one.laid.ids, one.laid.slots, strict=True)
            ]
            written = None if start is None else torch.tensor([[start, *(one.laid.targets or ())[:-1]]])
            logits_RV = _logits(whole, ids, one.pixels_CHW, written)
            assert logits_RV.shape == one.logits_RV.shape and logits_RV.std() > 0.1
            found = max(found, float((logits_RV - one.logits_RV).abs().max()))
    return found


@pytest.mark.parametrize("architecture", ["opt", "bloom", "mt5"])
def test_a_blip2_gives_its_own_logits(architecture: str, tmp_path: Path) -> None:
    whole = theirs.blip2(tmp_path / "blip", architecture, image_token=architecture == "opt")
    model = vlkit.load(f"hf:{tmp_path / 'blip'}", expect=VisionLanguageModel)
    assert furthest(model, whole) < 1e-4
    assert model.image_tokens == theirs.QUERIES and model.loaded_from == f"hf:{tmp_path / 'blip'}"
    # images before the start token, as BLIP-2's processor has it
    laid = model.layout.asked([vlkit.types.Turn("user", "a", "en")], images=1, where="here")
    assert laid.slots[: theirs.QUERIES] == [True] * theirs.QUERIES
    vlkit.save(model, tmp_path / "ours")
    again = vlkit.load(tmp_path / "ours", expect=VisionLanguageModel)
    options = {"language": "en", "max_tokens": 4}
    assert again.caption(picture(0), **options) == model.caption(picture(0), **options)


@pytest.mark.parametrize(
    ("tower", "settings"),
    [
        ("clip_vision_model", {}),
        ("clip_vision_model", {"vision_feature_layer": [-3, -2], "vision_feature_select_strategy": "full"}),
        ("siglip_vision_model", {"vision_feature_select_strategy": "full", "multimodal_projector_bias": False}),
    ],
)
def test_a_llava_gives_its_own_logits(tower: str, settings: dict[str, Any], tmp_path: Path) -> None:
    whole = theirs.llava(tmp_path / "llava", tower=tower, **settings)
    model = vlkit.load(tmp_path / "llava", expect=VisionLanguageModel)
    assert furthest(model, whole) < 1e-4
    assert model.dialogue.user == "USER: {text} "
    vlkit.save(model, tmp_path / "ours")
    assert torch.equal(vlkit.load(tmp_path / "ours").bridge.maps[0].weight, model.bridge.maps[0].weight)


def test_names_of_older_llavas_are_known(tmp_path: Path) -> None:
    whole = theirs.llava(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    older = {name.replace("vision_tower.", "vision_tower.vision_model."): tensor for name, tensor in state.items()}
    assert older.keys() != state.keys()
    save_file(older, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert furthest(vlkit.load(tmp_path, expect=VisionLanguageModel), whole) < 1e-4
    newer = {name.replace("language_model.model.", "model.language_model."): one for name, one in state.items()}
    newer = {name.replace("language_model.lm_head", "lm_head"): tensor for name, tensor in newer.items()}
    newer = {f"model.{name}" if name.startswith(("vision", "multi")) else name: one for name, one in newer.items()}
    save_file(newer, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert furthest(vlkit.load(tmp_path, expect=VisionLanguageModel), whole) < 1e-4


def test_parts_of_whole_models_are_parts(tmp_path: Path) -> None:
    whole = theirs.blip2(tmp_path / "blip", "mt5")
    encoder = vlkit.image_encoder(f"hf:{tmp_path / 'blip'}")
    assert encoder.num_tokens(16) == 4  # the class token is left out unless asked for
    language_model: Any = vlkit.language_model(f"hf:{tmp_path / 'blip'}")
    assert torch.equal(language_model.model.lm_head.weight, whole.language_model.lm_head.weight)


def test_conversations_follow_the_family_that_a_template_tells(tmp_path: Path) -> None:
    theirs.llava(tmp_path / "llava")
    (tmp_path / "llava" / "chat_template.jinja").write_text("{% raise('never run') %}<|im_start|>", encoding="utf-8")
    model = vlkit.load(tmp_path / "llava", expect=VisionLanguageModel)
    assert model.dialogue.end == "<|im_end|>" and model.dialogue.user.startswith("<|im_start|>user")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_feature_layer": -1}, "takes the last block's states before the encoder's last norm"),
        ({"vision_feature_select_strategy": "default"}, "takes 3 places of an image, and its encoder has 4"),
        ({"projector_hidden_act": "relu"}, "only gelu is between a mlp bridge's maps"),
    ],
)
def test_what_an_encoder_of_ours_does_not_give_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    theirs.llava(tmp_path, tower="siglip_vision_model", vision_feature_select_strategy="full")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(VlkitError, match=message):
        vlkit.load(tmp_path)


def test_a_damaged_blip2_is_told(tmp_path: Path) -> None:
    theirs.blip2(tmp_path, "mt5")
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["qformer_config"]["hidden_act"] = "relu"
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(VlkitError, match=r"qformer_config\.hidden_act = 'relu', and a qformer bridge has 'gelu'"):
        vlkit.load(tmp_path)
