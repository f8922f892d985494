"""The main job in one call: train two variants on real data, evaluate them on unseen concepts, report."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlkit.data.sources.open import open_sources
from vlkit.errors import Stopped, VlkitError
from vlkit.evaluation.report.gallery import make_gallery
from vlkit.evaluation.report.markdown import results_markdown
from vlkit.evaluation.report.page import CLASSES, MARKDOWN, Credit, write_report
from vlkit.evaluation.results.class_scores import ClassTable, language_classes
from vlkit.evaluation.results.results_file import RESULTS, Results
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import Suite, read_suite
from vlkit.evaluation.tasks.engine import LanguageScores, TaskScores
from vlkit.evaluation.tasks.task import Scored, Task
from vlkit.evaluation.tasks.zero_shot_task import openmoji_unseen
from vlkit.files import write_atomic
from vlkit.models.card_text import CardFacts
from vlkit.models.digest import fixed_weights
from vlkit.models.dual_encoder.card import render_card
from vlkit.models.dual_encoder.frozen import remembering
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load, save
from vlkit.next_steps import next_commands, save_example
from vlkit.outputs import locked
from vlkit.parts.assets import ASSETS
from vlkit.spec.load import dump_yaml, load_recipe
from vlkit.spec.recipe import Recipe
from vlkit.training.loop import Show, train
from vlkit.training.run_folder import Run, run_folder, was_begun

MAIN, BASELINE = "multilingual", "english_only"
_BEST = 5  # answers to each image that the gallery may show
_USED = ("tf_efficientnet_lite0.in1k", "intfloat/multilingual-e5-small", "openmoji")
_NAMES = Credit(
    "Emoji names in 14 languages (Unicode CLDR, by the package emoji)", "Unicode-3.0", "https://cldr.unicode.org"
)
_LIMITS = (
    "Trained on some 1,100 concepts in one drawing style; of photos it knows the 1000 classes of ImageNet-1k.",
    "Both encoders are small and frozen; rare languages of the text encoder are untested.",
)


@dataclass(frozen=True)
class Quickstart:
    """What the job left behind."""

    folder: Path
    results: Results
    seconds: float
    commands: tuple[str, ...]
    """What to try next, as lines for a shell."""


def quickstart(
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    show: Show | None = None,
    say: Callable[[str], None] | None = None,
) -> Quickstart:
    """Trains, evaluates and reports; features that earlier runs computed are used again.

    Writes ``model/`` (the multilingual one), ``metrics.jsonl``, ``results.json``, ``results.csv``, ``results.md``,
    ``results-classes.csv``, ``report.html`` and ``example.png`` (a drawing to try) into ``folder``, and the run of the
    English-only variant into a folder in it.

    Args:
        folder: A new place, or that of an earlier quickstart.
        resume: Go on with the one that is there, stopped or not; even where ``overwrite`` is asked for as well.
        overwrite: Replace it.
        show: Takes the table of what trains at the start of each stage.
        say: Takes a line at the start of each part.

    Raises:
        VlkitError: A part or the data cannot be had, or the place cannot be written to or holds something else.
    """
    tell = say or (lambda line: None)
    try:
        with locked(folder):
            return _quickstart(folder, resume=resume, overwrite=overwrite, show=show, tell=tell)
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        raise Stopped(f"stopped; {folder} keeps what was done, go on with --resume", number=number) from None


def _quickstart(
    folder: Path, *, resume: bool, overwrite: bool, show: Show | None, tell: Callable[[str], None]
) -> Quickstart:
    start = time.monotonic()
    places = {MAIN: folder, BASELINE: folder / BASELINE}
    recipes = {
        name: load_recipe(f"quickstart/{name}", [f"run.folder={json.dumps(str(place))}"])
        for name, place in places.items()
    }
    begun = _begun(recipes, resume=resume, overwrite=overwrite)
    runs: dict[str, Run] = {}
    for name, recipe in recipes.items():
        tell(f"training {name}")
        replaced = begun[name] and _is_older(recipe, recipes[MAIN])
        goes_on = resume and begun[name] and not replaced
        runs[name] = train(recipe, resume=goes_on, overwrite=overwrite or replaced, show=show)
    tell("evaluating on concepts never seen in training")
    found, seen = {}, dict[str, TaskScores]()
    for name, run in runs.items():
        found[name], seen[name] = _evaluate(run, recipes[name], name=name)
    results = _joined(found, recipe=recipes[MAIN], seconds=time.monotonic() - start)
    results.save(folder / RESULTS)
    classes = _classes(seen[MAIN])
    write_atomic(folder / MARKDOWN, results_markdown(results, classes=[classes]))
    write_atomic(folder / CLASSES, classes.csv())
    _write_card(runs[MAIN], recipes[MAIN], results)
    commands = _report(folder, results, seen[MAIN], recipes=recipes, runs=runs)
    return Quickstart(folder, results, time.monotonic() - start, commands)


def _begun(recipes: Mapping[str, Recipe], *, resume: bool, overwrite: bool) -> dict[str, bool]:
    """Which of the runs have been begun; refuses what is there unasked, before anything is trained.

    Raises:
        VlkitError: A quickstart is there already, or files of another's.
    """
    begun = {name: was_begun(recipe) for name, recipe in recipes.items()}
    folder = run_folder(recipes[MAIN])
    if not any(begun.values()):
        for name in (RESULTS, "results.csv", MARKDOWN, CLASSES, "report.html"):
            if (folder / name).exists():
                raise VlkitError(
                    f"{folder} holds {name}, which no quickstart wrote and this one would replace; choose another "
                    f"place with --out"
                )
    elif not resume and not overwrite:
        raise VlkitError(
            f"{folder} holds a run already; go on with it with --resume, replace it with --overwrite, or choose "
            f"another place with --out"
        )
    return begun


def _is_older(recipe: Recipe, main: Recipe) -> bool:
    """Whether a run was begun before the main one, which comes first: it is of a quickstart that was being replaced."""
    begun, main_begun = (Run(run_folder(one)).recipe_path.stat().st_mtime_ns for one in (recipe, main))
    return begun < main_begun


def _evaluate(run: Run, recipe: Recipe, *, name: str) -> tuple[Results, TaskScores]:
    """The suite ``openmoji`` on the run's own data, and all answers for the gallery."""
    task = replace(openmoji_unseen(open_sources(recipe.data, split="test")), best=_BEST)
    spec = read_suite("openmoji", [f"seed={recipe.seed}"])
    answers: dict[str, LanguageScores] = {}

    def watch(_: Task, scored: Scored) -> None:
        answers[scored.language] = scored.detail

    model = load(run.model_path, expect=DualEncoder)
    with fixed_weights(model), remembering(model):
        suite = Suite(spec, (task,), (task.choose(None),))
        results = evaluate(model, suite, name=name, watch=watch)
    return results, TaskScores(task, {tag: answers[tag] for tag in results.of(name)})


