"""A job of two processes in which something goes wrong: it ends, says why, and goes on with --resume."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch.distributed import HashStore

from tests.helpers import train_factory as factory
from tests.helpers.train_factory import ALL, drawings, figures, recipe
from tests.laws.test_law_distributed import run_on
from vlkit.distributed import runtime
from vlkit.distributed.runtime import share_of
from vlkit.errors import VlkitError
from vlkit.spec.load import dump_yaml
from vlkit.spec.recipe import Recipe
from vlkit.training.run_folder import Run

LIMIT = 90  # seconds until a job counts as hanging


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data")


def towers(table: Path, folder: Path, *, steps: int = 20, **loop: Any) -> Recipe:
    settings = {"checkpoint_every": 6, "num_workers": 2, **loop}
    return recipe(table, folder, {"name": "towers", "trainable": ALL, "steps": steps}, loop=settings)


def start(made: Recipe, fault: str, *options: str, at: int = 0) -> subprocess.Popen[str]:
    """A job under torchrun, whose rank 1 has a fault at a step."""
    path = Path(str(made.run.folder)).with_suffix(".yaml")
    path.write_text(dump_yaml(made), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [
        str(Path(__file__).parents[1] / "helpers" / "faulty_run.py"),
        fault,
        str(at),
        "train",
        str(path),
        *options,
    ]
    return subprocess.Popen(
        [*launch, *script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )


def ended(job: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = job.communicate(timeout=LIMIT)
    finally:
        job.kill()
    return job.returncode, out, err


def test_an_error_of_one_rank_ends_the_job_with_its_message_once(table: Path, tmp_path: Path) -> None:
    code, out, err = ended(start(towers(table, tmp_path / "run"), "raise", at=8))
    assert code != 0 and err.count("rank 1: the tape of rank 1 is full\n") == 1, err
    assert "another process of the job is gone" not in err and "Warning: find_unused" not in err
    assert out.count("stage 1 of 1: towers, 20 steps") == 1


def test_a_killed_process_ends_the_job_and_resuming_is_exact(table: Path, tmp_path: Path) -> None:
    made = towers(table, tmp_path / "run")
    code, _, err = ended(start(made, "kill", at=16))
    said = [line for line in err.splitlines() if line.startswith("rank 1 (process ")]
    assert code != 0 and len(said) == 1, err
    assert re.fullmatch(
        r"rank 1 \(process \d+\) (was killed by SIGKILL|is gone and left no message: killed), perhaps for want of "
        r"memory; go on with --resume",
        said[0],
    )
    assert err.index(said[0]) < err.index("ChildFailedError")  # above torchrun's pages
    resumed = run_on(2, towers(table, tmp_path / "run", num_workers=0), resume=True)
    assert figures(resumed) == figures(run_on(2, towers(table, tmp_path / "whole", num_workers=0)))


def test_all_processes_killed_and_resumed_are_uninterrupted(table: Path, tmp_path: Path) -> None:
    settings = {"steps": 150, "checkpoint_every": 20, "num_workers": 0}
    job, run = start(towers(table, tmp_path / "run", **settings), "none"), Run(tmp_path / "run")
    factory.wait_for(run, 45, job)
    for process in [*psutil.Process(job.pid).children(recursive=True), psutil.Process(job.pid)]:
        process.kill()
    code, _, _ = ended(job)
    assert code == -signal.SIGKILL and 45 <= len(run.metrics()) < 150
    resumed = run_on(2, towers(table, tmp_path / "run", **settings), resume=True)
    assert figures(resumed) == figures(run_on(2, towers(table, tmp_path / "whole", **settings)))


def test_a_signal_saves_the_run_on_all_ranks_at_one_step(table: Path, tmp_path: Path) -> None:
    made = towers(table, tmp_path / "run", steps=400, checkpoint_every=1000)
    job, run = start(made, "none"), Run(tmp_path / "run")
    factory.wait_for(run, 3, job)
    job.send_signal(signal.SIGTERM)  # which torchrun hands on to its processes and to theirs
    code, _, err = ended(job)
    step = len(run.metrics())
    assert code != 0 and err.count(f"stopped after step {step}; {run.path} keeps it, go on with --resume\n") == 1, err
    assert [path.name for path in run.checkpoints.iterdir()] == [f"step-{step}"]


def test_what_several_processes_have_to_say_is_said_once() -> None:
    store = HashStore()
    assert runtime._is_news(store, "1", "the disk is full")
    assert not runtime._is_news(store, "0", "the disk is full")
    assert runtime._is_news(store, "2", "no such file")
    assert runtime._told(store)
    assert not runtime._told(HashStore(), seconds=0.0)


@pytest.mark.parametrize(
    ("error", "echo"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (VlkitError("connection closed"), False),
    ],
)
def test_an_echo_of_the_end_of_another_process_is_known(error: Exception, echo: bool) -> None:
    assert runtime._lost_others(error) == echo


def test_a_process_that_no_step_can_end_dies_after_the_grace() -> None:
    code = """
import threading, sys
from vlkit.training.signals import stop_on_signals
with stop_on_signals(grace=0.5):
    print("ready", flush=True)
    threading.Event().wait(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    child.terminate()
    code_, _, err = ended(child)
    assert (code_, err) == (143, "stopped by signal 15: the step did not end within 0.5 s\n")


@pytest.mark.parametrize(
    ("size", "processes", "advice"),
    [
        (7, 2, "loop.batch_size=6 or loop.batch_size=8"),
        (2, 4, "loop.batch_size=4"),
        (9, 4, "loop.batch_size=8 or loop.batch_size=12"),
    ],
)
def test_a_batch_that_does_not_divide_names_the_nearest_sizes(size: int, processes: int, advice: str) -> None:
    with pytest.raises(VlkitError) as error:
        share_of(size, processes)
    assert str(error.value) == (
        f"loop.batch_size = {size} cannot be dealt out evenly to {processes} processes; use {advice}"
    )
    assert share_of(12, 4) == 3
