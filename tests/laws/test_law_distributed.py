"""Laws of training in several processes: sharded == single, frozen stays frozen, resumed == uninterrupted."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.ranks import on_ranks
from tests.helpers.train_factory import ALL, HEADS, drawings, figures, losses, recipe
from vlkit.distributed.collectives import Ranks
from vlkit.distributed.runtime import Runtime
from vlkit.distributed.sharding import check_equal
from vlkit.errors import VlkitError
from vlkit.models.digest import tensor_digest
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.feature_cache import FrozenImages
from vlkit.models.registry import build
from vlkit.models.trainable import snapshot
from vlkit.spec.recipe import Recipe
from vlkit.training import feature_tables as tables
from vlkit.training import steps
from vlkit.training.loop import train
from vlkit.training.run_folder import Run
from vlkit.training.signals import StopRequest
from vlkit.training.trainee import Trainee
from vlkit.types import Loss

NO_DROPOUT = {"image_head": {"dropout": 0.0}, "text_head": {"dropout": 0.0}}
HEADS_8 = {"name": "heads", "trainable": HEADS, "steps": 8}
TOWERS_8 = {"name": "towers", "trainable": ALL, "steps": 8}


class StopError(Exception):
    """The end of a run by the test's hand."""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data")


def made(table: Path, folder: Path, *stages: Any, **loop: Any) -> Recipe:
    """Batches of 8 for up to 4 processes, without dropout, which differs by process."""
    settings = {"batch_size": 8, "checkpoint_every": 4, **loop}
    return recipe(table, folder, *(stages or (TOWERS_8,)), loop=settings, model=NO_DROPOUT)


def trained(plain: dict[str, Any], environment: dict[str, str], stop: int | None = None, **options: Any) -> None:
    """A run in every process of the group; with ``stop``, until right after the checkpoint of that step."""
    os.environ.update(environment)
    write = steps.Steps._checkpoint

    def stopping(self: steps.Steps, *args: Any) -> None:
        write(self, *args)
        if self.place.step == stop:
            raise StopError

    steps.Steps._checkpoint = stopping  # type: ignore[method-assign]
    try:
        train(Recipe.model_validate(plain), **options)
    except StopError:
        pass
    finally:
        steps.Steps._checkpoint = write  # type: ignore[method-assign]


def _train_with(plain: dict[str, Any], environment: dict[str, str], stop: int | None, resume: bool) -> None:
    trained(plain, environment, stop, resume=resume)


def run_on(size: int, what: Recipe, *, stop: int | None = None, resume: bool = False) -> Run:
    arguments = (what.model_dump(mode="json"), {"VLKIT_HOME": os.environ["VLKIT_HOME"]}, stop, resume)
    if size == 1:
        _train_with(*arguments)
    else:
        on_ranks(size, _train_with, *arguments)
    return Run(Path(str(what.run.folder)))


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.model().state_dict()


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_sharded_equals_single(table: Path, tmp_path: Path, size: int, parallel: str) -> None:
    stages = (HEADS_8, {**TOWERS_8, "steps": 4})
    whole = run_on(1, made(table, tmp_path / "whole", *stages))
    shared = run_on(size, made(table, tmp_path / "shared", *stages, parallel=parallel))
    assert losses(shared) == pytest.approx(losses(whole), rel=1e-5)
    for one, two in zip(figures(shared), figures(whole), strict=True):
        assert one["languages"] == two["languages"] and one["sources"] == two["sources"]
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-4)
        assert one["scale"] == pytest.approx(two["scale"], rel=1e-6)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(shared)[name], tensor, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("size", "parallel"), [(1, "auto"), (2, "ddp"), (2, "fsdp")])
def test_micro_batches_change_nothing(table: Path, tmp_path: Path, size: int, parallel: str) -> None:
    whole = run_on(1, made(table, tmp_path / "whole"))
    pieces = run_on(size, made(table, tmp_path / "pieces", parallel=parallel, micro_batch=3))
    assert losses(pieces) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_bf16_stays_close(table: Path, tmp_path: Path, parallel: str) -> None:
    whole = run_on(1, made(table, tmp_path / "whole"))
    shared = run_on(2, made(table, tmp_path / "shared", parallel=parallel, precision="bf16", micro_batch=2))
    assert losses(shared) == pytest.approx(losses(whole), rel=3e-2)
    assert losses(shared) != pytest.approx(losses(whole), rel=1e-6)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_resumed_in_the_middle_is_uninterrupted(table: Path, tmp_path: Path, parallel: str) -> None:
    dropout = {"image_head": {"dropout": 0.3}, "text_head": {"dropout": 0.3}}
    loop = {"batch_size": 8, "checkpoint_every": 2, "log_every": 3, "micro_batch": 3, "parallel": parallel}
    stages = ({**TOWERS_8, "steps": 5}, {**HEADS_8, "steps": 5})
    one, two = (recipe(table, tmp_path / name, *stages, loop=loop, model=dropout) for name in ("one", "two"))
    whole = run_on(2, one)
    run_on(2, two, stop=4)
    run_on(2, two, stop=8, resume=True)
    resumed = run_on(2, two, resume=True)
    assert figures(resumed) == figures(whole)
    assert snapshot(resumed.model()) == snapshot(whole.model())


