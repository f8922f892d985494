"""Runs a suite on a model: results, answers and reports in a folder, from which a stopped run goes on."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from vlkit.distributed.collectives import Ranks, shared_errors
from vlkit.evaluation.embed.encode import Embedder
from vlkit.evaluation.embed.encoding import Encoding, EncodingCounts
from vlkit.evaluation.embed.identity import UNKNOWN, features_key, model_digest
from vlkit.evaluation.report.pages import write_pages
from vlkit.evaluation.results.answers import write_answers
from vlkit.evaluation.results.provenance import model_facts, task_facts
from vlkit.evaluation.results.results_file import ResultRow, Results, csv_text, provenance
from vlkit.evaluation.suite import Suite, claim, open_suite, read_suite
from vlkit.evaluation.tasks.by_template import TemplateScore, template_scores
from vlkit.evaluation.tasks.engine import evaluate_task
from vlkit.evaluation.tasks.retrieval_task import RetrievalTask, evaluate_retrieval
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask
from vlkit.files import digest, write_atomic
from vlkit.models.digest import fixed_weights
from vlkit.progress import track
from vlkit.spec.evaluation import SuiteSpec, ZeroShotSpec

RESULTS = "results.json"
TEMPLATES = "templates.csv"


def evaluate(
    model: Embedder,
    suite: Suite | SuiteSpec | str | Path,
    *,
    name: str = "model",
    folder: str | Path | None = None,
    cache: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    ranks: Ranks | None = None,
    quiet: bool = False,
) -> Results:
    """Evaluates a model on every task of a suite; each image is encoded once whatever the number of languages.

    Args:
        model: Any image-text model, or a pair of functions (``TwoCallables``).
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

    Raises:
        SpecError, UnknownName, DataError: Something in the suite or its files is wrong; nothing was run.
        VlkitError: The folder is taken, or an embedding that is not finite.
    """
    ranks, start = Ranks() if ranks is None else ranks, time.monotonic()
    if not isinstance(suite, Suite):
        suite = open_suite(suite if isinstance(suite, SuiteSpec) else read_suite(suite))
    place = None if folder is None else Path(folder)
    with shared_errors(ranks):
        if place is not None and ranks.rank == 0:
            claim(place, suite.spec, resume=resume, overwrite=overwrite)
    rows, alone = list[ResultRow](), list[TemplateScore]()
    retrieval: list[Mapping[str, Any]] = []
    given = Path(cache) if cache is not None else place and place / "features"
    with fixed_weights(model), _cache(model, suite, given, ranks) as kept:
        encoding = _encoding(suite.spec, kept, ranks, quiet)
        run = _Run(model, name, place, suite.spec.seed, encoding)
        ablated = {one.name for one in suite.spec.tasks if isinstance(one, ZeroShotSpec) and one.per_template}
        for task, tags in zip(suite.tasks, suite.languages, strict=True):
            if isinstance(task, ZeroShotTask):
                rows += run.zero_shot(task, tags)
                alone += run.by_template(task, tags) if task.name in ablated else []
            else:
                retrieval += run.retrieval(task, tags)
        meta = _meta(model, suite, name, time.monotonic() - start, encoding.counts)
    results = Results(meta, tuple(rows), tuple(retrieval))
    with shared_errors(ranks):
        if place is not None and ranks.rank == 0:
            results.save(place / RESULTS)
            if alone:
                write_atomic(place / TEMPLATES, csv_text(TemplateScore._fields, [one._asdict() for one in alone]))
            write_pages(place, results, intro=suite.spec.description, tasks=suite.tasks)
    return results


def _encoding(spec: SuiteSpec, cache: Path | None, ranks: Ranks, quiet: bool) -> Encoding:
    encoding = Encoding(batch_size=spec.batch_size, cache=cache, ranks=ranks, quiet=quiet)
    return encoding if spec.workers is None else replace(encoding, workers=spec.workers)


@contextmanager
def _cache(model: Embedder, suite: Suite, given: Path | None, ranks: Ranks) -> Iterator[Path | None]:
    """The folder given; else, where several tasks may share images and texts, one for the time of the run."""
    nameless = not isinstance(model, nn.Module) and model_digest(model) == UNKNOWN
    if given is not None or nameless or len(suite.tasks) == 1:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="vlkit-evaluate-") as scratch:
        yield Path(ranks.gather_objects(scratch)[0])
        ranks.barrier()  # all read it


@dataclass(frozen=True)
class _Run:
    """One model on its way through the tasks."""

    model: Embedder
    name: str
    folder: Path | None
    seed: int
    encoding: Encoding

    def zero_shot(self, task: ZeroShotTask, tags: tuple[str, ...]) -> list[ResultRow]:
        """One row a language; those that are in the folder already are taken from there."""
        return evaluate_task(
            self.model,
            task,
            languages=tags,
            variant=self.name,
            seed=self.seed,
            resume=None if self.folder is None else self.folder / "rows",
            keep=None if self.folder is None else partial(write_answers, self.folder, task.name),
            encoding=self.encoding,
        )

    def by_template(self, task: ZeroShotTask, tags: tuple[str, ...]) -> list[TemplateScore]:
        """Each template alone, language by language."""
        return [
            one
            for tag in tags
            for one in template_scores(self.model, task, tag, seed=self.seed, encoding=self.encoding)
        ]

    def retrieval(self, task: RetrievalTask, tags: tuple[str, ...]) -> list[dict[str, Any]]:
        """The same for retrieval."""
        if self.folder is None:
            return self._retrieve(task, tags)
        ranks, quiet = self.encoding.ranks, self.encoding.quiet or self.encoding.follows
        key = digest([features_key(self.model, task.samples), task.digest, self.name, self.seed])
        paths = {tag: self.folder / "rows" / f"{key}-{tag}.json" for tag in tags}
        known = ranks.gather_objects({tag: _read(path) for tag, path in paths.items()})[0]
        missing = [tag for tag in tags if known[tag] is None]
        for tag in track(missing, f"languages of {task.name}", unit="languages", quiet=quiet):
            known[tag] = self._retrieve(task, (tag,))[0]
            with shared_errors(ranks):
                if ranks.rank == 0:
                    write_atomic(paths[tag], json.dumps(known[tag]) + "\n")
        return [known[tag] for tag in tags]

    def _retrieve(self, task: RetrievalTask, tags: tuple[str, ...]) -> list[dict[str, Any]]:
        encoding = replace(self.encoding, quiet=True)
        rows = evaluate_retrieval(
            self.model, task, languages=tags, variant=self.name, seed=self.seed, encoding=encoding
        )
        return [row.plain() for row in rows]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # not there, or half of it: computed anew
    return found if isinstance(found, dict) else None


def _meta(model: Embedder, suite: Suite, name: str, seconds: float, counts: EncodingCounts) -> dict[str, Any]:
    languages = dict.fromkeys(tag for tags in suite.languages for tag in tags)
    return provenance(
        models={name: model_digest(model)},
        seed=suite.spec.seed,
        languages=list(languages),
        prompts={task.name: task.prompt for task in suite.tasks if isinstance(task, ZeroShotTask)},
        data_digest=digest([task.digest for task in suite.tasks]),
        seconds=seconds,
        images={task.name: images_digest(task) for task in suite.tasks},
        **model_facts(model),
        **task_facts(suite.tasks),
        suite=suite.spec.model_dump(mode="json"),
        work={
            "images_encoded": counts.images,
            "texts_encoded": counts.texts,
            "texts_asked": counts.texts_asked,
        },
    )


def images_digest(task: ZeroShotTask | RetrievalTask) -> str:
    """Hex digest of the images' keys and classes: where it is the same, answers can be compared image by image."""
    targets = list(task.targets) if isinstance(task, ZeroShotTask) else []
    return digest([[sample.key for sample in task.samples], targets])
