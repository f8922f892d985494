"""The run folder: recipe, metrics, environment, checkpoints, model."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlkit.data.formats.text_files import read_objects
from vlkit.errors import VlkitError
from vlkit.files import digest, write_atomic
from vlkit.provenance import environment
from vlkit.spec.load import dump_yaml, load_spec
from vlkit.spec.recipe import Recipe

if TYPE_CHECKING:
    from vlkit.types import Model

_FREE = (  # fields of loop that may change when a run is resumed: they change no figure, or only its rounding
    "log_every", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "num_workers", "timeout",
    "max_skipped_steps", "micro_batch", "parallel", "grad_checkpointing", "compile",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run on disk."""

    path: Path

    @property
    def metrics_path(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of step-N folders."""
        return self.path / "checkpoints"

    @property
    def model_path(self) -> Path:
        """The finished model."""
        return self.path / "model"

    def model(self) -> Model:
        """The finished model, loaded."""
        from vlkit.models.folder import load

        model: Model = load(self.model_path)
        return model

    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_spec(Recipe, self.path / "recipe.yaml")

    def summary(self) -> str:
        """One line on how training went, "" before anything was logged."""
        lines = [line for line in self.metrics() if "loss" in line]
        if not lines:
            return ""
        rates = sorted(line["images_per_s"] for line in lines)
        waits = [line["data_wait"] for line in lines]
        said = [f"{lines[-1]['step']} steps", f"{rates[len(rates) // 2]:,.0f} images/s"]
        said.append(f"{100 * sum(waits) / len(waits):.0f} % of the time waiting for data")
        if skipped := lines[-1]["skipped_steps"]:
            said.append(f"{skipped} steps skipped")
        measured = [line["validation"] for line in self.metrics() if "validation" in line]
        for name, value in measured[-1].items() if measured else ():
            said += [f"{name} {value:.3f} on what was held back"] if isinstance(value, int | float) else []
        return ", ".join(said)

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl."""
        if not self.metrics_path.exists() or not self.metrics_path.stat().st_size:
            return []
        return [line for _, line in read_objects(self.metrics_path, may_be_cut=True)]


def run_folder(recipe: Recipe) -> Path:
    """Where a recipe's run goes."""
    return Path(recipe.run.folder) if recipe.run.folder else Path("runs") / recipe.run.name


def recipe_digest(recipe: Recipe) -> str:
    """What must be equal for a run to be resumed: all but where it is written and how it is logged and computed."""
    return digest(_decisive(recipe))


def _decisive(recipe: Recipe) -> dict[str, Any]:
    content = recipe.model_dump(mode="json", exclude={"run", "description", "validation"})
    for field in _FREE:
        content["loop"].pop(field)
    return content


def open_run(recipe: Recipe, *, resume: bool, overwrite: bool) -> Run:
    """The run folder of a recipe, checked; nothing is written yet (``begin_run``).

    Raises:
        VlkitError: There is a run already and neither resume nor overwrite is asked for, or nothing to resume, or the
            run to resume is of another recipe.
    """
    run = Run(run_folder(recipe))
    started = (run.path / "recipe.yaml").exists()
    if resume:
        if not started:
            raise VlkitError(f"nothing to resume: {run.path} holds no run; leave --resume out, or check run.folder")
        _check_same(run, recipe)
        for half_written in run.checkpoints.glob(".step-*"):  # by a run that was killed
            shutil.rmtree(half_written, ignore_errors=True)
        return run
    if started and not overwrite:
        raise VlkitError(
            f"{run.path} holds a run already; go on with --resume, replace it with --overwrite, or choose another "
            f"place with run.folder=..."
        )
    return run


def begin_run(run: Run, recipe: Recipe) -> None:
    """Clears what an earlier run left but its model, and writes recipe and environment.

    Called once the recipe has proved to be buildable, so that one that is refused leaves everything as it was.
    """
    for name in ("metrics.jsonl", "environment.json"):
        (run.path / name).unlink(missing_ok=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    write_atomic(run.path / "recipe.yaml", dump_yaml(recipe))
    write_atomic(run.path / "environment.json", json.dumps({**environment(), "command": sys.argv}, indent=2) + "\n")


def _check_same(run: Run, recipe: Recipe) -> None:
    old, new = (dict(_leaves(_decisive(one))) for one in (run.recipe(), recipe))
    changed = [
        f"{key} ({old.get(key, 'not there')} then, {new.get(key, 'not there')} now)"
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise VlkitError(
            f"cannot resume {run.path}: the recipe differs in {', '.join(changed)} from {run.path / 'recipe.yaml'}; "
            f"resume with the recipe that the run was started with, or choose another run.folder"
        )


def _leaves(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys with their values as JSON; a list of plain values is one value."""
    if isinstance(content, dict):
        inner = content.items()
    elif isinstance(content, list) and any(isinstance(value, dict) for value in content):
        inner = dict(enumerate(content)).items()
    else:
        yield key, json.dumps(content, ensure_ascii=False)
        return
    for name, value in inner:
        yield from _leaves(value, f"{key}.{name}" if key else str(name))
