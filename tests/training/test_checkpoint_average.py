"""Averages of a run's checkpoints: the weighted mean, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import vlkit
from tests.helpers.train_factory import drawings
from vlkit.cli.app import app
from vlkit.errors import VlkitError
from vlkit.models.folder import load
from vlkit.models.weights import read_weights
from vlkit.spec.load import load_recipe
from vlkit.training.checkpoint_average import average_checkpoints, checkpoint_shares
from vlkit.training.checkpoints import checkpoint_model
from vlkit.training.run_folder import steps_in


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("average")
    table = drawings(folder / "data", 16)
    vlkit.train(
        load_recipe(
            "t2i/tiny",
            [
                f"data.sources=[{{kind: folder, path: {table}}}]", "data.holdout_concepts=0", "data.languages=null",
                "stages.0.steps=6", "loop.batch_size=8", "loop.checkpoint_every=2", "loop.keep_checkpoints=3",
                f"run.folder={folder / 'run'}",
            ],
        )
    )  # fmt: skip
    return folder / "run"


@pytest.mark.parametrize(("weights", "shares"), [
    ("equal", (1 / 3, 1 / 3, 1 / 3)), ("linear", (1 / 6, 2 / 6, 3 / 6)), ("exponential", (1 / 7, 2 / 7, 4 / 7)),
])  # fmt: skip
def test_the_average_is_the_weighted_mean(run: Path, weights: str, shares: tuple[float, ...]) -> None:
    assert checkpoint_shares(3, weights, 0.5) == pytest.approx(shares)  # type: ignore[arg-type]
    held = [checkpoint_model(path) for path in steps_in(run / "checkpoints")[::-1]]
    found = average_checkpoints(run, weights=weights, decay=0.5).state_dict()  # type: ignore[arg-type, attr-defined]
    moved = 0
    for name in held[0]:
        mean = sum(share * one[name].double() for share, one in zip(shares, held, strict=True))
        torch.testing.assert_close(found[name].double(), mean, atol=1e-6, rtol=0)
        moved += not torch.equal(held[0][name], held[2][name])
    assert moved > 4
    final = read_weights(run / "model")
    assert all(torch.equal(found[name], final[name]) for name in found if name not in held[0])


def test_the_newest_alone_is_the_finished_model(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["average", str(run), "--last", "1", "--out", str(tmp_path / "one")])
    assert result.exit_code == 0, result.output
    first, second = load(tmp_path / "one").state_dict(), load(run / "model").state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_cannot_be_averaged_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match="has 3 checkpoints; raise"):
        average_checkpoints(run, last=4)
    with pytest.raises(VlkitError, match="has no finished model"):
        average_checkpoints(tmp_path)
    with pytest.raises(VlkitError, match="decay = 0 is out of range"):
        average_checkpoints(run, weights="exponential", decay=0.0)
