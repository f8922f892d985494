"""The run folder: recipe, metrics, environment, checkpoints, model."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlkit.data.formats.text_files import read_objects
from vlkit.errors import VlkitError
from vlkit.files import digest, write_atomic
from vlkit.models.folder import check_target
from vlkit.notebook import curve, quiet, said
from vlkit.outputs import refuse_inputs
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
    def recipe_path(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def environment_path(self) -> Path:
        """Versions, and the command."""
        return self.path / "environment.json"

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
        return load_spec(Recipe, self.recipe_path)

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

    def _repr_html_(self) -> str:
        lines = self.metrics()
        losses = curve([(line["step"], line["loss"]) for line in lines if "loss" in line])
        head = f"<b>{said(self.path.name)}</b> {quiet(self.summary() or 'nothing is logged yet')}"
        return f"<p>{head}</p>" + (f"<p>loss {losses}</p>" if losses else "")

    def done_message(self) -> str:
        """What is said where it is stopped when nothing is left to do."""
        return f"stopped; the run is done, {self.path} keeps it (--resume shows it again)"

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

    A run that was stopped before anything of it was kept is none.

    Raises:
        VlkitError: There is a run already and neither resume nor overwrite is asked for, or nothing to resume, or the
            run to resume is of another recipe; or files are there that a run would replace and none has written.
    """
    run = Run(run_folder(recipe))
    reads = list(_texts(recipe.model_dump(mode="json", exclude={"run", "description"})))
    refuse_inputs(run.checkpoints, reads)
    started = was_begun(recipe)
    check_target(run.model_path, inputs=reads)
    if resume:
        if not started:
            raise VlkitError(f"nothing to resume: {run.path} holds no run; leave --resume out, or check run.folder")
        _check_same(run, recipe)
        return run
    if started and not overwrite and _has_trained(run):
        raise VlkitError(
            f"{run.path} holds a run already; go on with --resume, replace it with --overwrite, or choose another "
            f"place with run.folder=..."
        )
    return run


def begin_run(run: Run, recipe: Recipe, *, parameters: Mapping[str, Any]) -> None:
    """Clears what an earlier run left but its model, and writes environment and recipe.

    Called once the first step has been taken, so that a recipe that is refused leaves everything as it was.
    ``parameters`` says how many the model has (``trainable.parameter_counts``).
    """
    # The recipe goes first and comes last: a folder that is cleared in part holds no run. The environment is there all
    # the time, and tells what is ours from files of others.
    run.recipe_path.unlink(missing_ok=True)
    run.metrics_path.unlink(missing_ok=True)
    for path in steps_in(run.checkpoints):
        shutil.rmtree(path, ignore_errors=True)
    about = {**environment(), "parameters": parameters, "command": sys.argv}
    write_atomic(run.environment_path, json.dumps(about, indent=2) + "\n")
    write_atomic(run.recipe_path, dump_yaml(recipe))


def cut_metrics(run: Run, size: int) -> None:
    """Leaves so many bytes: lines written after the checkpoint are written again by the resumed run."""
    if run.metrics_path.exists() and run.metrics_path.stat().st_size > size:
        with run.metrics_path.open("r+b") as stream:
            stream.truncate(size)


def steps_in(checkpoints: Path) -> list[Path]:
    """The folders ``step-N`` of a folder of checkpoints, the newest first."""
    numbered = [path for path in checkpoints.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _has_trained(run: Run) -> bool:
    """Whether anything of it was kept."""
    logged = run.metrics_path.exists() and run.metrics_path.stat().st_size > 0
    return logged or run.model_path.exists() or bool(steps_in(run.checkpoints))


def was_begun(recipe: Recipe) -> bool:
    """Whether there is a run, of this recipe or another one, in the folder of a recipe.

    Raises:
        VlkitError: Not, and yet files are there that have the names of its own.
    """
    run = Run(run_folder(recipe))
    with suppress(OSError, ValueError, TypeError):
        if "vlkit" in json.loads(run.environment_path.read_text(encoding="utf-8")):
            return run.recipe_path.exists()
    for path in (run.recipe_path, run.environment_path, run.metrics_path, run.checkpoints, run.model_path):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise VlkitError(
                f"{run.path} holds {path.name}, which no run of vlkit's wrote and this one would replace; choose "
                f"another run.folder"
            )
    return False


def _texts(value: Any) -> Iterator[str]:
    """All texts in a recipe: those that name a file or folder that is there may be read by the run."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def _check_same(run: Run, recipe: Recipe) -> None:
    old, new = (dict(_leaves(_decisive(one))) for one in (run.recipe(), recipe))
    changed = [
        f"{key} ({old.get(key, 'not there')} then, {new.get(key, 'not there')} now)"
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise VlkitError(
            f"cannot resume {run.path}: the recipe differs in {', '.join(changed)} from {run.recipe_path}; "
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
