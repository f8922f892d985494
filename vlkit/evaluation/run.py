"""Runs a suite on a model: results, answers and reports in a folder, from which a stopped run goes on."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from vlkit.distributed.collectives import Ranks, shared_errors
from vlkit.evaluation.abilities import require
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.identity import UNKNOWN, model_digest
from vlkit.evaluation.embed.image_contents import image_contents
from vlkit.evaluation.report.page import write_pages
from vlkit.evaluation.results.answers import write_answers
from vlkit.evaluation.results.drawn import write_drawn
from vlkit.evaluation.results.examples import write_examples
from vlkit.evaluation.results.results_file import RESULTS, ResultRow, Results, csv_text
from vlkit.evaluation.results.written import write_written
from vlkit.evaluation.suite import Suite, claim, open_suite, read_suite
from vlkit.evaluation.tasks.task import Fact, Scored, Task
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.files import digest, write_atomic
from vlkit.models.digest import fixed_weights
from vlkit.paths import local_path
from vlkit.provenance import provenance
from vlkit.spec.evaluation import SuiteSpec


def evaluate(
    model: Any,
    suite: Suite | SuiteSpec | str | Path,
    *,
    name: str = "model",
    folder: str | Path | None = None,
    cache: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    ranks: Ranks | None = None,
    quiet: bool = False,
    watch: Callable[[Task, Scored], None] | None = None,
) -> Results:
    """Evaluates a model on every task of a suite; each image is encoded once whatever the number of languages.

    Args:
        model: What the tasks need: any image-text model or a pair of functions (``TwoCallables``) for images and texts,
            any that answers questions (``AnswersQuestions``), any that makes images (``Painter``).
        suite: A suite, or its file, or the name of a shipped one (``openmoji``).
        name: What results call the model.
        folder: Takes ``results.json``, ``results.csv``, a report for each task, the answers for each image, and what a
            stopped run goes on from; None writes nothing.
        cache: Folder for the embeddings of the images, which other evaluations of the model can use; None takes one
            inside ``folder``.
        resume: Go on with the evaluation that is in ``folder``.
        overwrite: Replace it.
        ranks: Processes that share the work between them; each gets the whole result, the first one writes.
        quiet: Show no progress.
        watch: Called by the first process with all that was found in each language that is scored.

    Raises:
        SpecError, UnknownName, DataError: Something in the suite or its files is wrong; nothing was run.
        VlkitError: The folder is taken, the model cannot do what a task needs, or an embedding that is not finite.
    """
    ranks, start = Ranks() if ranks is None else ranks, time.monotonic()
    if not isinstance(suite, Suite):
        suite = open_suite(suite if isinstance(suite, SuiteSpec) else read_suite(suite))
    for task in suite.tasks:
        require(model, task.needs, of=f"task {task.name!r}")
    place = None if folder is None else local_path(folder)
    with shared_errors(ranks):
        if place is not None and ranks.rank == 0:
            claim(place, suite.spec, resume=resume, overwrite=overwrite)
    given = Path(cache) if cache is not None else place and place / "features"
    with fixed_weights(model), _cache(model, suite, given, ranks) as kept:
        encoding = Encoding(batch_size=suite.spec.batch_size, cache=kept, ranks=ranks, quiet=quiet)
        if suite.spec.workers is not None:
            encoding = replace(encoding, workers=suite.spec.workers)
        rows, tables = _figures(model, suite, name, place=place, watch=watch, encoding=encoding)
        meta = _meta(model, suite, name, start, encoding)
    results = Results(meta, tuple(rows))
    with shared_errors(ranks):
        if place is not None and ranks.rank == 0:
            results.save(place / RESULTS)
            for file, lines in tables.items():
                write_atomic(place / file, csv_text(list(lines[0]), lines))
            titles = {task.name: task.titles for task in suite.tasks}
            samples = {task.name: task.samples for task in suite.tasks}
            write_pages(place, results, intro=suite.spec.description, titles=titles, samples=samples)
    return results


def _figures(
    model: Any,
    suite: Suite,
    name: str,
    *,
    place: Path | None,
    watch: Callable[[Task, Scored], None] | None,
    encoding: Encoding,
) -> tuple[list[ResultRow], dict[str, list[Mapping[str, Any]]]]:
    """The rows of all tasks, and their further tables by the names of their files."""
    rows, seed = list[ResultRow](), suite.spec.seed
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for task, tags in zip(suite.tasks, suite.languages, strict=True):
        rows += evaluate_task(
            model,
            task,
            languages=tags,
            variant=name,
            seed=seed,
            resume=place and place / "rows",
            keep=partial(_keep, task, place, watch),
            encoding=encoding,
        )
        for file, more in task.tables(model, tags, seed=seed, encoding=encoding).items():
            tables.setdefault(file, []).extend(more)
    return rows, tables


def _keep(task: Task, folder: Path | None, watch: Callable[[Task, Scored], None] | None, scored: Scored) -> None:
    if folder is not None and scored.answers is not None:
        write_answers(folder, task.name, scored.language, scored.answers)
    if folder is not None and scored.written:
        write_written(folder, task.name, scored.language, scored.written)
    if folder is not None and scored.examples:
        write_examples(folder, task.name, scored.language, scored.examples)
    if folder is not None and scored.drawn:
        write_drawn(folder, task.name, scored.language, scored.drawn)
    if watch is not None:
        watch(task, scored)


@contextmanager
def _cache(model: object, suite: Suite, given: Path | None, ranks: Ranks) -> Iterator[Path | None]:
    """The folder given; else, where several tasks may share images and texts, one for the time of the run."""
    if given is not None or len(suite.tasks) == 1 or model_digest(model) == UNKNOWN:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="vlkit-evaluate-") as scratch:
        yield Path(ranks.gather_objects(scratch)[0])
        ranks.barrier()  # all read it


def _meta(model: object, suite: Suite, name: str, start: float, encoding: Encoding) -> dict[str, Any]:
    languages = dict.fromkeys(tag for tags in suite.languages for tag in tags)
    facts: dict[str, dict[str, Fact]] = {"prompts": {}}
    for task, tags in zip(suite.tasks, suite.languages, strict=True):
        for kind, fact in task.facts.items():
            kept = fact if isinstance(fact, str) else {tag: fact[tag] for tag in tags if tag in fact}
            facts.setdefault(kind, {})[task.name] = kept
    return provenance(
        models={name: model_digest(model)},
        seed=suite.spec.seed,
        languages=list(languages),
        prompts={task: str(said) for task, said in facts.pop("prompts").items()},
        data_digest=digest([task.digest for task in suite.tasks]),
        seconds=time.monotonic() - start,
        images={task.name: images_digest(task, encoding) for task in suite.tasks},
        **size_of(model),
        **facts,
        **({"notes": list(suite.notes)} if suite.notes else {}),
        suite=suite.spec.model_dump(mode="json"),
        work={
            "images_encoded": encoding.counts.images,
            "texts_encoded": encoding.counts.texts,
            "texts_asked": encoding.counts.texts_asked,
            **({"answers": encoding.counts.answers} if encoding.counts.answers else {}),
            **({"drawn": encoding.counts.drawn} if encoding.counts.drawn else {}),
        },
    )


def size_of(model: object) -> dict[str, Any]:
    """Number of parameters, and the precision that most of them are stored in; nothing for what is no torch module."""
    if not isinstance(model, nn.Module):
        return {}
    sizes: Counter[str] = Counter()
    for parameter in model.parameters():
        sizes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    if not sizes:
        return {"parameters": 0}
    return {"parameters": sum(sizes.values()), "precision": sizes.most_common(1)[0][0]}


def images_digest(task: Task, encoding: Encoding) -> str:
    """Hex digest of the images and their classes: where it is the same, answers can be compared image by image."""
    return digest([image_contents(task.samples, encoding=encoding).tolist(), list(task.targets)])
