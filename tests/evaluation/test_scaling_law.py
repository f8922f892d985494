"""The scaling helper finds the coefficients that made its data, and says what it cannot tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import curve_fit
from typer.testing import CliRunner

import vlkit
from tests.helpers import train_factory as factory
from vlkit.cli.app import app
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.report.plots import render, scaling_curves
from vlkit.evaluation.scaling_law import ScalingPoint, fit_groups, fit_scaling, read_points, read_runs
from vlkit.models.trainable import part_parameters
from vlkit.training.loop import train

LAW = (2.3, -0.16, -0.04)  # Florenz, for languages that captions were not seen in


def _points(noise: float, *, seed: int = 0, group: str = "loss", law: tuple[float, ...] = LAW) -> list[ScalingPoint]:
    rng = np.random.default_rng(seed)
    return [
        ScalingPoint(f"{n:g}-{d:g}", {"parameters": n, "samples": d},
                     float(10 ** (law[0] + law[1] * np.log10(n) + law[2] * np.log10(d) + noise * rng.normal())), group)
        for n in (4e8, 1e9, 3.5e9, 1.1e10)
        for d in (5e5, 2e6, 5e6, 1e7)
    ]  # fmt: skip


def test_coefficients_are_recovered() -> None:
    exact = fit_scaling(_points(0.0))
    assert [one.value for one in exact.coefficients] == pytest.approx(LAW, abs=1e-10)
    assert exact.r_squared == pytest.approx(1) and exact.residual == pytest.approx(0, abs=1e-10)
    assert exact.predict({"parameters": 2e9, "samples": 1e6}) == pytest.approx(10**2.3 * 2e9**-0.16 * 1e6**-0.04)


def test_intervals_are_those_of_least_squares_and_hold_the_truth() -> None:
    points = _points(0.02)
    fit = fit_scaling(points)
    x = np.log10([[point.sizes["parameters"], point.sizes["samples"]] for point in points]).T
    found, covariance = curve_fit(lambda x, a, b, c: a + b * x[0] + c * x[1], x, np.log10([p.loss for p in points]))
    for one, value, variance in zip(fit.coefficients, found, np.diag(covariance), strict=True):
        assert one.value == pytest.approx(value, abs=1e-6)
        assert one.interval.high - value == pytest.approx(2.1603687 * np.sqrt(variance), rel=1e-3)  # t, 13 free
    fits = [fit_scaling(_points(0.02, seed=seed)) for seed in range(200)]
    for place, truth in enumerate(LAW):
        intervals = [fit.coefficients[place].interval for fit in fits]
        assert 0.90 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.99


def test_each_group_and_fewer_terms() -> None:
    groups = fit_groups([*_points(0, group="fr"), *_points(0, group="de", law=(2.2, -0.13, -0.15))])
    assert [fit.group for fit in groups] == ["fr", "de"]
    assert groups[1].coefficients[2].value == pytest.approx(-0.15)
    one_size = [point for point in _points(0) if point.sizes["parameters"] == 1e9]
    assert fit_scaling(one_size, over=["samples"]).coefficients[1].value == pytest.approx(-0.04)
    assert render(scaling_curves(groups), kind="png").startswith(b"\x89PNG")


def test_what_cannot_be_told_is_said() -> None:
    points = _points(0)
    with pytest.raises(VlkitError, match=r"^loss: 2 runs for 3 coefficients \(a constant, parameters, samples\); give"):
        fit_scaling(points[:2])
    with pytest.raises(VlkitError) as caught:
        fit_scaling([point for point in points if point.sizes["parameters"] == 1e9])
    assert str(caught.value) == (
        "loss: of 4 runs all have the same parameters, so that what each does cannot be told apart; add runs that "
        "differ, or fit over fewer terms (--over samples)"
    )
    with pytest.raises(VlkitError, match="parameters and samples go up and down together"):
        sizes = [{"parameters": 10.0**k, "samples": 10.0 ** (k + 1)} for k in range(5)]
        fit_scaling([ScalingPoint("run", size, 1.0) for size in sizes])
    with pytest.raises(VlkitError, match=r"^bad: loss is -1, which has no logarithm; it must be above 0$"):
        fit_scaling([*points, ScalingPoint("bad", {"parameters": 1.0, "samples": 1.0}, -1.0)])


def test_a_run_says_what_it_was(tmp_path: Path) -> None:
    stage = {"name": "heads", "trainable": factory.HEADS, "steps": 3}
    train(factory.recipe(factory.drawings(tmp_path / "data"), tmp_path / "run", stage))
    run = tmp_path / "run"
    (point,) = read_runs([run])
    counts = json.loads((run / "environment.json").read_text())["parameters"]
    assert point.sizes == {"parameters": counts["total"], "samples": 3 * 6} and point.name == "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert point.loss == [line["loss"] for line in lines if "loss" in line][-1]
    (fewer,) = read_runs([run], counting="trainable", stage="heads")
    model = vlkit.load(run / "model")
    heads = [one for part in factory.HEADS for one in part_parameters(model, part)]
    assert fewer.sizes["parameters"] == sum(one.numel() for one in heads) < counts["total"]
    with pytest.raises(UnknownName, match="'lose'"):
        read_runs([run], metrics=["lose"])
    with pytest.raises(UnknownName, match=f"stage of {run}"):
        read_runs([run], stage="none")
    with pytest.raises(DataError, match=r"is no folder of a run: it has no recipe.yaml; give what vlkit train wrote$"):
        read_runs([run / "model"])
    (run / "environment.json").write_text("{}")
    with pytest.raises(DataError, match=r"does not say how many parameters the run had .*; give a table instead"):
        read_runs([run])


def test_a_table_and_the_command(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    rows = [f"{p.name},{p.sizes['parameters']},{p.sizes['samples']},{p.loss}" for p in _points(0.01)]
    table.write_text("\n".join(["name,parameters,samples,loss", *rows]) + "\n")
    assert [p.name for p in read_points(table)][:2] == ["4e+08-500000", "4e+08-2e+06"]
    arguments = ["scaling", "--table", str(table), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    (fit,) = json.loads(done.stdout)
    shown = CliRunner().invoke(app, arguments).stdout
    assert "log10 loss: 16 runs, R2 0.9" in shown and "constant" in shown
    assert "nothing to fit; give run folders, or a table by --table" in CliRunner().invoke(app, ["scaling"]).stderr
    assert fit["points"] == 16 and fit["coefficients"]["samples"]["value"] == pytest.approx(-0.04, abs=0.02)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scaling.json", "scaling.csv", "scaling.png"}
    with pytest.raises(DataError, match=r"runs.csv:2: no column 'compute'; there are name, parameters, samples, loss$"):
        read_points(table, over=["compute"])
    table.write_text("parameters,samples,loss\n1,2,much\n")
    with pytest.raises(DataError, match=r"runs.csv:2: loss is 'much', not a number$"):
        read_points(table)
