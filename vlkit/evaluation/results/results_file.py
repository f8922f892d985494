"""Results of evaluations: rows of figures with the provenance that makes them worth something, and their file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias, overload

from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.results.frames import data_frame
from vlkit.evaluation.results.measures import Measures, Metric
from vlkit.evaluation.results.notebook_table import results_html
from vlkit.files import write_atomic
from vlkit.foreign import spreadsheet_cell
from vlkit.paths import local_path

RESULTS = "results.json"
FORMAT = 1  # of the file; results of vlkit 0.3 have none
_DIGITS = 6
Value: TypeAlias = str | float


@dataclass(frozen=True)
class ResultRow:
    """One model on one task in one language.

    Attributes:
        task: Its name.
        variant: The model's name.
        language: BCP 47.
        values: Settings (texts), counts and figures by the names of their columns, in their order; NaN for figures that
            are not known. Shares are in 0..1.
        measures: Which of them are figures, and which one leads.
    """

    task: str
    variant: str
    language: str
    values: Mapping[str, Value]
    measures: Measures = field(repr=False)

    def __iter__(self) -> Iterator[str]:
        """The names of its columns."""
        return iter(self.flat())

    def __getitem__(self, name: str) -> float:
        """A count or figure; NaN where the row does not have it."""
        value = self.values.get(name, math.nan)
        if isinstance(value, str):
            raise KeyError(f"{name} is a text, {value!r}")
        return value

    def text(self, name: str) -> str:
        """A setting; "" where the row does not have it."""
        return str(self.values.get(name, ""))

    def metric(self, name: str) -> Metric:
        """A figure with its interval."""
        measure = self.measures.metrics[name]
        return Metric(self[name], self[measure.low], self[measure.high])

    @property
    def metrics(self) -> dict[str, Metric]:
        """All figures with their intervals."""
        return {name: self.metric(name) for name in self.measures.metrics if name in self.values}

    @property
    def headline(self) -> Metric:
        """The figure that leads."""
        return self.metric(self.measures.headline)

    def flat(self) -> dict[str, Value]:
        """One level of columns, as in files."""
        return {"task": self.task, "variant": self.variant, "language": self.language, **self.values}


@dataclass(frozen=True)
class Mean:
    """Unweighted mean of one variant's rows over its languages, and the row whose headline is lowest."""

    metrics: Mapping[str, float]
    lowest: ResultRow
    languages: int

    def __getitem__(self, name: str) -> float:
        """The mean of a figure; NaN where the rows do not have it."""
        return self.metrics.get(name, math.nan)


@dataclass(frozen=True)
class Results:
    """Rows of any tasks and where they come from (see ``provenance``); iterating and indexing give the rows."""

    meta: Mapping[str, Any]
    rows: tuple[ResultRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ResultRow]:
        return iter(self.rows)

    @overload
    def __getitem__(self, which: int) -> ResultRow: ...

    @overload
    def __getitem__(self, which: slice) -> Results: ...

    def __getitem__(self, which: int | slice) -> ResultRow | Results:
        """One row by its number, or the results of several by a slice."""
        return replace(self, rows=self.rows[which]) if isinstance(which, slice) else self.rows[which]

    def __repr__(self) -> str:
        return (
            f"Results({len(self)} rows; tasks: {', '.join(self.tasks)}; models: {', '.join(self.variants)}; "
            f"{len(self.languages)} languages)"
        )

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` of one row a task, model and language; shares are in 0..1, what a row lacks is NaN.

        Raises:
            MissingPackage: pandas is not installed.
        """
        return data_frame([row.flat() for row in self])

    def _repr_html_(self) -> str:
        """The leading figure of each task by language, the models side by side, for notebooks."""
        return results_html(self)

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
            {name: fmean(row[name] for row in rows) for name in rows[0].measures.metrics},
            lowest=min(rows, key=lambda row: row.headline.value),
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
        """The rows of one task."""
        return replace(self, rows=tuple(row for row in self.rows if row.task == task))

    def measures(self, task: str) -> Measures:
        """What the rows of a task hold."""
        return next(row.measures for row in self.rows if row.task == task)

    def save(self, path: str | Path) -> Path:
        """Writes the JSON file and the same rows as CSV beside it; floats are rounded to 6 digits.

        Rows of kinds that have a table of their own (``Measures.table``) are in a CSV of its name.

        Raises:
            VlkitError: The place cannot be written to.
        """
        path = local_path(path)
        content = {
            "format": FORMAT,
            "meta": plain(self.meta),
            "tasks": {task: self.measures(task).plain() for task in self.tasks},
            "results": [plain(row.flat()) for row in self.rows],
        }
        write_atomic(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
        for table in dict.fromkeys(row.measures.table for row in self.rows):
            rows = [row.flat() for row in self.rows if row.measures.table == table]
            names = dict.fromkeys(name for row in rows for name in row)
            write_atomic(path.with_name(f"{path.stem}-{table}.csv" if table else f"{path.stem}.csv"),
                         csv_text(list(names), rows))  # fmt: skip
        return path

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Reads what ``save`` wrote.

        Raises:
            DataError: Missing, not JSON, not of this form, or of another version.
        """
        path = local_path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            entries = content["results"]
            if content.get("format") != FORMAT:
                raise DataError(f"{path} is a results file of another version of vlkit (0.3 or older): evaluate again")
            measures = {task: Measures.read(one) for task, one in content["tasks"].items()}
            return cls(content["meta"], tuple(read_row(entry, measures) for entry in entries))
        except FileNotFoundError:
            raise DataError(f"no results file {path}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path} is not a results file: {type(error).__name__}: {error}") from error

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


def csv_text(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV, header first; floats are rounded to 6 digits, NaN is empty, no text is a formula.

    ``foreign.from_spreadsheet_cell`` gives texts back as they were.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    for row in map(plain, rows):
        writer.writerow({name: spreadsheet_cell(one) if isinstance(one, str) else one for name, one in row.items()})
    return stream.getvalue()


def read_row(entry: Mapping[str, Any], measures: Mapping[str, Measures]) -> ResultRow:
    """The row that a mapping of plain values, null for NaN, stands for.

    Args:
        entry: What ``ResultRow.flat`` gave.
        measures: By task.

    Raises:
        TypeError: A field that is missing, or a figure that is no number.
        KeyError: A task whose figures are not told.
    """
    names = ("task", "variant", "language")
    if missing := [name for name in names if name not in entry]:
        raise TypeError(f"{', '.join(missing)} missing")
    task, variant, language = (str(entry[name]) for name in names)
    # NaN has no place in JSON; null stands for it
    values = {name: math.nan if value is None else value for name, value in entry.items() if name not in names}
    for name, value in values.items():
        figure = name in measures[task].metrics
        if isinstance(value, bool) or not isinstance(value, int | float if figure else int | float | str):
            raise TypeError(f"{name} is {value!r}, not a number")
    return ResultRow(task, variant, language, values, measures[task])


def plain(value: Any) -> Any:
    """What JSON can hold: floats rounded to 6 digits, null for those that are not finite."""
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value if value is None or isinstance(value, bool | int | str) else str(value)
