"""The results file: rows of scores with the provenance that makes them worth something."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.files import write_atomic
from vlkit.version import __version__

if TYPE_CHECKING:
    from rich.table import Table

_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "open_clip_torch", "numpy", "pillow")
_DIGITS = 6
_TOP = 5  # CLIP_benchmark gives acc5 for at least so many classes
_TEXTS = ("task", "variant", "language", "prompt")


@dataclass(frozen=True)
class ResultRow:
    """One score: a model variant on a task in one language.

    All accuracies and interval ends are fractions in 0..1; the interval is the 95 % interval of ``acc1``.
    """

    task: str
    variant: str
    language: str
    """BCP 47."""
    prompt: str
    """Which texts stood for a class: ``label`` is the bare name."""
    num_classes: int
    n_images: int
    acc1: float
    acc5: float
    """Right among the best five, or among all where there are fewer than five classes."""
    ci_low: float
    ci_high: float
    chance: float
    chance_corrected: float
    """(acc1 - chance) / (1 - chance); NaN (null in the file) for one class."""
    n_ambiguous: int = 0
    """Classes that share all their names with another one, which no model can tell apart."""
    acc1_tolerant: float = math.nan
    """``acc1`` where a class with just the names of the right one counts as right."""
    acc1_en_subset: float = math.nan
    """``acc1`` with the English names of the same classes and images; NaN where they were not scored."""
    mean_per_class_recall: float = math.nan
    """Mean over classes of their top-1 accuracy."""
    mean_reciprocal_rank: float = math.nan
    n_tied: int = 0
    """Images on which a class of other names scores exactly as the right one; the lower class then stands first."""
    median_rank: float = math.nan
    """Of the right class, from 1."""
    subset_size: int = 0
    """How many classes ``acc1_subset`` is among; 0 where it was not asked for."""
    acc1_subset: float = math.nan
    """``acc1`` among so many classes, on average over all subsets; NaN for languages that have fewer."""


@dataclass(frozen=True)
class Mean:
    """Unweighted mean of one variant's rows over its languages."""

    acc1: float
    acc5: float
    chance: float
    lowest: ResultRow
    languages: int


