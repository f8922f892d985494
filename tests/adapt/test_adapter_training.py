"""Runs that go on from a trained model: the adapter trains, the model below stays, and a killed run is resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.train_factory import drawings, figures, recipe
from vlkit.adapt.inject import base_name
from vlkit.models.folder import load
from vlkit.models.trainable import part_of
from vlkit.spec.recipe import Recipe
from vlkit.training.loop import train
from vlkit.training.run_folder import Run

OBJECTIVES = [{"kind": "contrastive"}, {"kind": "text_distillation", "loss": "cosine"}]
HEAD = {"name": "head", "trainable": ["text_head"], "steps": 5}
ADAPTER = {"name": "adapter", "trainable": ["text_adapter", "image_adapter", "text_head"], "steps": 7}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data")


@pytest.fixture
def trained(data: Path, tmp_path: Path) -> Run:
    head = {"kind": "mlp", "hidden": 16, "center": True}
    return train(recipe(data, tmp_path / "base", model={"text_head": head}, data={"languages": ["en"]}))


def onwards(data: Path, folder: Path, base: Run, *stages: Any, **more: Any) -> Recipe:
    plain = recipe(data, folder, *stages, loop={"checkpoint_every": 4, "keep_checkpoints": 9}).model_dump(mode="json")
    adapters = {"adapters": {"text": {"kind": "lora", "rank": 2}, "image": {"kind": "bottleneck", "width": 3}}}
    plain["model"] = {"kind": "saved", "path": str(base.model_path), **adapters}
    return Recipe.model_validate({**plain, "objectives": OBJECTIVES, **more})


def test_the_model_below_stays_as_it_was(data: Path, trained: Run, tmp_path: Path) -> None:
    run = train(onwards(data, tmp_path / "run", trained, HEAD, ADAPTER))
    base, model = trained.model(), run.model()
    before = {base_name(name): tensor for name, tensor in base.state_dict().items()}
    moved = {
        part_of(name)
        for name, tensor in model.state_dict().items()
        if base_name(name) not in before or not torch.equal(tensor, before[base_name(name)])
    }
    assert moved == {"text_adapter", "image_adapter", "text_head"}
    assert torch.equal(model.text_head.mean_D, base.text_head.mean_D)  # not measured again on the new language
    assert {"contrastive", "text_distillation", "with_english"} <= set(run.metrics()[-1])
    newest = run.checkpoints / "step-12" / "state.safetensors"
    parts = {part_of(name.removeprefix("model/")) for name in load_file(newest) if name.startswith("model/")}
    assert parts == {"text_adapter", "image_adapter", "text_head"}  # nothing that is as the base has it


@pytest.mark.parametrize("step", [4, 8])
def test_a_stopped_run_goes_on_to_the_same_end(step: int, data: Path, trained: Run, tmp_path: Path) -> None:
    made = onwards(data, tmp_path / "run", trained, HEAD, ADAPTER)
    run = train(made)
    whole, model = figures(run), run.model()
    for checkpoint in run.checkpoints.iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    shutil.rmtree(run.model_path)
    assert figures(train(made, resume=True)) == whole
    for name, tensor in load(run.model_path).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_stage_may_have_objectives_of_its_own(data: Path, trained: Run, tmp_path: Path) -> None:
    text_only = {**ADAPTER, "trainable": ["text_adapter"], "objectives": [{"kind": "text_distillation"}]}
    run = train(onwards(data, tmp_path / "run", trained, text_only, HEAD))
    first, last = run.metrics()[0], run.metrics()[-1]
    assert "contrastive" not in first and first["loss"] == first["text_distillation"]
    assert {"contrastive", "text_distillation"} <= set(last)
