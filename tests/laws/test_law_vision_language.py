"""Laws of training vision-language models: resumed, sharded, cut or cached is the same run; frozen stays frozen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.helpers import train_factory as factory
from tests.helpers.encoder_factory import llama
from tests.helpers.train_factory import drawings, figures, losses, merged, write_rows
from tests.laws.test_law_distributed import run_on
from vlkit.cli.app import app
from vlkit.errors import DataError, VlkitError
from vlkit.models.registry import build
from vlkit.models.trainable import snapshot
from vlkit.models.vision_language.batch import DialogueBatch
from vlkit.objectives.weighted_sum import WeightedSum
from vlkit.spec.recipe import Recipe
from vlkit.training.loop import train
from vlkit.types import Loss

QFORMER = {"kind": "qformer", "num_queries": 3, "width": 16, "layers": 2, "heads": 2, "ffn": 32}
VLM: dict[str, Any] = {
    "kind": "vision_language",
    "encoder": {"kind": "tiny", "image_size": 16, "width": 16, "depth": 1},
    "bridge": QFORMER,
    "language_model": {"kind": "tiny", "architecture": "llama"},
    "adapters": {"language_model": {"kind": "lora", "rank": 2, "dropout": 0.1, "targets": "all"}},
    "caption_task": "name",
}
STILL = {"bridge": {"dropout": 0.0}, "adapters": {"language_model": {"dropout": 0.0}}}
WARM = {"name": "warm-up", "trainable": ("bridge",), "steps": 4}
ALIGN = {"name": "re-alignment", "trainable": ("bridge", "language_model_adapter"), "steps": 4}
ALL = {"name": "all", "trainable": ("encoder", "bridge", "language_model_adapter"), "steps": 4}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[DialogueBatch]]:
    """All batches that the objective sees."""
    seen: list[DialogueBatch] = []
    call = WeightedSum.__call__

    def spy(self: WeightedSum, model: Any, batch: DialogueBatch) -> Loss:
        seen.append(batch)
        return call(self, model, batch)

    monkeypatch.setattr(WeightedSum, "__call__", spy)
    yield seen


def made(table: Path, folder: Path, *stages: Any, model: dict[str, Any] | None = None, **more: Any) -> Recipe:
    """A recipe of a tiny vision-language model; in two stages where none are named."""
    data = merged({"prompts": {"task": "name"}}, more.pop("data", {}))
    loop = {"batch_size": 8, "checkpoint_every": 3, **more.pop("loop", {})}
    return factory.recipe(
        table, folder, *(stages or (WARM, ALIGN)), model=merged(VLM, model or {}), data=data, loop=loop,
        objectives=[{"kind": "answers"}], **more,
    )  # fmt: skip


def moved_parts(recipe: Recipe, after: torch.nn.Module) -> set[str]:
    """Of what is new in a trained model: parts, and ``lora`` for what an adapter added."""
    torch.manual_seed(recipe.seed)
    fresh, trained = snapshot(build(recipe.model)), snapshot(after)
    moved = {name for name, digest in fresh.parameters.items() if trained.parameters[name] != digest}
    assert fresh.buffers == trained.buffers
    return {"lora" if "lora_" in name else name.partition(".")[0] for name in moved}


@pytest.mark.parametrize("stages", [(WARM, ALIGN), (ALL, WARM)], ids=["frozen-encoder", "encoder-first"])
def test_killed_at_any_step_and_resumed_is_uninterrupted(
    table: Path, tmp_path: Path, stages: tuple[dict[str, Any], ...]
) -> None:
    long = [{**stage, "steps": 15} for stage in stages]
    whole = train(made(table, tmp_path / "whole", *long))
    recipe = made(table, tmp_path / "killed", *long)
    step = factory.killed(recipe, after=(1, 28))
    torch.rand(5)
    resumed = train(recipe, resume=True)
    assert figures(resumed) == figures(whole), f"killed at step {step}"
    assert snapshot(resumed.model()) == snapshot(whole.model())


@pytest.mark.parametrize(
    ("model", "parallel"),
    [({}, "ddp"), ({"language_model": {"architecture": "mt5"}}, "fsdp"), ({"pack_length": 128}, "fsdp")],
    ids=["decoder-only-ddp", "encoder-decoder-fsdp", "packed-fsdp"],
)
def test_sharded_and_in_pieces_equals_single(table: Path, tmp_path: Path, model: Any, parallel: str) -> None:
    settings = merged(STILL, model)
    whole = run_on(1, made(table, tmp_path / "whole", WARM, ALL, model=settings))
    loop = {"parallel": parallel, "micro_batch": 3}
    shared = run_on(2, made(table, tmp_path / "shared", WARM, ALL, model=settings, loop=loop))
    assert losses(shared) == pytest.approx(losses(whole), rel=1e-4)
    for one, two in zip(figures(shared), figures(whole), strict=True):
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)
        assert one["languages"] == two["languages"]


def test_micro_batches_change_nothing(table: Path, tmp_path: Path) -> None:
    runs = [
        train(made(table, tmp_path / str(size), ALL, model=STILL, loop={"micro_batch": size})) for size in (None, 3)
    ]
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-5)
    states = [run.model().state_dict() for run in runs]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("texts", [False, True], ids=["images", "images-and-texts"])
def test_a_cached_encoder_is_the_encoder(
    table: Path, tmp_path: Path, batches: list[DialogueBatch], texts: bool
) -> None:
    images = {"kind": "folder", "path": str(table)}
    data = {"sources": [images, {"kind": "translations", "of": images}] if texts else [images]}
    runs = [
        train(made(table, tmp_path / str(cached), model=STILL, data=data, loop={"cache_features": cached}))
        for cached in (True, False)
    ]
    half = len(batches) // 2
    for one, two in zip(batches[:half], batches[half:], strict=True):
        assert torch.equal(one.ids_BL, two.ids_BL) and torch.equal(one.labels_BS, two.labels_BS)
        assert one.pixels_NCHW is None and two.image_NKT is None
    assert {count for batch in batches for count in batch.images_B.tolist()} == ({0, 1} if texts else {1})
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-3)


def test_frozen_stays_frozen_and_what_should_move_moved(table: Path, tmp_path: Path) -> None:
    first = made(table, tmp_path / "first", WARM)
    assert moved_parts(first, train(first).model()) == {"bridge"}
    second = made(table, tmp_path / "second", WARM, ALIGN)
    assert moved_parts(second, train(second).model()) == {"bridge", "lora"}
    queries = made(table, tmp_path / "queries", {**WARM, "trainable": ("bridge.queries", "encoder.norm")})
    run = train(queries)
    assert moved_parts(queries, run.model()) == {"bridge", "encoder"}
    torch.manual_seed(queries.seed)
    before, after = (snapshot(model.bridge).parameters for model in (build(queries.model), run.model()))
    assert {name for name in before if before[name] != after[name]} == {"queries_MW"}


def test_the_second_stage_goes_on_from_the_first(table: Path, tmp_path: Path) -> None:
    alone = train(made(table, tmp_path / "alone", WARM))
    both = train(made(table, tmp_path / "both", WARM, {**ALIGN, "trainable": ("language_model_adapter",)}))
    assert losses(both)[: WARM["steps"]] == losses(alone)
    bridges = [snapshot(run.model().bridge) for run in (alone, both)]
    assert bridges[0] == bridges[1]
    assert [line["stage"] for line in both.metrics()] == ["warm-up"] * 4 + ["re-alignment"] * 4


def test_another_run_goes_on_from_a_model_with_its_adapter(table: Path, tmp_path: Path) -> None:
    first = train(made(table, tmp_path / "first"))
    plain = made(table, tmp_path / "second", {**ALIGN, "trainable": ("language_model_adapter",)}).model_dump()
    plain["model"] = {"kind": "saved", "path": str(first.model_path)}
    second = train(Recipe.model_validate(plain))
    assert snapshot(second.model().bridge) == snapshot(first.model().bridge)
    before, after = (snapshot(run.model().language_model).parameters for run in (first, second))
    assert {name for name in before if before[name] != after[name]} == {name for name in before if "lora_" in name}


def test_each_stage_learns_from_its_sources_also_after_a_kill(
    table: Path, tmp_path: Path, batches: list[DialogueBatch]
) -> None:
    images = {"kind": "folder", "path": str(table)}
    sources = [{**images, "stages": ["warm-up"]}, {"kind": "translations", "of": images, "stages": ["re-alignment"]}]
    stages = (WARM, {**ALIGN, "trainable": ("language_model_adapter",)})  # texts alone move no bridge
    whole = train(made(table, tmp_path / "whole", *stages, data={"sources": sources}))
    assert [set(batch.images_B.tolist()) for batch in batches] == [{1}] * 4 + [{0}] * 4
    killed = made(table, tmp_path / "killed", *stages, data={"sources": sources})
    factory.killed(killed, after=(5, 7))
    assert figures(train(killed, resume=True)) == figures(whole)


# what samples may be --------------------------------------------------------------------------------------------------


def talks(table: Path, *, broken: int = 0) -> Path:
    """Conversations about no, one and several images; images of the first ``broken`` are missing."""
    images = [[], ["1.png"], ["2.png", "3.png"]]
    rows = []
    for number in range(24):
        names = [f"no-{number}-{name}" for name in images[1]] if number < broken else images[number % 3]
        turns = [("user", f"How many images, {number}?"), ("assistant", f"{len(names)}"), ("user", "Sure?"),
                 ("assistant", "yes")]  # fmt: skip
        rows.append({"images": names, "turns": [{"role": r, "text": t, "language": "en"} for r, t in turns]})
    path = table.parent / "talks.jsonl"
    write_rows(path, rows)
    return path


def conversing(path: Path, folder: Path, *stages: Any, **more: Any) -> Recipe:
    data = {"sources": [{"kind": "dialogues", "path": str(path)}], **more.pop("data", {})}
    return made(path, folder, *stages, data=data, **more)


@pytest.mark.parametrize("architecture", ["llama", "mt5"])
def test_texts_alone_and_several_images_in_one_batch(
    table: Path, tmp_path: Path, batches: list[DialogueBatch], architecture: str
) -> None:
    path, model = talks(table), {**STILL, "language_model": {"architecture": architecture}}
    runs = [
        train(conversing(path, tmp_path / str(size), ALL, model=model, loop={"micro_batch": size}))
        for size in (None, 2)
    ]
    assert {count for batch in batches for count in batch.images_B.tolist()} == {0, 1, 2}
    assert any(len(set(batch.images_B.tolist())) == 3 for batch in batches)
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-5)


@pytest.mark.parametrize("cached", [True, False])
def test_missing_images_below_the_cap_are_counted_and_skipped(
    table: Path, tmp_path: Path, batches: list[DialogueBatch], caplog: pytest.LogCaptureFixture, cached: bool
) -> None:
    (table.parent / "5.png").write_bytes(b"no picture")
    loop = {"cache_features": cached}
    with caplog.at_level(logging.WARNING):
        train(made(table, tmp_path / "run", {**WARM, "steps": 12}, data={"max_bad_share": 0.05}, loop=loop))
    assert [m for m in caplog.messages if m.startswith("bad sample skipped: 5.png: cannot read image")]
    assert all(len(batch) == 8 and batch.images_B.tolist() == [1] * 8 for batch in batches)
    with pytest.raises(
        DataError, match=r"^1 of 24 samples cannot be read, more than data\.max_bad_share = 0\.01 allows"
    ):
        train(made(table, tmp_path / "other", {**WARM, "steps": 12}, loop=loop))


def test_a_conversation_whose_image_is_missing_is_skipped(
    table: Path, tmp_path: Path, batches: list[DialogueBatch], caplog: pytest.LogCaptureFixture
) -> None:
    path = talks(table, broken=2)
    with caplog.at_level(logging.WARNING):
        train(conversing(path, tmp_path / "run", {**WARM, "steps": 12}, data={"max_bad_share": 0.1}))
    assert len([m for m in caplog.messages if m.startswith("bad sample skipped: ")]) == 2
    assert all(len(batch) == 8 for batch in batches)


# switches -------------------------------------------------------------------------------------------------------------


def test_saving_activations_changes_nothing(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, linear = [0], torch.nn.Linear.forward

    def counting(self: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        return linear(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", counting)
    folder, runs, calls = llama(tmp_path / "llama"), [], []
    settings = {"bridge": {"dropout": 0.0}, "language_model": {"kind": "hf", "name": str(folder), "max_length": 128}}
    for on in (False, True):
        count[0] = 0
        runs.append(train(made(table, tmp_path / str(on), ALIGN, model=settings, loop={"grad_checkpointing": on})))
        calls.append(count[0])
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-5)
    assert calls[1] > 1.2 * calls[0]  # blocks ran again in the backward pass


def test_a_part_that_does_not_exist_is_told_before_anything_is_trained(table: Path, tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match=r"no part 'queries'.*language_model_adapter"):
        train(made(table, tmp_path / "run", {**WARM, "trainable": ("queries",)}))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_shows_the_stages() -> None:
    result = CliRunner().invoke(app, ["train", "vlm/tiny", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "stage 1 of 2: warm-up, 10 steps" in result.stdout
    assert "stage 2 of 2: re-alignment, 20 steps" in result.stdout
    assert "language_model_adapter" in result.stdout
