"""`vlkit inspect` and `vlkit merge`: what a model is made of, and one model of a base and its adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import vlkit
from tests.helpers.vision_language import picture, tiny
from vlkit.cli.app import app
from vlkit.models.card_text import CardFacts
from vlkit.models.digest import weights_digest
from vlkit.models.vision_language.card import render_card
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.spec.adapt import LoRA
from vlkit.types import as_module


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


def adapted(folder: Path) -> VisionLanguageModel:
    """A model from a folder, with LoRA that has learned something."""
    model = vlkit.load(folder, expect=VisionLanguageModel)
    part: Any = model.language_model
    vlkit.add_lora(part, LoRA(rank=2, targets="all"))
    for name, parameter in part.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def asked(model: VisionLanguageModel) -> torch.Tensor:
    return model.log_likelihoods([vlkit.types.Question("What is this?", (picture(0),))], ["a cat"])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, VisionLanguageModel]:
    """A whole model, adapters for it, and the model with them."""
    model = tiny("mlp")
    base = vlkit.save(model, tmp_path / "base", card=render_card(model, CardFacts(languages=("no", "sw"))))
    changed = adapted(base)
    return base, vlkit.save(changed, tmp_path / "adapters", adapters_only=True), changed


def test_a_recipe_says_what_each_stage_trains() -> None:
    result = run("inspect", "vlm/tiny", "model.bridge.num_queries=8")
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "vision_language: vlm/tiny"
    assert "encoder tiny 23,840 float32 -" in lines
    assert "language_model_adapter lora 4,096 float32 re-alignment" in lines
    assert "model tokens per image 8" in lines and "context 256" in lines and "languages en, de, zh, fa" in lines
    assert any(line.startswith("stage 2 re-alignment, 20 steps, trains ") for line in lines)
    found = json.loads(run("inspect", "vlm/tiny", "--json").stdout)
    assert [stage["name"] for stage in found["stages"]] == ["warm-up", "re-alignment"]
    assert found["stages"][0]["trains"].keys() == {"bridge"} and found["facts"]["model tokens per image"] == 4
    assert found["spec"]["bridge"]["kind"] == "qformer"


def test_a_model_is_inspected_without_its_weights(folders: tuple[Path, Path, VisionLanguageModel]) -> None:
    base, adapters, changed = folders
    found = json.loads(run("inspect", base, "--json").stdout)
    assert found["languages"] == ["no", "sw"] and found["bases"] == [] and found["stages"] == []
    assert [part["part"] for part in found["parts"]] == ["encoder", "bridge", "language_model"]
    assert not any(part["digest"] for part in found["parts"])
    above = json.loads(run("inspect", adapters, "--json", "--digests").stdout)
    digest = weights_digest(as_module(vlkit.load(base)))
    assert above["bases"] == [{"name": str(base), "digest": digest}]
    assert above["parts"][0]["digest"] == weights_digest(as_module(changed.encoder))
    assert f"stands on {base} (digest of its weights: {digest})" in " ".join(run("inspect", adapters).stdout.split())
    (base / "model.safetensors").rename(base / "gone")
    assert "no weights in" in run("inspect", adapters).stderr or run("inspect", adapters).exit_code == 0


def test_what_cannot_be_inspected_is_told(tmp_path: Path) -> None:
    assert (
        run("inspect", "tiny", "a=1").stderr
        == "error: tiny is no recipe, so 'a=1' changes nothing of it; leave it out\n"
    )
    assert run("inspect", "vlm/tiny", "--digests").stderr.startswith(
        "error: --digests are of weights, and a recipe has"
    )
    assert run("inspect", "vlm/tiney").exit_code == 2


def test_merged_equals_adapted(folders: tuple[Path, Path, VisionLanguageModel], tmp_path: Path) -> None:
    base, adapters, changed = folders
    result = run("merge", adapters, "--out", tmp_path / "merged")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "folded into their weights: language_model",
        f"the model is in {tmp_path / 'merged'}",
    ]
    merged = vlkit.load(tmp_path / "merged", expect=VisionLanguageModel)
    torch.testing.assert_close(asked(merged), asked(changed), atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name in merged.state_dict())
    again = run("merge", adapters, "--out", tmp_path / "merged")
    assert again.exit_code == 2 and "holds a model already; replace it with --overwrite" in again.stderr
    assert run("merge", adapters, "--out", tmp_path / "merged", "--overwrite").exit_code == 0
    inside = run("merge", base, "--out", base, "--overwrite")
    assert inside.exit_code == 2 and "which is read here; choose another place" in inside.stderr
    assert run("merge", base, "--out", tmp_path / "x").stderr == "error: VisionLanguageModel has no adapter to merge\n"


def test_a_lora_of_peft_is_folded_into_the_part_that_is_named(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = vlkit.save(tiny("mlp"), tmp_path / "base")
    model = vlkit.load(base, expect=VisionLanguageModel)
    part: Any = model.language_model
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"], alpha_pattern={"down_proj": 10})
    torch.manual_seed(0)
    part.model = get_peft_model(part.model, config)
    for name, parameter in part.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    part.model.save_pretrained(tmp_path / "lora")
    wanted = part.model.merge_and_unload()
    result = run("merge", base, "--peft", f"language_model={tmp_path / 'lora'}", "--out", tmp_path / "merged")
    assert result.exit_code == 0, result.stderr
    merged = vlkit.load(tmp_path / "merged", expect=VisionLanguageModel)
    for name, tensor in merged.language_model.model.state_dict().items():  # type: ignore[attr-defined]
        torch.testing.assert_close(tensor, wanted.state_dict()[name], atol=1e-6, rtol=1e-6)
    told = run("merge", base, "--peft", f"llm={tmp_path / 'lora'}", "--out", tmp_path / "x").stderr
    assert told == "error: no part 'llm'; there are: bridge, encoder, language_model (--peft PART=DIR)\n"
    told = run("merge", base, "--peft", f"encoder={tmp_path / 'lora'}", "--out", tmp_path / "x").stderr
    assert "no layers of TinyImageEncoder have a name that ends in model.layers.0." in told
    assert run("merge", base, "--peft", "lora", "--out", tmp_path / "x").stderr == (
        "error: --peft 'lora' names no part and folder; write it as --peft language_model=lora/\n"
    )
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "use_dora": True}), encoding="utf-8")
    told = run("merge", base, "--peft", f"language_model={tmp_path / 'lora'}", "--out", tmp_path / "x").stderr
    assert "use_dora is more than plain LoRA; merge it with peft itself (merge_and_unload)" in told
