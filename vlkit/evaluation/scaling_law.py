"""How a loss falls with size: log10 CE = b0 + b1 log10 N + b2 log10 D, fitted to the logs of several runs.

Florenz (arXiv 2503.09443, section 4, equation 3) asks with it what helps languages that captions were never seen in: N
parameters or D samples. P points (runs), T terms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlkit.data.formats.text_files import read_objects, read_table
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.metrics.intervals import Interval
from vlkit.foreign import read_json
from vlkit.spec.load import load_spec
from vlkit.spec.recipe import Recipe

PARAMETERS, SAMPLES = "parameters", "samples"
_LAST = 10  # one in so many lines of a stage, its last ones, are taken for its loss
_LEVEL = 0.95


@dataclass(frozen=True)
class ScalingPoint:
    """One run: what it is called, how large it was in each term, the loss it came to, and what that is the loss of."""

    name: str
    sizes: Mapping[str, float]
    loss: float
    group: str = "loss"


@dataclass(frozen=True)
class Coefficient:
    """A number of the law with its 95 % interval."""

    term: str
    value: float
    interval: Interval


@dataclass(frozen=True)
class ScalingFit:
    """A fitted law: the constant first (its term is ""), then one exponent a term.

    Attributes:
        group: What was fitted.
        coefficients: b0, b1, ...
        r_squared: Share of the variance of log10 CE that the law explains.
        residual: Standard deviation of log10 CE about the law; NaN without a degree of freedom.
        points: What it was fitted to.
    """

    group: str
    coefficients: tuple[Coefficient, ...]
    r_squared: float
    residual: float
    points: tuple[ScalingPoint, ...]

    def predict(self, sizes: Mapping[str, float]) -> float:
        """The loss at given sizes."""
        first, *others = self.coefficients
        return float(10 ** (first.value + sum(one.value * math.log10(sizes[one.term]) for one in others)))

    def plain(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "group": self.group,
            "points": len(self.points),
            "coefficients": {
                one.term or "constant": {"value": one.value, "low": one.interval.low, "high": one.interval.high}
                for one in self.coefficients
            },
            "r_squared": self.r_squared,
            "residual": None if math.isnan(self.residual) else self.residual,
        }


def fit_scaling(points: Sequence[ScalingPoint], *, over: Sequence[str] = (PARAMETERS, SAMPLES)) -> ScalingFit:
    """Least squares in log10, with Student's t intervals of the coefficients.

    Args:
        points: Of one group, more of them than coefficients.
        over: The terms.

    Raises:
        VlkitError: Too few points, sizes or losses that have no logarithm, or terms that do not vary independently.
    """
    from scipy.stats import t as student

    _check(points, over)
    columns = [np.log10([point.sizes[term] for point in points]) for term in over]
    design_PT = np.column_stack([np.ones(len(points)), *columns])
    loss_P = np.log10([point.loss for point in points])
    if np.linalg.matrix_rank(design_PT - [0, *design_PT[:, 1:].mean(0)]) < design_PT.shape[1]:
        flat = [term for term, column in zip(over, columns, strict=True) if np.ptp(column) == 0]
        why = f"all have the same {flat[0]}" if flat else f"{' and '.join(over)} go up and down together"
        raise VlkitError(
            f"{points[0].group}: of {len(points)} runs {why}, so that what each does cannot be told apart; add runs "
            f"that differ, or fit over fewer terms (--over {next((one for one in over if one not in flat), SAMPLES)})"
        )
    solved_T, *_ = np.linalg.lstsq(design_PT, loss_P, rcond=None)
    rest_P = loss_P - design_PT @ solved_T
    free = len(points) - len(solved_T)
    squares = float(rest_P @ rest_P)
    variance = squares / free if free else math.nan
    spread_T = np.sqrt(variance * np.diag(np.linalg.inv(design_PT.T @ design_PT)))
    reach_T = spread_T * (float(student.ppf((1 + _LEVEL) / 2, free)) if free else math.nan)
    total = float(((loss_P - loss_P.mean()) ** 2).sum())
    return ScalingFit(
        points[0].group,
        tuple(
            Coefficient(term, float(value), Interval(float(value - reach), float(value + reach)))
            for term, value, reach in zip(("", *over), solved_T, reach_T, strict=True)
        ),
        1 - squares / total if total else math.nan,
        math.sqrt(variance) if free else math.nan,
        tuple(points),
    )


def _check(points: Sequence[ScalingPoint], over: Sequence[str]) -> None:
    if not over:
        raise VlkitError("nothing to fit over; name at least one term, as in --over parameters,samples")
    least, what = len(over) + 1, points[0].group if points else "loss"
    if len(points) < least:
        raise VlkitError(
            f"{what}: {len(points)} runs for {least} coefficients (a constant, {', '.join(over)}); give at least "
            f"{least}, and more for intervals"
        )
    for point in points:
        for name, value in [*((term, point.sizes.get(term, math.nan)) for term in over), ("loss", point.loss)]:
            if not (value > 0 and math.isfinite(value)):
                raise VlkitError(f"{point.name}: {name} is {value:g}, which has no logarithm; it must be above 0")


def fit_groups(points: Iterable[ScalingPoint], *, over: Sequence[str] = (PARAMETERS, SAMPLES)) -> list[ScalingFit]:
    """``fit_scaling`` of each group, in the order in which they first occur."""
    groups: dict[str, list[ScalingPoint]] = {}
    for point in points:
        groups.setdefault(point.group, []).append(point)
    return [fit_scaling(some, over=over) for some in groups.values()]


def read_runs(
    folders: Sequence[str | Path],
    *,
    metrics: Sequence[str] = ("loss",),
    counting: Literal["trainable", "total"] = "total",
    stage: str | None = None,
) -> list[ScalingPoint]:
    """What the run folders of ``vlkit train`` say: parameters, samples seen, and the loss at the end of a stage.

    Args:
        folders: Of finished runs.
        metrics: Names in ``metrics.jsonl``, each a group; dots lead inside (``validation.loss.de``). The mean of the
            last tenth of a stage's lines counts, of measurements the last one.
        counting: Parameters that train in the stage, or all.
        stage: Its name; None for the last one of each run.

    Raises:
        DataError: A folder that is none of a run, or that does not say what is asked for.
        UnknownName: No such stage or figure.
    """
    return [point for folder in folders for point in _run(Path(folder), metrics, counting, stage)]


def _run(folder: Path, metrics: Sequence[str], counting: str, stage: str | None) -> list[ScalingPoint]:
    for name in ("recipe.yaml", "metrics.jsonl", "environment.json"):
        if not (folder / name).is_file():
            raise DataError(f"{folder} is no folder of a run: it has no {name}; give what vlkit train wrote")
    recipe = load_spec(Recipe, folder / "recipe.yaml")
    stages = {one.name: one for one in recipe.stages}
    if stage is not None and stage not in stages:
        raise UnknownName(f"stage of {folder}", stage, allowed=stages)
    chosen = stage or recipe.stages[-1].name
    counts = read_json(folder / "environment.json").get("parameters") or {}
    size = counts.get("trainable", {}).get(chosen) if counting == "trainable" else counts.get("total")
    if not size:
        raise DataError(
            f"{folder / 'environment.json'} does not say how many parameters the run had (vlkit 0.5 and older did not "
            f"write it); give a table instead (--table)"
        )
    path = folder / "metrics.jsonl"
    lines = [line for _, line in read_objects(path, may_be_cut=True) if line.get("stage") == chosen]
    steps = stages[chosen].steps
    sizes = {PARAMETERS: float(size), SAMPLES: float(steps * recipe.loop.batch_size)}
    return [ScalingPoint(folder.name, sizes, _end(lines, name, path), name) for name in metrics]


def _end(lines: Sequence[Mapping[str, Any]], name: str, path: Path) -> float:
    found = [(line, value) for line in lines if (value := _inside(line, name)) is not None]
    if not found:
        known = {key for line in lines for key in _numbers(line)}
        raise UnknownName(f"figure in {path}", name, allowed=known)
    measured = "validation" in found[-1][0]
    last = found[-1:] if measured else found[-max(1, len(found) // _LAST) :]
    return float(np.mean([value for _, value in last]))


def _inside(line: Mapping[str, Any], name: str) -> float | None:
    value: Any = line
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _numbers(line: Mapping[str, Any], before: str = "") -> Iterable[str]:
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{before}{key}"


def read_points(path: Path, *, over: Sequence[str] = (PARAMETERS, SAMPLES)) -> list[ScalingPoint]:
    """Points from a table (CSV, TSV or JSONL): columns ``loss`` and one a term; ``name`` and ``group`` may be there.

    Raises:
        DataError: A column that is missing, or a cell that is no number; it names file and line.
    """
    points = []
    for number, row in read_table(path):
        where = f"{path}:{number}"
        sizes = {term: _number(row, term, where) for term in over}
        group = str(row.get("group") or "loss")
        points.append(ScalingPoint(str(row.get("name") or where), sizes, _number(row, "loss", where), group))
    if not points:
        raise DataError(f"{path} has no rows")
    return points


def _number(row: Mapping[str, Any], column: str, where: str) -> float:
    if column not in row:
        raise DataError(f"{where}: no column {column!r}; there are {', '.join(row)}")
    try:
        return float(row[column])
    except (TypeError, ValueError):
        raise DataError(f"{where}: {column} is {row[column]!r}, not a number") from None
