"""Diffusion pipelines from folders: equal to diffusers itself, read late, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlkit.errors import AssetError, MissingPackage, VlkitError
from vlkit.parts.diffusion_pipelines import DiffusersPipeline, build_pipeline
from vlkit.parts.tiny_diffusion import tiny_pipeline
from vlkit.spec.diffusion import DiffusersFolderSpec, PaintingSpec, TinyPipelineSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("pipeline") / "sd"
    tiny_pipeline(TinyPipelineSpec()).save_pretrained(made)
    return made


@pytest.fixture
def own(folder: Path) -> Any:
    return build_pipeline(DiffusersFolderSpec(folder=str(folder)))


def test_states_and_images_are_those_of_diffusers(folder: Path, own: Any) -> None:
    from diffusers import StableDiffusionPipeline

    assert (own.width, own.count) == (16, 16)
    theirs: Any = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    states, null = theirs.encode_prompt("a red cat", "cpu", 1, True)
    found = own.english(["a red cat", ""])
    assert torch.allclose(found, torch.cat([states, null]), atol=1e-6) and not torch.allclose(found[0], found[1])
    seeds = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
    wanted = theirs("a red cat", num_images_per_prompt=3, generator=seeds, num_inference_steps=3, guidance_scale=4.0)
    painting = PaintingSpec(seed=5, steps=3, guidance=4.0, batch_size=2)
    images = own.images(found[:1], found[1], count=3, painting=painting)
    assert len(images) == 3 and images[0].size == (16, 16)
    for one, other in zip(images, wanted.images, strict=True):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1  # of 255: other sizes of batches


def test_its_weights_are_read_when_they_are_needed_and_are_frozen(own: Any) -> None:
    assert own._loaded is None and own.spec.digest
    own.english(["a"])
    parts = (own.pipeline.unet, own.pipeline.vae, own.pipeline.text_encoder)
    assert not any(part.training or any(weight.requires_grad for weight in part.parameters()) for part in parts)


def test_what_the_denoiser_is_asked_depends_on_the_seed_alone(own: Any) -> None:
    first, again = own.noised([3, 4]), own.noised([4])
    assert torch.equal(first.latents_Bchw[1:], again.latents_Bchw) and torch.equal(first.steps_B[1:], again.steps_B)
    assert not torch.equal(first.latents_Bchw[0], first.latents_Bchw[1])
    states = own.english(["a", "b"])
    plain = own.pipeline.unet(first.latents_Bchw, first.steps_B, states).sample
    found = own.denoised(first, states, features=True)
    assert torch.allclose(found.noise_Bchw, plain, atol=1e-6)
    assert [tuple(one.shape[1:]) for one in found.features] == [
        (8, 4, 4), (16, 4, 4), (16, 4, 4), (16, 8, 8), (8, 8, 8),
    ]  # fmt: skip
    assert own.denoised(first, states).features == []


def test_a_tiny_one_depends_on_its_seed() -> None:
    one, same, other = (build_pipeline(TinyPipelineSpec(seed=seed)) for seed in (1, 1, 2))
    torch.manual_seed(9)
    assert torch.equal(one.english(["a"]), same.english(["a"]))
    assert not torch.equal(one.english(["a"]), other.english(["a"]))


def copied(folder: Path, target: Path, **changes: Any) -> DiffusersFolderSpec:
    import shutil

    shutil.copytree(folder, target)
    for path, update in changes.items():
        file = target / path.replace("__", "/")
        file = file.with_suffix(".json")
        file.write_text(json.dumps(json.loads(file.read_text()) | update))
    return DiffusersFolderSpec(folder=str(target))


def test_what_is_no_such_pipeline_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssetError, match=r"pipeline.folder: there is no .*model_index.json; give a folder"):
        build_pipeline(DiffusersFolderSpec(folder=str(tmp_path)))
    spec = copied(folder, tmp_path / "xl", model_index={"_class_name": "StableDiffusionXLPipeline"})
    with pytest.raises(VlkitError, match="_class_name = 'StableDiffusionXLPipeline'; allowed: 'StableDiffusionPipelin"):
        build_pipeline(spec)
    spec = copied(folder, tmp_path / "scheduler", scheduler__scheduler_config={"_class_name": "UNet2DModel"})
    with pytest.raises(VlkitError, match=r"_class_name = 'UNet2DModel' is no scheduler of diffusers"):
        build_pipeline(spec).english(["a"])
    spec = copied(folder, tmp_path / "wide", unet__config={"cross_attention_dim": [16, 16]})
    with pytest.raises(VlkitError, match=r"cross_attention_dim of unet/config.json .* should be whole numbers"):
        build_pipeline(spec)
    spec = copied(folder, tmp_path / "pickle")
    weights = tmp_path / "pickle" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(AssetError, match=r"unet has no safetensors weights \(diffusion_pytorch_model.bin is a pickle"):
        build_pipeline(spec).english(["a"])
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingPackage, match="a diffusion pipeline needs the package 'diffusers'"):
        build_pipeline(DiffusersFolderSpec(folder=str(folder))).english(["a"])


def test_another_pipeline_than_it_was_is_refused(folder: Path, tmp_path: Path) -> None:
    spec = DiffusersPipeline(DiffusersFolderSpec(folder=str(folder))).spec
    copied(folder, tmp_path / "moved")
    moved = build_pipeline(spec.model_copy(update={"folder": str(tmp_path / "moved")}))
    assert moved.spec.digest == spec.digest and len(moved.english(["a"])) == 1  # where it lies makes no difference
    torch.manual_seed(8)
    tiny_pipeline(TinyPipelineSpec()).unet.save_pretrained(tmp_path / "moved" / "unet")
    changed = build_pipeline(moved.spec)
    with pytest.raises(AssetError, match=r"pipeline.digest: .*moved is not the pipeline that this model was made with"):
        changed.english(["a"])
