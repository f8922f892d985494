"""mteb's tasks on any image-text model, chosen by name and by language."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from vlkit import languages as language_table
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.mteb.mteb_model import MtebModel, require_mteb, subset_language, subset_languages
from vlkit.parts.assets import hub
from vlkit.paths import local_path
from vlkit.progress import track
from vlkit.types import ImageTextModel

_MODALITIES = frozenset(("text", "image"))
_DIGITS = 6  # as in mteb's files: a score read back is the same


@dataclass(frozen=True)
class MtebRow:
    """The scores of a model on one subset of a task, as mteb computes them and calls them.

    Attributes:
        type: Kind of the task, e.g. ``Any2AnyMultilingualRetrieval``.
        language: BCP 47 tag of the subset; None where it has several or is known to have none.
        score: The task's main ``metric``: a share or a correlation, in -1..1; None where mteb gives none.
        metrics: All numbers that mteb gives, rounded to 6 digits.
    """

    task: str
    type: str
    subset: str
    language: str | None
    split: str
    metric: str
    score: float | None
    metrics: Mapping[str, float]


def evaluate_mteb(
    model: ImageTextModel,
    tasks: Sequence[Any],
    *,
    name: str = "model",
    languages: Iterable[str] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    encoding: Encoding | None = None,
) -> tuple[MtebRow, ...]:
    """One row a task, split and subset: runs a model on tasks of mteb, which reads the data and computes the scores.

    Where the hub cannot be reached or may not be asked, the data of all tasks is read from the local cache before
    anything is evaluated.

    Args:
        model: Any image-text model; its weights must be those of a torch module if there is a ``folder``.
        tasks: Names of mteb's tasks or benchmarks, or its task objects, which are not changed.
        name: What mteb's result files call the model.
        languages: A subset is run if all its languages are among them. None runs all.
        folder: For mteb's result files, ``results/MODEL/REVISION/TASK.json``; several models may share it.
        resume: Run only what the folder lacks.
        overwrite: Run all and replace what is in the folder.
        encoding: Images or texts a forward pass (mteb knows one number: that of texts), and whether to show progress;
            None takes 32.

    Raises:
        MissingPackage: mteb is not installed.
        UnknownName: No such task, benchmark or language.
        DataError: A data set that cannot be had, one line each.
        VlkitError: A task without texts or images of these languages or with other inputs, a language that no task has,
            or results that are there already.
    """
    require_mteb()
    encoding = Encoding(text_batch_size=32) if encoding is None else encoding
    chosen = choose_tasks(tasks, languages)
    wrapped = MtebModel(model, name)
    cache, finished = None, set()
    if folder is not None:
        cache = _results(local_path(folder), wrapped)
        finished = {task.metadata.name for task in chosen if not overwrite and _finished(cache, wrapped, task, resume)}
    settings = {
        "cache": cache,
        "overwrite_strategy": "always" if overwrite else "only-missing",
        "encode_kwargs": {"batch_size": encoding.text_batch_size, "show_progress_bar": not encoding.quiet},
    }
    rows: list[MtebRow] = []
    with _hub_or_cache() as barred:
        missing = [task for task in chosen if task.metadata.name not in finished]
        if barred:
            _load(missing, barred)
        for task in track(chosen, "mteb tasks", unit="tasks", quiet=encoding.quiet):
            if task in missing:
                _load([task], barred)
            rows += _run(wrapped, task, settings)
    return tuple(rows)


def _run(wrapped: MtebModel, task: Any, settings: Mapping[str, Any]) -> list[MtebRow]:
    import mteb

    result = mteb.evaluate(wrapped, task, co2_tracker=False, show_progress_bar=False, **settings)
    for leaf in _leaves(task):
        if leaf.data_loaded:
            leaf.unload_data()
    return [row for found in result.task_results for row in _rows(task, found)]


def choose_tasks(tasks: Sequence[Any], languages: Iterable[str] | None = None) -> list[Any]:
    """The task objects of mteb with these names, and of each the subsets that are of no other language than these.

    A task that was named must have such a subset; those of a benchmark that have none are left out.

    Raises:
        UnknownName: No such task, benchmark or language.
        VlkitError: Nothing is left, a task has inputs other than text and images, or a language that no task has.
    """
    if isinstance(tasks, str) or not tasks:
        raise VlkitError(f"tasks = {tasks!r}: give a list of names of mteb's tasks or benchmarks")
    wanted = None if languages is None else {language_table.normalize(code) for code in languages}
    chosen: dict[str, Any] = {}
    for given in tasks:
        found, named = _find(given)
        for task in found:
            if not set(task.metadata.modalities) <= _MODALITIES:
                raise VlkitError(
                    f"task {task.metadata.name} has inputs of {', '.join(task.metadata.modalities)}; an image-text "
                    f"model takes text and images alone"
                )
            subsets = [
                one for one in task.hf_subsets if wanted is None or subset_languages(task.metadata, one) <= wanted
            ]
            if subsets:
                task = copy.copy(task)
                task.hf_subsets = subsets
                chosen[task.metadata.name] = task
            elif named:
                has = sorted(set().union(*(subset_languages(task.metadata, subset) for subset in task.hf_subsets)))
                raise VlkitError(
                    f"task {task.metadata.name} has no subset whose languages are all among {_listed(wanted)}; it has: "
                    f"{_listed(has)}"
                )
    had = set().union(*(subset_languages(task.metadata, each) for task in chosen.values() for each in task.hf_subsets))
    if wanted is not None and (lacking := wanted - had):
        raise VlkitError(
            f"no task has a subset for {_listed(lacking)} with no other language than {_listed(wanted)}; leave it out "
            f"of languages"
        )
    return list(chosen.values())


def _find(given: Any) -> tuple[list[Any], bool]:
    """The tasks of a name, and whether it names a task and no benchmark."""
    import mteb

    if not isinstance(given, str):
        return [given], True
    try:
        return [mteb.get_task(given)], True
    except KeyError:
        pass
    try:
        return list(mteb.get_benchmark(given).tasks), False
    except KeyError:
        every = mteb.get_tasks(modalities=["image"], exclude_superseded=False)
        names = [task.metadata.name for task in every] + [benchmark.name for benchmark in mteb.get_benchmarks()]
        raise UnknownName("mteb task or benchmark", given, allowed=names) from None


def _listed(tags: Iterable[str] | None) -> str:
    return ", ".join(sorted(tags or ())) or "no known language"


def _leaves(task: Any) -> list[Any]:
    """The tasks that have data: the parts of an aggregate, else the task itself."""
    return [leaf for part in task.metadata.tasks for leaf in _leaves(part)] if task.is_aggregate else [task]


@contextmanager
def _hub_or_cache() -> Iterator[str | None]:
    """Lets data sets be fetched where the hub answers, else read from the cache alone; yields why it is not asked."""
    import datasets
    from huggingface_hub import constants

    forbidden = hub.offline()
    unreachable = None if forbidden else hub.unreachable(hub.endpoint())
    barred = f"{forbidden} is set" if forbidden else unreachable and f"{hub.endpoint()}: {unreachable}"
    switches = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    places = (constants, datasets.config)
    before = [(one, name, getattr(one, name)) for one in places for name in switches if hasattr(one, name)]
    try:
        for place, name, value in before:
            setattr(place, name, bool(barred) or value)
        yield barred or None
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def _load(tasks: Iterable[Any], barred: str | None) -> None:
    """Reads the data of all tasks.

    Raises:
        DataError: One line for each data set that cannot be had, and what to do.
    """
    problems = []
    for leaf in (leaf for task in tasks for leaf in _leaves(task)):
        try:
            leaf.load_data()
        except Exception as error:  # whatever the readers of data sets and the hub's client raise: the reason is told
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            problems.append((leaf.metadata.name, f"{leaf.metadata.dataset.get('path')}: {reason}", error))
    if not problems:
        return
    asked = f" (the hub was not asked: {barred})" if barred else ""
    lines = [f"task {name} needs the data set {problem}" for name, problem, _ in problems]
    raise DataError(
        "\n".join(lines) + f"\nThe data cannot be had{asked}. Where the hub can be reached, run: "
        f"python -c \"import mteb; mteb.get_task('{problems[0][0]}').load_data()\"; to run it elsewhere, copy "
        f"the folders datasets and hub of ~/.cache/huggingface (or $HF_HOME) there"
    ) from problems[0][2]


def _results(folder: Path, wrapped: MtebModel) -> Any:
    from mteb.cache import ResultCache

    if wrapped.mteb_model_meta.revision is None:
        raise VlkitError(
            f"results of a {type(wrapped.model).__name__} cannot be kept: only of a torch.nn.Module are the weights "
            f"known; leave folder out"
        )
    if folder.exists() and not folder.is_dir():
        raise VlkitError(f"{folder} is a file; --out takes a folder")
    return ResultCache(folder)


def _finished(cache: Any, wrapped: MtebModel, task: Any, resume: bool) -> bool:
    """Whether the folder has all results of a task, so that its data is not needed."""
    found = cache.load_task_result(task.metadata.name, wrapped.mteb_model_meta)
    if found is not None and not resume:
        raise VlkitError(
            f"{cache.cache_path} holds results of {wrapped.mteb_model_meta.name} on {task.metadata.name}; --resume "
            f"runs what is missing, --overwrite replaces them"
        )
    return found is not None and not found.get_missing_evaluations(task)


def _rows(task: Any, result: Any) -> Iterator[MtebRow]:
    meta = task.metadata
    for split, scores in result.scores.items():
        by_subset = {score["hf_subset"]: score for score in scores}
        for subset in task.hf_subsets:  # the file may hold others, of an earlier run with other languages
            score = by_subset[subset]
            numbers = {key: round(float(value), _DIGITS) for key, value in score.items() if _is_number(value)}
            yield MtebRow(
                task=meta.name,
                type=meta.type,
                subset=subset,
                language=subset_language(meta, subset),
                split=split,
                metric=meta.main_score,
                score=numbers.get("main_score"),
                metrics={key: value for key, value in numbers.items() if key != "main_score"},
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
