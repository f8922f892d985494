"""A bridge to a diffusion model: it paints, learns from parallel texts, and is saved without the diffusion model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PillowImage
from safetensors import safe_open
from typer.testing import CliRunner

import vlkit
from tests.helpers.train_factory import drawings, figures, losses
from vlkit.cli.app import app
from vlkit.errors import AssetError, DataError, ShapeError, VlkitError
from vlkit.models.diffusion_bridge.batch import ParallelBatch
from vlkit.models.diffusion_bridge.model import DiffusionBridge
from vlkit.models.inspection import inspect_folder
from vlkit.models.registry import build, build_meta
from vlkit.objectives.conditions.condition_distillation import ConditionDistillation
from vlkit.parts.tiny_diffusion import tiny_pipeline
from vlkit.spec.diffusion import DiffusersFolderSpec, MulanSpec, PeaSpec, TinyPipelineSpec
from vlkit.spec.load import load_recipe
from vlkit.spec.model import DiffusionBridgeSpec
from vlkit.spec.parts import TinyText
from vlkit.training.loop import train
from vlkit.types import Batch, Model, Painter, Pick, Sample

TEXT = TinyText(width=16, depth=1)
SPEC = DiffusionBridgeSpec(text=TEXT, bridge=MulanSpec(heads=2), pipeline=TinyPipelineSpec())
FEW: Any = {"steps": 2, "guidance": 3.0}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return build(SPEC).eval()


def test_a_seed_gives_one_image_in_any_batch_and_the_same_noise_for_any_prompt(model: Any) -> None:
    started: list[torch.Tensor] = []
    hook = model.pipeline.pipeline.unet.register_forward_pre_hook(lambda _, args: started.append(args[0][:1]))
    images = model.generate("قارچ", language="fa", seed=3, num_images=3, batch_size=2, **FEW)
    assert len(images) == 3 and all(one.mode == "RGB" for one in images)
    first = started[0]
    started.clear()
    alone = model.generate("mushroom", language="en", seed=3, **FEW)
    hook.remove()
    assert torch.equal(started[0], first)
    assert alone[0].tobytes() != images[0].tobytes()  # it heeds the prompt
    again = model.generate("قارچ", language="fa", seed=4, **FEW)
    differences = [abs(a - b) for a, b in zip(again[0].tobytes(), images[1].tobytes(), strict=True)]
    assert max(differences) <= 1  # of 255: another size of batch
    pair = model.generate(["قارچ", "mushroom"], language="fa", seed=3, num_images=2, **FEW)
    for one, other in zip(pair, [*images[:2], *alone], strict=False):
        assert max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) <= 1
    away = model.generate("قارچ", language="fa", seed=4, negative="blau", **FEW)
    assert away[0].tobytes() != again[0].tobytes()


def test_what_cannot_be_painted_is_refused(model: Any) -> None:
    for prompt, given, said in [
        (" ", {}, "a prompt is empty; say what the image shows"),
        ("a", {"num_images": 0}, "num_images = 0; allowed: 1 or more"),
        ("a", {"guidance": 0.5}, "guidance = 0.5: Input should be greater than or equal to 1; there are: steps, gui"),
        ("a", {"stepps": 3}, "stepps = 3: Extra inputs are not permitted"),
        ("a", {"language": "xyzzy"}, "no language 'xyzzy'"),
        ("a", {"image_size": 20}, "image_size = 20: Input should be a multiple of 8"),
    ]:
        with pytest.raises(VlkitError, match=said):
            model.generate(prompt, **given)


def test_prompts_do_not_depend_on_each_other(model: Any) -> None:
    texts = ["a", "ein sehr langer Satz über einen Hund", "🍄"]
    together = model.conditions(model.text.tokenize(texts))
    for row, text in enumerate(texts):
        assert torch.allclose(model.conditions(model.text.tokenize([text]))[0], together[row], atol=1e-5)


def test_it_is_a_model_that_is_saved_without_the_diffusion_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny_pipeline(TinyPipelineSpec()).save_pretrained(tmp_path / "sd")
    spec = DiffusionBridgeSpec(
        text=TEXT, bridge=PeaSpec(hidden=8), pipeline=DiffusersFolderSpec(folder=str(tmp_path / "sd"))
    )
    model: Any = build(spec).eval()
    assert isinstance(model, Model) and isinstance(model, Painter) and set(model.parts()) == {"text", "bridge"}
    image = model.generate("Hund", seed=1, **FEW)[0].tobytes()
    vlkit.save(model, tmp_path / "saved")
    with safe_open(tmp_path / "saved" / "model.safetensors", framework="pt") as file:
        assert {name.partition(".")[0] for name in file.keys()} == {"text", "bridge"}  # noqa: SIM118 - no dict
    again: Any = vlkit.load(tmp_path / "saved")
    assert again.spec == model.spec and again.spec.pipeline.digest
    assert again.generate("Hund", seed=1, **FEW)[0].tobytes() == image
    assert {name: p.shape for name, p in build_meta(spec).named_parameters()} == {
        name: p.shape for name, p in model.named_parameters()
    }
    told = inspect_folder(str(tmp_path / "saved")).facts
    assert told == {"diffusion model": str(tmp_path / "sd"), "states of a text": 16, "width of a state": 16}
    assert "The diffusion model is not in this folder" in (tmp_path / "saved" / "README.md").read_text()
    words = ["generate", "Hund", "--model", str(tmp_path / "saved"), "--out", str(tmp_path / "one.png")]
    made = CliRunner().invoke(app, [*words, "--language", "de", "--seed", "1", "--steps", "2", "--guidance", "3"])
    assert made.exit_code == 0 and PillowImage.open(tmp_path / "one.png").tobytes() == image, made.output
    (tmp_path / "sd").rename(tmp_path / "elsewhere")
    with pytest.raises(AssetError, match=r"of a saved model, write in its spec.yaml where that folder is now"):
        vlkit.load(tmp_path / "saved")


def test_parts_that_do_not_fit_are_refused(model: Any) -> None:
    other: Any = build(SPEC.model_copy(update={"pipeline": TinyPipelineSpec(tokens=8)}))
    with pytest.raises(ShapeError, match=r"makes 8 states 16 wide of states 16 wide; .* out_width=16, count=16"):
        DiffusionBridge(model.text, other.bridge, model.pipeline)
    with pytest.raises(VlkitError, match="bridge is a Linear; a DiffusionBridge takes a ConditionBridge"):
        DiffusionBridge(model.text, torch.nn.Linear(2, 2), model.pipeline)


def test_a_batch_is_texts_beside_english_ones(model: Any) -> None:
    preparer = model.preparer(None)
    sample = Sample("k", (), {"en": ("a dog",), "de": ("ein Hund",)}, source="s")
    batch = preparer.collate(
        [preparer.row(sample, Pick(0, language, 0, seed)) for language, seed in [("de", 5), ("en", 6)]]
    )
    assert isinstance(batch, Batch) and len(batch) == 2 and batch.languages == ("de", "en")
    picked: ParallelBatch = batch.rows(torch.tensor([1]))
    assert (picked.english, picked.seeds, picked.sources) == (("a dog",), (6,), ("s",))
    with pytest.raises(DataError, match="sample 'k' has no English text to learn from"):
        preparer.row(Sample("k", (), {"de": ("ein Hund",)}), Pick(0, "de", 0, 0))


def recipe(folder: Path, run: str, *more: str) -> Any:
    table = drawings(folder / "data", 24)
    overrides = [
        f"data.sources=[{{kind: folder, path: {table}, texts_only: true}}]", "data.languages=[en,de]",
        "stages.0.steps=6", "model.text.depth=1", "optim.lr=3e-3", "optim.warmup_steps=0", f"run.folder={folder / run}",
        "data.holdout_concepts=0", "loop.batch_size=8", "loop.log_every=1", "loop.checkpoint_every=2",
        "loop.micro_batch=3",
    ]  # fmt: skip
    return load_recipe("t2i/tiny_diffusion", [*overrides, *more])


def test_it_learns_and_an_interrupted_run_ends_as_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(recipe(tmp_path, "whole"))
    values = [line["states"] for line in whole.metrics()]
    assert len(losses(whole)) == 6 and values[-1] < values[0]
    assert {"states", "noise", "features"} <= whole.metrics()[0].keys()
    spec, called = recipe(tmp_path, "killed"), []
    loss = ConditionDistillation.__call__

    def fails(self: Any, model: Any, batch: Any) -> Any:
        called.append(1)
        if len(called) > 9:  # in the fourth step
            raise KeyboardInterrupt
        return loss(self, model, batch)

    monkeypatch.setattr(ConditionDistillation, "__call__", fails)
    with pytest.raises(KeyboardInterrupt):
        train(spec)
    monkeypatch.undo()
    killed = train(spec, resume=True)
    assert figures(killed) == figures(whole)
    after, before = (run.model().state_dict() for run in (killed, whole))
    assert all(torch.equal(after[name], one) for name, one in before.items())