def _joined(found: Mapping[str, Results], *, recipe: Recipe, seconds: float) -> Results:
    """The rows of both models with the origin of both."""
    digests = {name: digest for one in found.values() for name, digest in one.meta["models"].items()}
    settings = recipe.model_dump(mode="json", exclude={"run"})
    meta = {**found[MAIN].meta, "models": digests, "seconds": round(seconds, 1), "recipe": settings}
    return Results(meta, tuple(row for one in found.values() for row in one.rows))


def _write_card(run: Run, recipe: Recipe, results: Results) -> None:
    mean = results.mean(MAIN)
    facts = CardFacts(
        title="vlkit quickstart",
        summary=recipe.description,
        languages=tuple(results.of(MAIN)),
        data=("OpenMoji drawings (CC BY-SA 4.0) with Unicode CLDR short names (Unicode-3.0)",),
        scores={
            f"openmoji-unseen, mean top-1 of {len(results.of(MAIN))} languages": mean["acc1"],
            f"openmoji-unseen, mean top-5 of {len(results.of(MAIN))} languages": mean["acc5"],
        },
        limits=_LIMITS,
    )
    model = load(run.model_path, expect=DualEncoder)
    save(model, run.model_path, card=render_card(model, facts))


def _classes(scores: TaskScores) -> ClassTable:
    found = {
        tag: language_classes(one.answers(), tag, titles=scores.task.titles) for tag, one in scores.languages.items()
    }
    return ClassTable(scores.task.name, MAIN, found, scores.task.titles)


def _report(
    folder: Path, results: Results, scores: TaskScores, *, recipes: dict[str, Recipe], runs: dict[str, Run]
) -> tuple[str, ...]:
    gallery = make_gallery(scores)
    commands = next_commands(folder, *save_example(folder, gallery))
    credits = [Credit(asset.name, asset.license, asset.source) for asset in ASSETS if asset.name in _USED]
    write_report(
        folder / "report.html",
        results=results,
        classes=_classes(scores),
        gallery=gallery,
        gallery_variant=MAIN,
        metrics={name: run.metrics_path for name, run in runs.items()},
        recipe_yaml=dump_yaml(recipes[MAIN]),
        attribution=[*credits, _NAMES],
        title="Drawings named in 14 languages",
        intro=(
            "Zero-shot: each drawing shows a concept that neither variant saw in training, in any of its forms, and is "
            f"to be told apart from {len(scores.task.samples) - 1} others by name. Both variants are the same "
            "model; one learned from English names alone."
        ),
        commands=commands,
    )
    return commands