@dataclass(frozen=True)
class Results:
    """Rows and where they come from (see ``provenance``)."""

    meta: Mapping[str, Any]
    rows: tuple[ResultRow, ...]
    retrieval: tuple[Mapping[str, Any], ...] = ()
    """Rows of retrieval tasks (``RetrievalRow.plain``)."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the models compared, in the order of their first rows."""
        return tuple(dict.fromkeys(row.variant for row in self.rows))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of their first rows."""
        return tuple(dict.fromkeys(row.task for row in self.rows))

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags, in the order of their first rows."""
        return tuple(dict.fromkeys(row.language for row in self.rows))

    def of(self, variant: str, *, task: str | None = None) -> dict[str, ResultRow]:
        """The rows of one variant by language; ``task`` may be left out where there is only one.

        Raises:
            UnknownName: No such variant or task.
            VlkitError: Several tasks and none named.
        """
        task = self._task(task)
        if variant not in self.variants:
            raise UnknownName("variant", variant, allowed=self.variants)
        return {row.language: row for row in self.rows if row.variant == variant and row.task == task}

    def mean(self, variant: str, *, task: str | None = None) -> Mean:
        """Unweighted mean over the languages of one variant.

        Raises:
            VlkitError: The variant has no row of this task.
        """
        rows = list(self.of(variant, task=task).values())
        if not rows:
            raise VlkitError(f"variant {variant!r} has no results of task {task!r}; tasks: {', '.join(self.tasks)}")
        return Mean(
            acc1=fmean(row.acc1 for row in rows),
            acc5=fmean(row.acc5 for row in rows),
            chance=fmean(row.chance for row in rows),
            lowest=min(rows, key=lambda row: row.acc1),
            languages=len(rows),
        )

    def means(self, *, task: str | None = None) -> dict[str, Mean]:
        """The mean of every variant that has results of the task.

        Raises:
            VlkitError: There are no rows at all, or several tasks and none named.
        """
        task = self._task(task)
        return {variant: self.mean(variant, task=task) for variant in self.variants if self.of(variant, task=task)}

    def only(self, task: str) -> Results:
        """The rows of one task, of classification or retrieval."""
        return replace(
            self,
            rows=tuple(row for row in self.rows if row.task == task),
            retrieval=tuple(row for row in self.retrieval if row["task"] == task),
        )

    def clip_benchmark(self) -> list[dict[str, Any]]:
        """The rows in the form that CLIP_benchmark writes, one object each, for tables that hold runs of both.

        ``dataset`` is the task, ``pretrained`` the digest of the weights. As there, acc5 is null for fewer than five
        classes.
        """
        found: list[dict[str, Any]] = []
        for row in self.rows:
            metrics: dict[str, Any] = {
                "acc1": row.acc1,
                "acc5": row.acc5 if row.num_classes >= _TOP else None,
                "mean_per_class_recall": row.mean_per_class_recall,
            }
            found.append(self._foreign(asdict(row), "zeroshot_classification", metrics))
        for line in self.retrieval:
            metrics = {name: value for name, value in line.items() if "_retrieval_recall@" in name}
            found.append(self._foreign(line, "zeroshot_retrieval", metrics))
        return found

    def _foreign(self, row: Mapping[str, Any], task: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
        weights = self.meta.get("models")
        return {
            "dataset": row["task"],
            "model": row["variant"],
            "pretrained": str(weights.get(row["variant"], "")) if isinstance(weights, Mapping) else "",
            "task": task,
            "metrics": plain(metrics),
            "language": row["language"],
        }

    def save_clip_benchmark(self, folder: Path) -> list[Path]:
        """Writes each object of ``clip_benchmark`` to a file of its own, as `clip_benchmark build FOLDER` reads them.

        Raises:
            VlkitError: The place cannot be written to.
        """
        paths = []
        for one in self.clip_benchmark():
            name = re.sub(r"[^\w.-]+", "-", f"{one['dataset']}_{one['model']}_{one['language']}_{one['task']}.json")
            write_atomic(folder / name, json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n")
            paths.append(folder / name)
        return paths

    def save(self, path: str | Path) -> Path:
        """Writes the JSON file, and the same rows as a CSV beside it; floats are rounded to 6 digits.

        Rows of retrieval, which have other fields, are under ``retrieval`` and in a CSV of their own.

        Raises:
            VlkitError: The place cannot be written to.
        """
        path = Path(path)
        content = {"meta": plain(self.meta), "results": [plain(asdict(row)) for row in self.rows]}
        if self.retrieval:
            content["retrieval"] = [plain(row) for row in self.retrieval]
            names = dict.fromkeys(name for row in self.retrieval for name in row)
            write_atomic(path.with_name(f"{path.stem}-retrieval.csv"), csv_text(list(names), self.retrieval))
        write_atomic(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
        write_atomic(path.with_suffix(".csv"), self.csv())
        return path

    def csv(self) -> str:
        """The rows as tidy CSV, one line each, header first."""
        return csv_text([field.name for field in fields(ResultRow)], [asdict(row) for row in self.rows])

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Reads what ``save`` wrote.

        Raises:
            DataError: Missing, not JSON, or not of this form.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = tuple(read_row(entry) for entry in content["results"])
            return cls(meta=content["meta"], rows=rows, retrieval=tuple(map(dict, content.get("retrieval", ()))))
        except FileNotFoundError:
            raise DataError(f"no results file {path}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a results file: {type(error).__name__}: {error}") from error

    def table(self, *, task: str | None = None) -> Table:
        """A rich table: one line a language, top-1 and top-5 in percent of every variant, and their means."""
        from rich.table import Table
        from rich.text import Text

        from vlkit import languages

        task = self._task(task)
        means = self.means(task=task)
        by_variant = {variant: self.of(variant, task=task) for variant in means}
        table = Table(title=f"{task}: top-1 % [95 % interval], top-5 %", show_footer=True)
        table.add_column("language", footer=f"mean of {max(mean.languages for mean in means.values())}")
        for variant, mean in means.items():
            table.add_column(Text(variant), footer=f"{100 * mean.acc1:.1f}", justify="right")
            table.add_column("top-5", footer=f"{100 * mean.acc5:.1f}", justify="right")
        table.add_column("chance", footer=f"{100 * fmean(mean.chance for mean in means.values()):.2f}", justify="right")
        for tag in dict.fromkeys(tag for rows in by_variant.values() for tag in rows):
            cells = [f"{tag}  {languages.get(tag).name}"]
            found = [rows[tag] for rows in by_variant.values() if tag in rows]
            best = max(row.acc1 for row in found)
            for rows in by_variant.values():
                cells += _cells(rows.get(tag), best=best)
            table.add_row(*cells, f"{100 * found[0].chance:.2f}")
        return table

    def _task(self, task: str | None) -> str:
        if not self.rows:
            raise VlkitError("these results have no rows")
        if task is None:
            if len(self.tasks) > 1:
                raise VlkitError(f"these results hold {len(self.tasks)} tasks; name one: {', '.join(self.tasks)}")
            return self.tasks[0]
        if task not in self.tasks:
            raise UnknownName("task", task, allowed=self.tasks)
        return task


def provenance(
    *,
    models: Mapping[str, str],
    seed: int,
    languages: Sequence[str],
    prompts: Mapping[str, str] | str,
    data_digest: str,
    seconds: float,
    **more: Any,
) -> dict[str, Any]:
    """What a results file must say about its making.

    Args:
        models: Variant name to digest of its weights (``identity.model_digest``).
        seed: Of the run and of the bootstrap.
        languages: BCP 47 tags evaluated.
        prompts: What stood for a class, for all or by language.
        data_digest: Of the evaluation data (``ZeroShotTask.digest``).
        seconds: Wall time of the evaluation, or of the whole run.
        more: Anything else that JSON can hold.
    """
    return {
        "vlkit": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "models": dict(models),
        "seed": seed,
        "languages": list(languages),
        "prompts": dict(prompts) if isinstance(prompts, Mapping) else prompts,
        "data_digest": data_digest,
        "seconds": round(seconds, 1),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
        **more,
    }


def csv_text(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV, header first; floats are rounded to 6 digits, NaN is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain(row) for row in rows)
    return stream.getvalue()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def read_row(entry: Mapping[str, Any]) -> ResultRow:
    """The row that a mapping of plain values, null for NaN, stands for.

    Raises:
        TypeError: A field that is missing, unknown or no number.
    """
    values: dict[str, Any] = {}
    for name, value in entry.items():
        # NaN has no place in JSON; null stands for it
        values[name] = math.nan if value is None else value
        if name not in _TEXTS and (isinstance(value, bool) or not isinstance(value, int | float | None)):
            raise TypeError(f"{name} is {value!r}, not a number")
    return ResultRow(**values)


def plain(value: Any) -> Any:
    """What JSON can hold: floats rounded to 6 digits, null for those that are not finite."""
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _cells(row: ResultRow | None, *, best: float) -> list[str]:
    if row is None:
        return ["", ""]
    accuracy = f"{100 * row.acc1:.1f}"
    shown = f"[bold]{accuracy}[/bold]" if row.acc1 == best else accuracy
    interval = f"{100 * row.ci_low:.1f}-{100 * row.ci_high:.1f}"
    return [f"{shown} [dim]\\[{interval}][/dim]", f"{100 * row.acc5:.1f}"]
