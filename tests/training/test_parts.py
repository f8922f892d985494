"""Training by part: rates and decay of their own, averaged weights, frozen parts that are not kept again and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.helpers.train_factory import HEADS, drawings, figures, killed, recipe
from vlkit.errors import UnknownName, VlkitError
from vlkit.models.trainable import snapshot
from vlkit.parts.tiny import TinyTextEncoder
from vlkit.spec.training import OptimSpec, StageSpec
from vlkit.training.average import WeightAverage
from vlkit.training.loop import train
from vlkit.training.optimizer import build_optimizer, peaks_of
from vlkit.training.run_folder import Run
from vlkit.types import as_module

BIG = 50_000_000


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data", 24)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"eye": nn.Linear(3, 4), "tongue": nn.Linear(4, 2)})


def test_rates_and_decay_are_by_part() -> None:
    model, optim = net(), OptimSpec(lr=0.1, weight_decay=0.5)
    stage = StageSpec(name="s", trainable=("eye", "tongue"), steps=1, lr={"eye": 0.01}, weight_decay={"tongue": 0.25})
    peaks = peaks_of(model, stage, optim)
    assert peaks == {"eye": 0.01, "tongue": 0.1}
    found = {
        name: (group["peak"], group["weight_decay"])
        for group in build_optimizer(model, optim, peaks=peaks, stage=stage).param_groups
        for tensor in group["params"]
        for name, parameter in model.named_parameters()
        if tensor is parameter
    }
    assert found == {
        "eye.weight": (0.01, 0.5), "eye.bias": (0.01, 0.0), "tongue.weight": (0.1, 0.25), "tongue.bias": (0.1, 0.0),
    }  # fmt: skip
    for key in ("lr", "weight_decay"):
        wrong = stage.model_copy(update={key: {"nose": 0.1}})
        with pytest.raises(UnknownName, match=r"no part 'nose'; there are: eye, tongue \(key: stages\." + key):
            build_optimizer(model, optim, peaks=peaks_of(model, wrong, optim), stage=wrong)


@pytest.mark.parametrize("wrong", [{"trainable": ["nose"]}, {"lr": {"nose": 0.1}}, {"weight_decay": {"nose": 0.1}}])
def test_a_part_that_is_not_there_is_told_before_anything_is_written(
    table: Path, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    stages = ({"name": "a", "trainable": HEADS, "steps": 2}, {"name": "b", "trainable": HEADS, "steps": 2, **wrong})
    with pytest.raises(UnknownName, match=r"^no part 'nose'"):
        train(recipe(table, tmp_path / "run", *stages))
    assert not (tmp_path / "run").exists()


def test_one_rate_for_all_is_as_no_rate_by_part(table: Path, tmp_path: Path) -> None:
    stage = {"name": "h", "trainable": HEADS, "steps": 6}
    one = train(recipe(table, tmp_path / "one", {**stage, "lr": 3e-3}))
    two = train(recipe(table, tmp_path / "two", {**stage, "lr": dict.fromkeys(HEADS, 3e-3)}))
    assert snapshot(as_module(one.model())) == snapshot(as_module(two.model())) and figures(one) == figures(two)
    slow = train(recipe(table, tmp_path / "slow", {**stage, "lr": {"text_head": 1e-9}}))
    first, then = (as_module(run.model()).state_dict() for run in (one, slow))
    assert not torch.equal(first["image_head.up.weight"], torch.zeros(())) and figures(slow) != figures(one)
    assert (first["text_head.up.weight"] - then["text_head.up.weight"]).abs().max() > 1e-4


def test_an_average_is_that_of_the_weights_after_each_step() -> None:
    model = nn.Linear(2, 1, bias=False)
    average, expected = WeightAverage(model, 0.5), model.weight.detach().clone()
    for step in range(8):
        with torch.no_grad():
            model.weight.add_(1.0)
        average.update(step)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * model.weight.detach()
    torch.testing.assert_close(average.tensors["weight"], expected)
    weights = model.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, weights)


def test_the_model_of_a_run_is_the_average_and_resumes_exactly(table: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"optim": {"average": 0.9}, "loop": {"checkpoint_every": 5}}
    stages = [{"name": name, "trainable": HEADS, "steps": 20} for name in "ab"]
    plain, whole = (
        train(recipe(table, tmp_path / name, *stages, **settings))
        for name, settings in (("plain", {}), ("whole", more))
    )
    first = [line["loss"] for line in plain.metrics()[:20]]
    assert [line["loss"] for line in whole.metrics()[:20]] == first  # training itself does not see it,
    assert whole.metrics()[20]["loss"] != plain.metrics()[20]["loss"]  # the next stage starts from it
    made = recipe(table, tmp_path / "killed", *stages, **more)
    killed(made, after=(8, 30))
    assert figures(train(made, resume=True)) == figures(whole)
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (tmp_path / "killed", whole.path)]
    assert weights[0] == weights[1]


HEAVY = """
import sys
from pathlib import Path
import torch
from torch import nn
from tests.helpers.train_factory import HEADS, recipe
from vlkit.parts.tiny import TinyTextEncoder
from vlkit.training import loop

