"""Any task in many languages: one row a language, and what was scored before is not scored again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from vlkit.distributed.collectives import shared_errors
from vlkit.evaluation.abilities import require
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.image_contents import picture_contents
from vlkit.evaluation.results.results_file import ResultRow, read_row
from vlkit.evaluation.tasks.task import Scored, Task
from vlkit.files import digest, write_atomic


def evaluate_task(
    model: Any,
    task: Task,
    *,
    languages: Iterable[str] | None = None,
    variant: str = "model",
    seed: int = 0,
    resume: Path | None = None,
    keep: Callable[[Scored], None] | None = None,
    encoding: Encoding | None = None,
) -> list[ResultRow]:
    """One result row for each of the languages (None: all of the task), where the model is called ``variant``.

    ``resume`` is a folder for one file a language, written as soon as its score is known: a language whose file is of
    the same model, task, images and seed is not scored again. ``keep`` is called by the first process with what was
    found in each language that is scored, before its row is kept.

    Raises:
        UnknownName: A language that is none, or that the task does not have.
        VlkitError: A model that cannot do what the task needs, an embedding that is not finite, or a language that the
            model's tokenizer has no mark for.
    """
    require(model, task.needs, of=f"task {task.name!r}")
    encoding, tags = Encoding() if encoding is None else encoding, task.choose(languages)
    ranks, basis = encoding.ranks, task.compared_with(tags)
    files: dict[str, Path] = {}
    if resume is not None:
        pictures = [image for sample in task.samples for image in sample.images]
        contents = picture_contents(pictures, encoding=encoding).tolist()
        of_model = ranks.gather_objects(None if encoding.follows else task.needs.key(model))[0]
        key = digest([of_model, contents, task.digest, variant, seed, basis])
        files = {tag: resume / f"{key}-{tag}.json" for tag in tags}
    found = dict(ranks.gather_objects(_known(files, task))[0])
    missing = [tag for tag in tags if tag not in found]
    if missing and basis and basis not in missing:
        missing = [basis, *missing]
    for scored in task.score(model, missing, seed=seed, encoding=encoding) if missing else ():
        row = ResultRow(task.name, variant, scored.language, scored.values, task.measures)
        found[scored.language] = row
        with shared_errors(ranks):
            if keep is not None and ranks.rank == 0:
                keep(scored)
            if files and ranks.rank == 0:
                plain = {name: None if value != value else value for name, value in row.flat().items()}  # NaN
                write_atomic(files[row.language], json.dumps(plain) + "\n")
    return [found[tag] for tag in tags]


def _known(files: Mapping[str, Path], task: Task) -> dict[str, ResultRow]:
    """Rows that are there already, one file each."""
    found = {}
    for tag, path in files.items():
        try:
            found[tag] = read_row(json.loads(path.read_text(encoding="utf-8")), {task.name: task.measures})
        except (OSError, ValueError, AttributeError, TypeError, KeyError):
            continue  # not there, or half of it: scored anew
    return found
