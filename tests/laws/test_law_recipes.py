"""Laws of the shipped recipes: all resolve and say where they come from, tiny twins train, LiT freezes as it says."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.helpers import encoder_factory as factory
from tests.helpers.train_factory import drawings, losses, write_rows
from vlkit.cli.app import app
from vlkit.models.registry import build
from vlkit.models.trainable import part_names, set_trainable, snapshot
from vlkit.parts.open_clip_files import OpenClipName
from vlkit.spec.load import load_recipe, shipped_recipes
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.recipe import Recipe
from vlkit.training import loop
from vlkit.training.loop import train

RUNNER = CliRunner()
CONTRASTIVE = sorted(name for name in shipped_recipes() if name.startswith("contrastive/"))
TINY = [name for name in CONTRASTIVE if name.startswith("contrastive/tiny/")]
PAPERS = ["lit", "siglip", "chinese_clip", "nllb_clip"]


def captioned(folder: Path, languages: tuple[str, ...], *, count: int = 24) -> Path:
    """Drawings with a caption in each of the languages."""
    table = drawings(folder, count)
    rows = [
        {
            "image": f"{n}.png",
            "concept": f"c{n}",
            "captions": {tag: f"{tag} thing number {n}" for tag in (*languages, "en")},
        }
        for n in range(count)
    ]
    write_rows(table, rows)
    return table


def short(name: str, tmp_path: Path, *more: str, run: str = "run") -> list[str]:
    """Overrides that make a recipe a matter of seconds, on drawings in its own languages."""
    recipe = load_recipe(name)
    table = captioned(tmp_path / "data", recipe.data.languages or ("en",))
    steps = [f"stages.{number}.steps=2" for number in range(len(recipe.stages))]
    source = f"data.sources=[{{kind: folder, path: {table}}}]"
    sizes = ["data.holdout_concepts=0", "loop.batch_size=8", "loop.micro_batch=4", "loop.log_every=1"]
    return [source, *sizes, *steps, f"run.folder={tmp_path / run}", *more]


@pytest.mark.parametrize("name", TINY)
def test_every_tiny_twin_trains(name: str, tmp_path: Path) -> None:
    run = train(load_recipe(name, short(name, tmp_path)))
    values = losses(run)
    assert len(values) == 2 * len(load_recipe(name).stages)
    assert all(torch.tensor(value).isfinite() for value in values)
    embedded = run.model().encode_text(run.model().tokenize(["thing"], language="en"))
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(1))


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_every_recipe_says_how_to_run_it_and_what_it_is(name: str) -> None:
    recipe, text = load_recipe(name), shipped_recipes()[name].read_text(encoding="utf-8")
    header = "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    assert f"vlkit train {name}" in header
    assert len(recipe.description) > 40
    if name.removeprefix("contrastive/") in PAPERS:
        assert "arXiv " in recipe.description and "Changed: " in recipe.description
        assert f"contrastive/tiny/{name.removeprefix('contrastive/')}" in TINY


@pytest.mark.parametrize("name", PAPERS)
def test_the_parts_that_recipes_name_exist(name: str) -> None:
    model = load_recipe(f"contrastive/{name}").model
    assert isinstance(model, DualEncoderSpec)
    for part in (model.image, model.text):
        if part.kind == "open_clip":
            assert OpenClipName.parse(part.name).weights is not None or not part.pretrained
        else:
            assert part.name.count("/") == 1  # a hub id


def local(name: str, tmp_path: Path) -> list[str]:
    """The text part of a recipe as a local folder."""
    if name == "siglip":
        folder = factory.open_clip_folder(tmp_path / "text", siglip_like=True)
        return [f"model.{side}.name={folder}" for side in ("image", "text")] + ["model.embed_dim=12"]
    make = {"lit": factory.xlm_roberta, "chinese_clip": factory.bert, "nllb_clip": factory.nllb}[name]
    return [f"model.text.name={make(tmp_path / 'text')}"]


@pytest.mark.parametrize("name", PAPERS)
def test_dry_runs_with_local_folders(name: str, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["train", f"contrastive/{name}", *local(name, tmp_path), "--dry-run"])
    assert result.exit_code == 0, result.output
    for stage in load_recipe(f"contrastive/{name}").stages:
        assert f": {stage.name}, {stage.steps} steps" in result.stdout


@pytest.mark.parametrize("name", PAPERS)
def test_without_a_hub_the_first_missing_part_is_named_at_once(name: str) -> None:
    result = RUNNER.invoke(app, ["train", f"contrastive/{name}", "--dry-run"])
    assert result.exit_code == 2
    part = load_recipe(f"contrastive/{name}").model.text.name
    assert "error: " in result.stderr and part in result.stderr
    assert "HF_HUB_OFFLINE=1 is set" in result.stderr and "folder" in result.stderr


@pytest.mark.parametrize("name", PAPERS)
def test_stages_name_parts_that_exist(name: str) -> None:
    model = build(load_recipe(f"contrastive/tiny/{name}").model)
    for stage in load_recipe(f"contrastive/{name}").stages:
        set_trainable(model, stage.trainable)
        assert {part.partition(".")[0] for part in stage.trainable} <= set(part_names(model))


# LiT (fact sheet R23) -------------------------------------------------------------------------------------------------


def lit(tmp_path: Path, *more: str, run: str = "run") -> Recipe:
    """The LiT recipe with an image encoder that has batch statistics and dropout."""
    image = ["model.image={kind: timm, name: test_efficientnet, pretrained: false, image_size: 32}"]
    sizes = ["model.embed_dim=256", "stages.0.steps=6", "loop.batch_size=8"]
    return load_recipe(
        "contrastive/tiny/lit", [*short("contrastive/tiny/lit", tmp_path, run=run), *image, *sizes, *more]
    )


@pytest.mark.parametrize("cached", ["true", "false"])
def test_lit_leaves_the_image_tower_alone(cached: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    build_optimizer = loop.build_optimizer

    def spy(*arguments: Any, **options: Any) -> Any:
        made.append(build_optimizer(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(loop, "build_optimizer", spy)
    recipe = lit(tmp_path, f"loop.cache_features={cached}")
    torch.manual_seed(recipe.seed)
    fresh = build(recipe.model)
    before, run = snapshot(fresh), train(recipe)
    after = snapshot(run.model())
    frozen = [name for name in before.parameters if name.startswith("image.")]
    buffers = [name for name in before.buffers if name.startswith("image.")]
    assert len(frozen) > 20 and any("running_var" in name for name in buffers)
    assert all(before.parameters[name] == after.parameters[name] for name in frozen)
    assert all(before.buffers[name] == after.buffers[name] for name in buffers)
    moved = {name.partition(".")[0] for name in before.parameters if before.parameters[name] != after.parameters[name]}
    assert moved == {"text", "text_head", "log_scale"}
    # no optimizer state and no gradient for what is frozen
    (optimizer,) = made
    held = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    kept = sum(value["exp_avg"].numel() for value in optimizer.state.values())
    trains = sum(p.numel() for name, p in fresh.named_parameters() if name.startswith(("text", "log_scale")))
    assert held == kept == trains


def test_lit_cached_equals_uncached(tmp_path: Path) -> None:
    runs = [train(lit(tmp_path, f"loop.cache_features={cached}", run=cached)) for cached in ("true", "false")]
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-4)
    states = [run.model().state_dict() for run in runs]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], atol=2e-4, rtol=1e-3)


def test_lit_encodes_each_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = Image.open

    def counting(path: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Image, "open", counting)
    train(lit(tmp_path, "stages.0.steps=12"))  # 96 pairs of 24 images
    assert 0 < len(opened) <= 24


def test_the_second_stage_of_chinese_clip_frees_the_image_tower(tmp_path: Path) -> None:
    name = "contrastive/tiny/chinese_clip"
    recipe = load_recipe(name, short(name, tmp_path, "loop.checkpoint_every=2", "stages.1.steps=3"))
    torch.manual_seed(recipe.seed)
    before, run = snapshot(build(recipe.model)), train(recipe)
    after = snapshot(run.model())
    assert any(before.parameters[n] != after.parameters[n] for n in before.parameters if n.startswith("image."))
    assert [line["stage"] for line in run.metrics()] == ["text", "text", "all", "all", "all"]
