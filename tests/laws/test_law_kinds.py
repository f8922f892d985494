"""A third kind of model, made of files of its own and a line in each registry, does all that a dual encoder does.

``tests/helpers/regressor`` is what somebody else would write. Everything runs in processes of its own: what one
registers stays registered.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.train_factory import TIMES, drawings
from vlkit.training.run_folder import Run

ROOT = Path(__file__).parents[2]
RECIPE = """
model: {{kind: regressor, encoder: {{kind: tiny, image_size: 16, width: 16, depth: 1}}}}
run: {{folder: {folder}}}
data: {{sources: [{{kind: folder, path: {table}}}]}}
objectives: [{{kind: brightness}}]
optim: {{lr: 0.01, warmup_steps: 5, average: 0.9}}
stages:
  - {{name: line, trainable: [line], steps: 40}}
  - {{name: both, trainable: [line, encoder], steps: 160, lr: {{encoder: 0.001}}, weight_decay: {{line: 0.0}}}}
loop: {{batch_size: 8, micro_batch: 3, log_every: 1, checkpoint_every: 20, num_workers: 0}}
"""
SUITE = """
tasks:
  - {{kind: brightness, name: grey, source: {{kind: folder, path: {table}}}}}
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.helpers.regressor", *arguments]


def vlkit(folder: Path, *arguments: str) -> str:
    done = subprocess.run(command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def figures(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in run.metrics()]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    table = drawings(tmp_path / "data", 24)
    for name in ("whole", "killed"):
        (tmp_path / f"{name}.yaml").write_text(RECIPE.format(folder=tmp_path / name, table=table))
    (tmp_path / "suite.yaml").write_text(SUITE.format(table=table))
    return tmp_path


def test_it_trains_resumes_after_a_kill_saves_loads_and_is_evaluated(world: Path) -> None:
    assert "encoder" in vlkit(world, "train", "whole.yaml", "--dry-run")
    vlkit(world, "train", "whole.yaml")
    whole, killed = Run(world / "whole"), Run(world / "killed")
    lines = figures(whole)
    assert [line["step"] for line in lines] == list(range(1, 201)) and {"slope", "error"} <= lines[0].keys()
    assert sum(line["loss"] for line in lines[-20:]) < sum(line["loss"] for line in lines[:20]) / 4

    child = subprocess.Popen(
        command("train", "killed.yaml"),
        cwd=world,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not (killed.metrics_path.exists() and killed.metrics_path.read_bytes().count(b"\n") >= 90):
        assert child.poll() is None and time.monotonic() < until
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not killed.model_path.exists()
    vlkit(world, "train", "killed.yaml", "--resume")
    assert figures(killed) == lines
    weights = [(run.model_path / "model.safetensors").read_bytes() for run in (whole, killed)]
    assert weights[0] == weights[1]
    assert (whole.model_path / "README.md").read_text() == "# A regressor of brightness\n"

    vlkit(world, "eval", "whole/model", "suite.yaml", "--out", "found")
    table = next((world / "found").glob("results*.csv"))
    rows = list(csv.DictReader(table.open()))
    assert {row["language"] for row in rows} == {"de", "en", "fr"}
    assert all(float(row["closeness"]) > 0.85 for row in rows)
    assert any("closeness" in page.read_text() for page in (world / "found").glob("report*.html"))
    before = {path: path.stat().st_mtime_ns for path in (world / "found" / "rows").iterdir()}
    vlkit(world, "eval", "whole/model", "suite.yaml", "--out", "found", "--resume")
    assert before == {path: path.stat().st_mtime_ns for path in (world / "found" / "rows").iterdir()}


def test_a_task_that_needs_another_kind_says_so(world: Path) -> None:
    made = (world / "whole.yaml").read_text().replace("steps: 40", "steps: 1").replace("steps: 160", "steps: 1")
    (world / "short.yaml").write_text(made)
    vlkit(world, "train", "short.yaml")
    (world / "pairs.yaml").write_text(
        SUITE.format(table=world / "data" / "table.jsonl").replace("brightness", "retrieval")
    )
    for arguments, message in (
        (
            ("eval", "whole/model", "pairs.yaml", "--out", "none"),
            "a Regressor does not embed images and texts, as task 'grey' needs",
        ),
        (
            ("classify", "data/0.png", "--labels", "a,b", "--model", "whole/model"),
            "is no image text model as is wanted",
        ),
        (
            ("export", "whole/model", "--format", "open_clip", "--out", "e"),
            "a model of kind regressor cannot be exported",
        ),
    ):
        done = subprocess.run(command(*arguments), cwd=world, env=environment(), capture_output=True, text=True)
        assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr


def test_a_mistake_names_the_kinds_that_there_are(world: Path) -> None:
    (world / "wrong.yaml").write_text((world / "whole.yaml").read_text().replace("regressor", "regresor"))
    done = subprocess.run(command("train", "wrong.yaml"), cwd=world, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        "did you mean 'regressor'?  kinds: dual_encoder, vision_language, query_former, image_tokenizer, "
        "text_to_image, diffusion_bridge, image_text_to_text, saved, "
        "regressor" in done.stderr
    )


def test_what_it_lacks_is_refused_by_name(world: Path) -> None:
    recipe = (world / "whole.yaml").read_text()
    for old, new, message in (
        ("steps: 40}", "steps: 40, warm_start: {}}", "a model of kind regressor has no warm start"),
        ("trainable: [line]", "trainable: [text_head]", "no part 'text_head'; there are: encoder, line"),
        ("lr: {encoder: 0.001}", "lr: {decoder: 0.001}", "no part 'decoder'; did you mean 'encoder'?"),
    ):
        (world / "wrong.yaml").write_text(recipe.replace(old, new))
        done = subprocess.run(
            command("train", "wrong.yaml", "--overwrite"), cwd=world, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr
