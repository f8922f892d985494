"""What a run leaves behind, where it runs, what it shows."""

from __future__ import annotations

import json
import logging
import signal
import threading
from pathlib import Path

import pytest
import torch

import vlkit
from tests.helpers import train_factory as factory
from vlkit.distributed.runtime import autocast, choose_device
from vlkit.errors import UnknownName, VlkitError
from vlkit.models.trainable import Report
from vlkit.spec.load import dump_yaml
from vlkit.spec.training import LoopSpec
from vlkit.training import loop
from vlkit.training.loop import train
from vlkit.training.run_folder import Run, recipe_digest, run_folder
from vlkit.training.signals import stop_on_signals


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return factory.drawings(tmp_path / "data")


def test_the_run_folder(table: Path, tmp_path: Path) -> None:
    made = factory.recipe(table, tmp_path / "run", loop={"log_every": 4})
    run = train(made)
    assert run == Run(tmp_path / "run")
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints", "environment.json", "metrics.jsonl", "model", "recipe.yaml",
    ]  # fmt: skip
    assert run.recipe() == made
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["vlkit"] == vlkit.__version__ and torch.__version__.startswith(environment["libraries"]["torch"])
    lines = run.metrics()
    assert [(line["step"], line["stage"]) for line in lines] == [(4, "heads"), (6, "heads")]
    assert set(lines[0]) == {
        "step", "stage", "loss", "contrastive", "batch_acc1", "lr", "scale", "grad_norm", "skipped_steps",
        "images_per_s", "data_wait", "languages", "sources",
    }  # fmt: skip
    model = run.model()
    assert not model.training and model.spec == made.model
    assert lines[-1]["scale"] == pytest.approx(model.scale.item())
    page = run._repr_html_()
    assert f"<b>{run.path.name}</b>" in page and "<polyline" in page and run.summary() in page
    assert Run(tmp_path / "nothing").metrics() == [] and "nothing is logged" in Run(tmp_path / "<x>")._repr_html_()


def test_the_default_place_is_named_after_the_run(table: Path) -> None:
    made = factory.recipe(table, Path("x"), run={"folder": None, "name": "a/b"})
    assert run_folder(made) == Path("runs/a/b")


def test_the_digest_forgets_what_changes_no_number(table: Path) -> None:
    made = factory.recipe(table, Path("a"))
    logged = {"log_every": 3, "checkpoint_every": 9, "keep_checkpoints": 4, "num_workers": 1}
    assert recipe_digest(factory.recipe(table, Path("b"), loop=logged, description="other")) == recipe_digest(made)
    for more in ({"seed": 1}, {"loop": {"batch_size": 5}}, {"optim": {"lr": 0.1}}, {"model": {"embed_dim": 16}}):
        assert recipe_digest(factory.recipe(table, Path("a"), **more)) != recipe_digest(made)


def test_the_package_is_the_function(table: Path, tmp_path: Path) -> None:
    made = factory.recipe(table, tmp_path / "run")
    vlkit.train(made)
    titles: list[tuple[str, Report]] = []
    run = vlkit.train(made, overwrite=True, show=lambda title, report: titles.append((title, report)))
    ((title, report),) = titles
    assert title == "stage 1 of 1: heads, 6 steps"
    trains = {row.part: (bool(row.trainable), row.lr) for row in report.rows}
    assert trains == {
        "image": (False, None), "text": (False, None),
        "image_head": (True, 0.003), "text_head": (True, 0.003), "scale": (True, 0.003),
    }  # fmt: skip
    assert vlkit.train(made, resume=True) == run


def test_a_recipe_is_taken_by_its_file_or_name(table: Path, tmp_path: Path) -> None:
    made, path = factory.recipe(table, tmp_path / "run"), tmp_path / "mine.yaml"
    path.write_text(dump_yaml(made), encoding="utf-8")
    assert vlkit.train(path).recipe() == vlkit.train(str(path), overwrite=True).recipe() == made
    assert loop._read("contrastive/tiny") == vlkit.load_recipe("contrastive/tiny")
    with pytest.raises(UnknownName, match=r"^no recipe 'contrastive/tyni'; did you mean 'contrastive/tiny'"):
        vlkit.train("contrastive/tyni")
    with pytest.raises(VlkitError) as caught:
        vlkit.train({"model": "tiny"})  # type: ignore[arg-type]
    assert str(caught.value) == ("train takes a recipe, its file or its name, not a dict; vlkit.load_recipe makes one")


def test_what_trains_is_logged_where_nobody_shows_it(
    table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger=loop.log.name):
        train(factory.recipe(table, tmp_path / "run"))
    assert caplog.messages[0].startswith("stage 1 of 1: heads, 6 steps\npart ")


def test_a_device_that_is_not_there() -> None:
    assert choose_device(LoopSpec(device="cpu")) == choose_device(LoopSpec()) == torch.device("cpu")
    with pytest.raises(VlkitError, match=r"^loop\.device = cuda, but this machine has none; there are: cpu"):
        choose_device(LoopSpec(device="cuda"))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision(precision: str, dtype: torch.dtype) -> None:
    with autocast(LoopSpec(precision=precision), torch.device("cpu")):  # type: ignore[arg-type]
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_bf16_trains_float32_weights(table: Path, tmp_path: Path) -> None:
    run = train(factory.recipe(table, tmp_path / "run", loop={"precision": "bf16"}))
    assert {parameter.dtype for parameter in run.model().parameters()} == {torch.float32}


def test_the_first_signal_asks_and_the_second_acts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as request:
        assert request.signal is None
        signal.raise_signal(signal.SIGINT)
        assert request.signal == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_in_a_thread_leaves_signals_alone(table: Path, tmp_path: Path) -> None:
    before, ended = signal.getsignal(signal.SIGINT), []
    thread = threading.Thread(target=lambda: ended.append(train(factory.recipe(table, tmp_path / "run"))))
    thread.start()
    thread.join()
    assert ended == [Run(tmp_path / "run")] and signal.getsignal(signal.SIGINT) is before
