"""`vlkit train`: shipped recipes build, the tiny one trains, runs are continued or replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.helpers.train_factory import drawings, losses
from vlkit.cli.app import app
from vlkit.spec.load import load_recipe, shipped_recipes
from vlkit.training.run_folder import Run

RUNNER = CliRunner()
REAL = sorted(name for name in shipped_recipes() if name.startswith("quickstart/"))


def run(*arguments: str) -> Result:
    return RUNNER.invoke(app, ["train", *arguments])


@pytest.mark.assets
@pytest.mark.parametrize("name", REAL)
def test_dry_run_of_every_real_recipe(name: str) -> None:
    result = run(name, "--dry-run")
    assert result.exit_code == 0, result.output
    for stage in load_recipe(name).stages:
        assert f": {stage.name}, {stage.steps} steps" in result.stdout
    assert result.stdout.endswith("dry run: nothing was trained and nothing was written\n")


def tiny(tmp_path: Path, *more: str) -> list[str]:
    table = drawings(tmp_path / "data", 40)
    data = ["data.languages=[en,de]", "data.holdout_concepts=2", "loop.batch_size=12", "loop.log_every=1"]
    source = f"data.sources=[{{kind: folder, path: {table}}}]"
    return ["contrastive/tiny", source, *data, f"run.folder={tmp_path / 'run'}", *more]


def test_the_tiny_recipe_trains_continues_and_is_replaced(tmp_path: Path) -> None:
    result = run(*tiny(tmp_path))
    assert result.exit_code == 0, result.output
    assert "stage 1 of 2: heads, 20 steps" in result.stdout and "stage 2 of 2: towers, 20 steps" in result.stdout
    assert result.stdout.endswith(f"\nthe model is in {tmp_path / 'run' / 'model'}\n")
    first = losses(Run(tmp_path / "run"))
    assert len(first) == 40 and sum(first[-5:]) < sum(first[:5])
    again = run(*tiny(tmp_path))
    assert again.exit_code == 2
    assert again.stderr.splitlines()[-1].startswith(
        f"error: {tmp_path / 'run'} holds a run already; go on with --resume"
    )
    finished = run(*tiny(tmp_path), "--resume")
    assert finished.exit_code == 0 and "the run was finished already: no step was left to train" in finished.stdout
    assert "finished already" not in result.stdout
    assert losses(Run(tmp_path / "run")) == first
    assert run(*tiny(tmp_path, "seed=1"), "--overwrite").exit_code == 0
    assert losses(Run(tmp_path / "run")) != first


@pytest.mark.assets
def test_the_tiny_recipe_trains_on_what_it_names(tmp_path: Path) -> None:
    result = run("contrastive/tiny", f"run.folder={tmp_path / 'run'}")
    assert result.exit_code == 0, result.output
    assert losses(Run(tmp_path / "run"))[-1] < losses(Run(tmp_path / "run"))[0]