def test_another_number_of_processes_goes_on_with_the_same_losses(table: Path, tmp_path: Path) -> None:
    whole = run_on(1, made(table, tmp_path / "whole"))
    run_on(4, made(table, tmp_path / "run"), stop=4)
    resumed = run_on(2, made(table, tmp_path / "run", parallel="fsdp", micro_batch=2), resume=True)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-5)


def test_a_truncated_checkpoint_gives_way_to_the_one_before(table: Path, tmp_path: Path) -> None:
    whole = run_on(2, made(table, tmp_path / "whole", checkpoint_every=2))
    run = run_on(2, made(table, tmp_path / "run", checkpoint_every=2), stop=6)
    path = run.checkpoints / "step-6" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert figures(run_on(2, made(table, tmp_path / "run", checkpoint_every=2), resume=True)) == figures(whole)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_frozen_stays_frozen_with_its_buffers(table: Path, tmp_path: Path, cached: bool, parallel: str) -> None:
    tower = {"kind": "timm", "name": "test_efficientnet", "pretrained": False, "image_size": 32}
    lit = {"name": "lit", "trainable": ("text", *HEADS), "steps": 4}
    what = recipe(
        table, tmp_path / "run", lit, model={"image": tower}, loop={"parallel": parallel, "cache_features": cached}
    )
    torch.manual_seed(what.seed)
    fresh = snapshot(build(what.model))
    run = run_on(2, what)
    after = snapshot(run.model())
    moved = {name.partition(".")[0] for name, digest in fresh.parameters.items() if after.parameters[name] != digest}
    assert moved == {"text", "image_head", "text_head", "log_scale"}
    assert fresh.buffers == after.buffers and any("running_mean" in name for name in fresh.buffers)
    state = json.loads((run.checkpoints / "step-4" / "state.json").read_text())
    assert len(state["processes"]) == 2
    from safetensors import safe_open

    with safe_open(run.checkpoints / "step-4" / "state.safetensors", "pt") as stored:
        random = [stored.get_tensor(f"random/{rank}/cpu") for rank in range(2)]
        optimized = {name.split("/")[1].partition(".")[0] for name in stored.keys() if name.startswith("optimizer/")}  # noqa: SIM118
    assert optimized == {"text", "image_head", "text_head", "log_scale"}
    assert not torch.equal(*random)  # dropout differs


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("objective", ["contrastive", "sigmoid"])
def test_a_bias_that_is_used_or_not(table: Path, tmp_path: Path, objective: str, parallel: str) -> None:
    def biased(folder: str, **loop: Any) -> Recipe:
        settings = {"batch_size": 8, **loop}
        model = {**NO_DROPOUT, "init_bias": -10.0}
        return recipe(table, tmp_path / folder, TOWERS_8, loop=settings, model=model, objectives=[{"kind": objective}])

    whole, shared = run_on(1, biased("whole")), run_on(2, biased("shared", parallel=parallel))
    assert losses(shared) == pytest.approx(losses(whole), rel=1e-5)
    assert (weights(shared)["bias"].item() == -10.0) == (objective == "contrastive")
    assert weights(shared)["bias"].item() == pytest.approx(weights(whole)["bias"].item(), rel=1e-5)


def _features_computed(plain: dict[str, Any], environment: dict[str, str]) -> int:
    count, encode = [0], tables._encode

    def counting(part: Any, inputs: Any) -> Any:
        count[0] += len(inputs) if isinstance(part, FrozenImages) else 0
        return encode(part, inputs)

    tables._encode = counting
    try:
        trained(plain, environment)
    finally:
        tables._encode = encode
    return count[0]


def test_rank_0_encodes_and_the_others_read(table: Path, tmp_path: Path) -> None:
    what = made(table, tmp_path / "run", HEADS_8).model_dump(mode="json")
    home = {"VLKIT_HOME": os.environ["VLKIT_HOME"]}
    assert on_ranks(2, _features_computed, what, home) == [24, 0]


