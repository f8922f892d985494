"""Any task in many languages: one row a language, and what was scored before is not scored again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from vlkit.distributed.collectives import shared_errors
from vlkit.evaluation.embed.callables import TwoCallables
from vlkit.evaluation.embed.encode import Embedder
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.identity import images_key, texts_key
from vlkit.evaluation.embed.image_contents import image_contents
from vlkit.evaluation.results.results_file import ResultRow, read_row
from vlkit.evaluation.tasks.task import Scored, Task
from vlkit.files import digest, write_atomic
from vlkit.types import ImageTextModel


def evaluate_task(
    model: Embedder,
    task: Task,
    *,
    languages: Iterable[str] | None = None,
    variant: str = "model",
    seed: int = 0,
    resume: Path | None = None,
    keep: Callable[[Scored], None] | None = None,
    encoding: Encoding | None = None,
) -> list[ResultRow]:
    """One result row a language.

    Args:
        model: Any image-text model, or a pair of functions.
        task: What is evaluated.
        languages: BCP 47 tags or other codes; None takes all of the task.
        variant: What results call the model.
        seed: Of the bootstrap.
        resume: Folder for one file a language, written as soon as its score is known. A language whose file is of the
            same model, task, images and seed is not scored again.
        keep: Called by the first process with what was found in each language that is scored, before its row is kept.
        encoding: Batches, caches, processes.

    Raises:
        UnknownName: A language that is none, or that the task does not have.
        VlkitError: An embedding that is not finite, or a language that the model's tokenizer has no mark for.
    """
    encoding, tags = Encoding() if encoding is None else encoding, task.choose(languages)
    ranks, basis = encoding.ranks, task.compared_with(tags)
    store = None if resume is None else _Rows(resume, model, task, settings=[variant, seed, basis], encoding=encoding)
    found = dict(ranks.gather_objects({} if store is None else store.read(tags))[0])
    missing = [tag for tag in tags if tag not in found]
    if missing and basis and basis not in missing:
        missing = [basis, *missing]
    for scored in task.score(model, missing, seed=seed, encoding=encoding) if missing else ():
        row = ResultRow(task.name, variant, scored.language, scored.values, task.measures)
        found[scored.language] = row
        with shared_errors(ranks):
            if keep is not None and ranks.rank == 0:
                keep(scored)
            if store is not None and ranks.rank == 0:
                store.write(row)
    return [found[tag] for tag in tags]


class _Rows:
    """Rows that are known already, one file each."""

    def __init__(
        self, folder: Path, model: Embedder, task: Task, *, settings: list[object], encoding: Encoding
    ) -> None:
        self.folder, self.measures = folder, {task.name: task.measures}
        contents = image_contents(task.samples, encoding=encoding).tolist()
        texts = texts_key(model) if isinstance(model, ImageTextModel | TwoCallables) else ""
        self.key = digest([images_key(model), texts, contents, task.digest, *settings])

    def read(self, tags: Iterable[str]) -> dict[str, ResultRow]:
        found = {}
        for tag in tags:
            try:
                found[tag] = read_row(json.loads(self._path(tag).read_text(encoding="utf-8")), self.measures)
            except (OSError, ValueError, AttributeError, TypeError, KeyError):
                continue  # not there, or half of it: scored anew
        return found

    def write(self, row: ResultRow) -> None:
        plain = {name: None if value != value else value for name, value in row.flat().items()}  # NaN is not JSON
        write_atomic(self._path(row.language), json.dumps(plain) + "\n")

    def _path(self, tag: str) -> Path:
        return self.folder / f"{self.key}-{tag}.json"
