"""`vlkit show`, `explain`, `list` and `train --dry-run`."""

# ruff: noqa: E501 - messages stand on one line, as they are printed

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from vlkit.cli.app import app
from vlkit.models.catalog import list_models, list_parts
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load
from vlkit.models.locate import locate
from vlkit.parts.open_clip_files import OpenClipName
from vlkit.spec.load import load_recipe, shipped_recipes
from vlkit.spec.recipe import Recipe
from vlkit.training.run_folder import Run

RUNNER = CliRunner()


def run(*arguments: str) -> Result:
    return RUNNER.invoke(app, list(arguments))


def test_show_loads_back_and_names_origins(tmp_path: Path) -> None:
    result = run("show", "contrastive/tiny", "optim.lr=7e-4")
    assert result.exit_code == 0
    lines = [line.split("#") for line in result.stdout.splitlines()]
    origins = {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}
    assert origins["lr: 0.0007"] == "command line" and origins["seed: 0"] == "default"
    assert origins["embed_dim: 32"].endswith("contrastive/tiny.yaml:8")
    shown = tmp_path / "shown.yaml"
    shown.write_text(result.stdout, encoding="utf-8")
    assert load_recipe(shown) == load_recipe("contrastive/tiny", ["optim.lr=7e-4"])


def test_a_wrong_recipe_is_exit_code_2_and_nothing_on_standard_output() -> None:
    for command in ("show", "train"):
        result = run(command, "contrastive/tiny", "optim.lr=x", "sed=3")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == (
            "command line  optim.lr = x\n"
            "  should be a number > 0\n"
            "command line  sed = 3\n"
            "  no such key; did you mean 'seed'?  recipe takes: description, run, seed, model, data, objectives, optim, "
            "stages, loop, validation\n"
            "2 problems; nothing was run.\n"
        )


def test_explain() -> None:
    result = run("explain", "optim")
    assert result.exit_code == 0
    assert "AdamW with warm-up" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("optim.clip_norm")]
    assert [cell.strip() for cell in line.split("  ") if cell.strip()] == [
        "optim.clip_norm",
        "number > 0, or null",
        "1.0",
        "Gradients are scaled down to this global L2 norm; null never clips.",
    ]
    wrong = run("explain", "optm")
    assert (wrong.exit_code, wrong.stderr) == (2, "error: no key 'optm'; did you mean 'optim'? (see: vlkit explain)\n")


@pytest.mark.parametrize(
    ("kind", "pattern", "found", "count"),
    [
        ("models", "open_clip:vit-b-32/laion2b", "open_clip:ViT-B-32/laion2b_s34b_b79k", ""),
        ("parts", "lite0", "timm:tf_efficientnet_lite0.in1k", "1 part"),
        ("encoders", "*", "open_clip", "10 encoders"),
        ("recipes", "tiny", "contrastive/tiny", ""),
        ("languages", "norwegian", "Norwegian Bokmål", ""),
        ("objectives", "*", "class_prototypes", "14 objectives"),
        ("heads", "m?p", "mlp", "1 head"),
        ("heads", "nothing-like-it", "", "0 heads"),
        ("bridges", "qformer", "qformer", "1 bridge"),
    ],
)
def test_list(kind: str, pattern: str, found: str, count: str) -> None:
    result = run("list", kind, pattern)
    assert result.exit_code == 0, result.output
    assert found in result.stdout
    assert result.stdout.splitlines()[-1].startswith(count)


def test_list_of_something_unknown() -> None:
    result = run("list", "langauges")
    assert (result.exit_code, result.stderr) == (2, "error: no list 'langauges'; did you mean 'languages'?\n")


def test_list_parts() -> None:
    assert {card.name for card in list_parts(kind="text encoder")} >= {"hf:intfloat/multilingual-e5-small", "tiny"}
    assert [card.kind for card in list_parts("TINY")] == ["image encoder", "text encoder", "language model"]
    assert [card.kind for card in list_parts("gemma")] == ["text encoder", "language model"]
    assert [card.name for card in list_parts("*former", kind="bridge")] == ["qformer"]
    assert "hf:HuggingFaceTB/SmolLM2-135M-Instruct" in {card.name for card in list_parts(kind="language model")}
    assert list_parts("hf:*", kind="image encoder") == []
    assert all(card.license and card.about for card in list_parts())


def test_list_models() -> None:
    assert [card.name for card in list_models("tiny")] == ["tiny"]
    assert isinstance(load(list_models("tiny")[0].name), DualEncoder)
    cards = list_models()
    assert {card.name.partition(":")[0] for card in cards} == {"tiny", "hf", "hf-hub", "open_clip"}
    assert all(card.about for card in cards) and len({card.name for card in cards}) == len(cards) > 100
    for card in list_models("open_clip:*"):
        assert locate(card.name).kind == "open_clip" and OpenClipName.parse(locate(card.name).where).weights


@pytest.mark.parametrize("name", sorted(name for name in shipped_recipes() if "tiny" in name))
def test_dry_run_of_every_tiny_recipe(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))
    result = run("train", name, "--dry-run")
    assert result.exit_code == 0, result.output
    for stage in load_recipe(name).stages:
        assert f": {stage.name}, {stage.steps} steps" in result.stdout
    assert result.stdout.endswith("dry run: nothing was trained and nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def test_dry_run_shows_what_trains_in_each_stage() -> None:
    text = run("train", "contrastive/tiny", "--dry-run", "stages.1.trainable=[scale]").stdout
    second = text.partition("stage 2 of 2")[2]
    trained = {
        line.split()[0]: line.replace("│", " ").split()[2]
        for line in second.splitlines()
        if line.startswith(("image", "text", "scale"))
    }
    assert trained == {"image": "0", "text": "0", "image_head": "0", "text_head": "0", "scale": "1"}


def test_dry_run_refuses_a_part_that_does_not_exist() -> None:
    result = run("train", "contrastive/tiny", "--dry-run", "stages.1.trainable=[image_haed]")
    assert result.exit_code == 2
    assert result.stderr == "error: no part 'image_haed'; did you mean 'image_head' or 'image'?\n"


def test_train_hands_the_recipe_to_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Recipe, dict[str, object]]] = []
    loop = ModuleType("vlkit.training.loop")

    def train(recipe: Recipe, *, show: object, **flags: object) -> Run:
        assert callable(show)
        calls.append((recipe, flags))
        return Run(Path("there"))

    loop.train = train  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "vlkit.training.loop", loop)
    assert run("train", "contrastive/tiny", "seed=4", "--resume").exit_code == 0
    assert run("train", "--resume", "contrastive/tiny", "seed=4").exit_code == 0
    assert run("train", "--overwrite", "contrastive/tiny", "seed=4").exit_code == 0
    recipe = load_recipe("contrastive/tiny", ["seed=4"])
    resumed, replaced = ({"resume": flag, "overwrite": not flag} for flag in (True, False))
    assert calls == [(recipe, resumed), (recipe, resumed), (recipe, replaced)]