def _with_a_bad_step(plain: dict[str, Any], environment: dict[str, str]) -> list[str]:
    call, states = Trainee.__call__, []

    def breaking(self: Trainee, batch: PairBatch) -> Loss:
        states.append(tensor_digest(self.model.image_head.up.weight))
        loss = call(self, batch)
        bad = len(states) == 3 and self.runtime.ranks.rank == 1
        return Loss(loss.total * float("nan"), loss.parts) if bad else loss

    Trainee.__call__ = breaking  # type: ignore[method-assign]
    try:
        trained(plain, environment)
    finally:
        Trainee.__call__ = call  # type: ignore[method-assign]
    return states


def test_a_bad_step_of_one_rank_is_skipped_by_all(table: Path, tmp_path: Path) -> None:
    what = made(table, tmp_path / "run", HEADS_8)
    one, two = on_ranks(2, _with_a_bad_step, what.model_dump(mode="json"), {"VLKIT_HOME": os.environ["VLKIT_HOME"]})
    assert one == two
    assert [number for number in range(1, 8) if one[number] == one[number - 1]] == [3]
    assert [line["skipped_steps"] for line in Run(tmp_path / "run").metrics()] == [0, 0, 1, 1, 1, 1, 1, 1]


def _asked_on_one(plain: dict[str, Any], environment: dict[str, str]) -> str:
    os.environ.update(environment)
    step = steps.Steps._step

    def asked(self: steps.Steps, batch: PairBatch, request: StopRequest) -> Any:
        if self.runtime.ranks.rank == 1 and self.place.step + 1 == 3:
            request.signal = signal.SIGTERM
        return step(self, batch, request)

    steps.Steps._step = asked  # type: ignore[method-assign]
    try:
        train(Recipe.model_validate(plain))
    except KeyboardInterrupt as error:
        return str(error)
    finally:
        steps.Steps._step = step  # type: ignore[method-assign]
    return ""


def test_a_signal_to_one_rank_stops_all_at_one_step(table: Path, tmp_path: Path) -> None:
    what = made(table, tmp_path / "run", HEADS_8)
    answers = on_ranks(2, _asked_on_one, what.model_dump(mode="json"), {"VLKIT_HOME": os.environ["VLKIT_HOME"]})
    assert answers == 2 * [f"stopped after step 3; {tmp_path / 'run'} keeps it, go on with --resume"]
    assert [path.name for path in Run(tmp_path / "run").checkpoints.iterdir()] == ["step-3"]


def _unequal() -> str:
    ranks = Ranks.world()
    try:
        check_equal({"a": "1", "b": str(ranks.rank), "c": "1"}, Runtime(torch.device("cpu"), ranks, ranks))
    except VlkitError as error:
        return str(error)
    return ""


def test_ranks_that_start_from_other_weights_are_told() -> None:
    first, second = on_ranks(2, _unequal)
    assert first == second and first.startswith("ranks 0 and 1 start from different weights (b); every machine needs")


def _refused(plain: dict[str, Any], environment: dict[str, str]) -> str:
    os.environ.update(environment)
    try:
        train(Recipe.model_validate(plain))
    except VlkitError as error:
        return str(error)
    return ""


def test_what_rank_0_refuses_all_refuse(table: Path, tmp_path: Path) -> None:
    what = made(table, tmp_path / "run", HEADS_8)
    run_on(2, what)
    answers = on_ranks(2, _refused, what.model_dump(mode="json"), {"VLKIT_HOME": os.environ["VLKIT_HOME"]})
    assert answers[0] == answers[1] and "holds a run already" in answers[0]


def _compiled_and_saving(plain: dict[str, Any], environment: dict[str, str]) -> None:
    compiling = torch.nn.Module.compile
    torch.nn.Module.compile = lambda self: compiling(self, backend="aot_eager")  # type: ignore[method-assign]
    try:
        trained(plain, environment)
    finally:
        torch.nn.Module.compile = compiling  # type: ignore[method-assign]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_compiled_blocks_with_saved_activations_in_pieces(table: Path, tmp_path: Path, parallel: str) -> None:
    model = {**NO_DROPOUT, "image": {"kind": "timm", "name": "test_vit", "pretrained": False, "image_size": 32}}
    stage = {"name": "image", "trainable": ("image", *HEADS), "steps": 2}
    loop = {"batch_size": 8, "grad_checkpointing": True, "parallel": parallel}
    whole = run_on(1, recipe(table, tmp_path / "whole", stage, model=model, loop={"batch_size": 8}))
    shared = recipe(table, tmp_path / "shared", stage, model=model, loop={**loop, "compile": True})
    on_ranks(2, _compiled_and_saving, shared.model_dump(mode="json"), {"VLKIT_HOME": os.environ["VLKIT_HOME"]})
    assert losses(Run(tmp_path / "shared")) == pytest.approx(losses(whole), rel=1e-5)