build = TinyTextEncoder.build.__func__

def heavy(cls, spec, **more):
    made = build(cls, spec, **more)
    made.ballast = nn.Parameter(torch.full(({big},), 0.5))
    return made

TinyTextEncoder.build = classmethod(heavy)
loop.save = lambda model, path: None  # the finished model holds all of it
marks, fit = [], loop._Trainer.fit

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("VmHWM"))

def watched(self, *, resume):
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: a child takes over that of its parent
    marks.append(peak())
    fit(self, resume=resume)
    marks.append(peak())

loop._Trainer.fit = watched
stages = [{{"name": name, "trainable": HEADS, "steps": 3}} for name in "ab"]
settings = {{"checkpoint_every": 1, "keep_checkpoints": 20, "parallel": "ddp"}}
loop.train(recipe(Path(sys.argv[1]), Path(sys.argv[2]), *stages, loop=settings))
print(*marks)
"""


def grown(table: Path, folder: Path, ballast: int) -> int:
    """Bytes that the memory of a run grows by from the first stage on."""
    command = [sys.executable, "-c", HEAVY.format(big=ballast), str(table), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = (1024 * int(kilobytes) for kilobytes in done.stdout.split()[-2:])
    assert before > 4 * ballast
    return after - before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_frozen_part_is_neither_copied_nor_kept(table: Path, tmp_path: Path) -> None:
    """The text encoder has 50 million frozen parameters more (200 MB), over two stages and six checkpoints."""
    more = grown(table, tmp_path / "run", BIG) - grown(table, tmp_path / "small", 1)
    assert more < 4 * BIG / 4
    run = Run(tmp_path / "run")
    sizes = [path.stat().st_size for path in run.checkpoints.rglob("state.safetensors")]
    assert len(sizes) == 6 and max(sizes) < 200_000
    untouched = json.loads((run.checkpoints / "step-6" / "state.json").read_text())["untouched"]
    assert "text.ballast" in untouched and not any(name.startswith("text_head") for name in untouched)
    kept = load_file(run.checkpoints / "step-6" / "state.safetensors")
    assert not any("text." in name for name in kept)


def test_weights_that_are_no_longer_what_they_were_are_refused(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(table, tmp_path / "run", {"name": "h", "trainable": HEADS, "steps": 4}, loop={"checkpoint_every": 2})
    train(made)
    build = TinyTextEncoder.build.__func__  # type: ignore[attr-defined]

    def other(cls: Any, spec: Any, **more: Any) -> Any:
        encoder = build(cls, spec, **more)
        with torch.no_grad():
            next(encoder.parameters()).add_(1)
        return encoder

    monkeypatch.setattr(TinyTextEncoder, "build", classmethod(other))
    with pytest.raises(VlkitError, match=r"of the frozen weights, text\.\S+ .*are not those that the run"):
        train(made, resume=True)


def test_checkpoints_of_older_versions_are_refused_with_what_to_do(table: Path, tmp_path: Path) -> None:
    made = recipe(table, tmp_path / "run", {"name": "h", "trainable": HEADS, "steps": 2})
    run = train(made)
    path = run.checkpoints / "step-2" / "state.json"
    state = json.loads(path.read_text())
    del state["format"]
    path.write_text(json.dumps(state))
    with pytest.raises(VlkitError, match=r"is a checkpoint of format 1, .* start anew with --overwrite"):
        train(made, resume=True)
