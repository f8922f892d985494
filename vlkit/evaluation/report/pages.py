"""All that an evaluation writes to be looked at: a page a task, Markdown, and the scores of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vlkit.evaluation.report.markdown import results_markdown
from vlkit.evaluation.report.page import write_report
from vlkit.evaluation.results.class_scores import ClassTable
from vlkit.evaluation.results.results_file import Results
from vlkit.files import write_atomic

MARKDOWN, CLASSES = "results.md", "results-classes.csv"


def write_pages(
    folder: Path, results: Results, *, intro: str = "", titles: Mapping[str, Sequence[str]] | None = None
) -> list[Path]:
    """Writes ``report.html`` (``report-TASK.html`` where there are several), ``results.md``, ``results-classes.csv``.

    Scores of classes come from the answers in the folder, so that a run that was stopped and gone on with has them all.

    Args:
        folder: Of an evaluation of one model.
        results: What was found.
        intro: A sentence or two for the head of each page.
        titles: By task what its classes may be called.

    Returns:
        The pages.

    Raises:
        DataError: A file of answers is damaged.
        VlkitError: The place cannot be written to.
    """
    classes = {task: found for task in results.tasks if (found := _classes(folder, results, task, titles or {}))}
    if classes:
        tables = [table.csv() for table in classes.values()]
        write_atomic(folder / CLASSES, tables[0] + "".join(text.split("\n", 1)[1] for text in tables[1:]))
    write_atomic(folder / MARKDOWN, results_markdown(results, classes=classes.values()))
    names = results.tasks
    return [
        write_report(
            folder / ("report.html" if len(names) == 1 else f"report-{name}.html"),
            results=results.only(name),
            classes=classes.get(name),
            title=name,
            intro=intro,
        )
        for name in names
    ]


def _classes(folder: Path, results: Results, task: str, titles: Mapping[str, Sequence[str]]) -> ClassTable | None:
    if len(results.variants) != 1:
        return None  # answers are of one model
    rows = results.of(results.variants[0], task=task)
    return ClassTable.read(folder, task, rows, variant=results.variants[0], titles=titles.get(task, ()))
