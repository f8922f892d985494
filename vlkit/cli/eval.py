"""`vlkit eval MODEL SUITE`: a model on a suite of tasks, in many languages."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from vlkit.cli.console import listed, out, say, show_table, tell
from vlkit.cli.loading import loader
from vlkit.cli.options import Device, Model, complete_suites
from vlkit.distributed.launch import launched
from vlkit.errors import VlkitError
from vlkit.obstacles import Obstacles
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.evaluation.results.results_file import Results
    from vlkit.evaluation.suite import Suite
    from vlkit.spec.evaluation import SuiteSpec

_DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check the suite, find its images and texts, show its languages; load no model."),
]
_MOST = 40  # languages that a terminal shows


def evaluate(
    model: Model,
    suite: str = typer.Argument(
        metavar="SUITE",
        help="A YAML file, or the name of a shipped suite (see: vlkit list suites).",
        autocompletion=complete_suites,
    ),
    overrides: list[str] = typer.Argument(
        None, metavar="KEY=VALUE", help="Values laid over the suite, e.g. languages=[en,de,sw]"
    ),
    folder: Path | None = typer.Option(
        None, "--out", parser=local_path, metavar="DIR", help="Folder for the results; default: runs/eval/SUITE-NAME."
    ),
    name: str = typer.Option(
        "", metavar="NAME", help="What results call the model; default: after MODEL. With --also one each, with commas."
    ),
    also: list[str] = typer.Option(
        None, "--also", metavar="MODEL", help="Evaluate this model, too, and compare it with MODEL; may stand often."
    ),
    dry_run: _DryRun = False,
    resume: bool = typer.Option(False, "--resume", help="Go on with the evaluation that is in the folder."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the evaluation that is in the folder."),
    cache: Path | None = typer.Option(
        None,
        parser=local_path,
        metavar="DIR",
        help="Folder for image embeddings, to be shared by evaluations; default: in --out.",
    ),
    device: Device = "auto",
    parity: Literal["babel-imagenet"] | None = typer.Option(
        None, help="Take the settings of a published evaluation, and show how far the scores are from its figures."
    ),
    dump_classnames: bool = typer.Option(
        False, "--dump-classnames", help="Also write classnames.json; refused for names that may not be passed on."
    ),
    own_use: bool = typer.Option(
        False, "--own-use", help="With --dump-classnames: write those names too, for a file that you keep to yourself."
    ),
    clip_benchmark: bool = typer.Option(
        False, "--clip-benchmark", help="Also write one file a row in clip_benchmark/, as CLIP_benchmark does."
    ),
) -> None:
    """Evaluate a model on a suite; on several GPUs: torchrun --nproc-per-node 8 -m vlkit eval MODEL SUITE."""
    leads = launched().leads
    claims: Any = {"resume": resume, "overwrite": overwrite}
    with _told_once(leads):
        entrants = _entrants([model, *(also or ())], name, folder, suite=suite)
        read = _read(suite, overrides or (), parity or "")
        opened = _open(read, entrants, claims, names=dump_classnames, own_use=own_use)
    if dry_run:
        _show_plan(opened, [one.place for one in entrants], leads=leads)
        return
    extras = Extras(dump_classnames, own_use, clip_benchmark, bool(parity))
    _run(entrants, opened, extras, device=device, cache=cache, claims=claims, leads=leads)


class Entrant(NamedTuple):
    """A model that is evaluated: where it is, what results call it, and the folder of its results."""

    model: str
    name: str
    place: Path


class Extras(NamedTuple):
    """What is written and shown of each model beside its results."""

    classnames: bool
    own_use: bool
    clip_benchmark: bool
    parity: bool


def _run(
    entrants: list[Entrant],
    opened: Suite,
    extras: Extras,
    *,
    device: Device,
    cache: Path | None,
    claims: dict[str, bool],
    leads: bool,
) -> None:
    """Evaluates one model after the other, and compares the first one with the others."""
    with loader(device=device) as (ready, runtime):
        from vlkit.evaluation.run import evaluate as run

        for one in entrants:
            settings: Any = {"ranks": runtime.ranks, "folder": one.place, "cache": cache, **claims}
            results = run(ready(one.model), opened, name=one.name, **settings)
            if not leads:
                continue
            if extras.classnames:
                _write_names(opened, one.place, own_use=extras.own_use)
            if extras.clip_benchmark:
                _write_clip_benchmark(results, one.place)
            _show(results, one.place)
            if extras.parity:
                _show_parity(results, opened, one.model)
    if leads:
        _compare(entrants)


def _entrants(models: list[str], names: str, folder: Path | None, *, suite: str) -> list[Entrant]:
    """One model in ``folder`` itself, several below it; by default each in runs/eval/SUITE-NAME.

    Raises:
        VlkitError: Other numbers of names and of models, or two models of one name.
    """
    several = len(models) > 1
    called = listed(names) if several and names else [names] if names else [model_name(one) for one in models]
    if len(called) != len(models):
        raise VlkitError(
            f"--name gives {len(called)} names ({', '.join(called)}) for {len(models)} models ({', '.join(models)}); "
            f"give one each, with commas between"
        )
    if twice := [one for one in called if called.count(one) > 1]:
        raise VlkitError(
            f"two models are called {twice[0]!r} in results; give --name with a name for each, such as mine,{twice[0]}"
        )
    default = Path("runs/eval")
    places = [default / f"{Path(suite).stem}-{one}" if folder is None else folder / one for one in called]
    if folder is not None and not several:
        places = [folder]
    return [Entrant(*found) for found in zip(models, called, places, strict=True)]


def _compare(entrants: list[Entrant]) -> None:
    """The first model beside each other one; the files are with the results of that one."""
    from vlkit.cli.compare import show_comparison

    first, *others = entrants
    for other in others:
        show_comparison(first.place, other.place, folder=other.place / "compared" / first.name)


def model_name(model: str) -> str:
    """A short name for a model folder or hub name that is fit for files: ``runs/quickstart/model`` is quickstart."""
    parts = [part for part in re.split(r"[/:]", model.rstrip("/")) if part not in ("", ".", "..", "~")]
    if len(parts) > 1 and parts[-1] == "model":
        parts.pop()
    if model.startswith("open_clip:"):
        parts = ["-".join(parts[1:])]
    return re.sub(r"[^\w.-]+", "-", parts[-1]) if parts else "model"


@contextmanager
def _told_once(leads: bool) -> Iterator[None]:
    """What is wrong is said by the first process; the others leave without a word."""
    try:
        yield
    except VlkitError:
        if leads:
            raise
        raise typer.Exit(2) from None


def _read(suite: str, overrides: list[str] | tuple[()], parity: str) -> SuiteSpec:
    from vlkit.evaluation.compare.parity import with_parity
    from vlkit.evaluation.suite import read_suite

    read = read_suite(suite, overrides)
    return with_parity(read, parity) if parity else read


def _open(spec: SuiteSpec, entrants: list[Entrant], claims: dict[str, bool], *, names: bool, own_use: bool) -> Suite:
    """The suite, with all that stands in the way of the command told at once, before a model is loaded."""
    from vlkit.evaluation.suite import check_free, open_suite
    from vlkit.evaluation.tasks.class_names import check_class_names
    from vlkit.models.locate import locate

    obstacles = Obstacles()
    with obstacles.met():
        if own_use and not names:
            raise VlkitError("--own-use says what --dump-classnames may write; give both or none")
    for one in entrants:
        with obstacles.met():
            if not one.model.startswith(("hf:", "hf-hub:")):  # those are downloaded to be found
                locate(one.model)
        with obstacles.met():
            check_free(one.place, spec, **claims)
    with obstacles.met():
        opened = open_suite(spec)
        if names:
            check_class_names(opened.tasks, own_use=own_use)
    obstacles.refuse()
    return opened


def _show_plan(suite: Suite, folders: list[Path], *, leads: bool) -> None:
    if not leads:
        return
    rows = [
        (task.name, f"{len(task.samples):,}", str(len(tags)), ", ".join(tags))
        for task, tags in zip(suite.tasks, suite.languages, strict=True)
    ]
    show_table(("task", "images", "languages", "which"), rows, right=("images", "languages"))
    say(f"\nthe results would be in {', '.join(map(str, folders))}")
    out().print("\ndry run: nothing was evaluated and nothing was written", style="dim")


def _write_names(suite: Suite, folder: Path, *, own_use: bool) -> None:
    from vlkit.evaluation.tasks.class_names import write_class_names

    path, notices = write_class_names(folder, suite.tasks, own_use=own_use)
    for notice in notices:
        tell(f"license of the names in {path}: {notice}")


def _write_clip_benchmark(results: Results, folder: Path) -> None:
    from vlkit.evaluation.results.clip_benchmark import save_clip_benchmark

    save_clip_benchmark(results, folder / "clip_benchmark")


def _show_parity(results: Results, suite: Suite, model: str) -> None:
    from vlkit.evaluation.compare.parity import babel_tasks, differences, published_name

    short = published_name(model)
    if short is None:
        tell(f"no figures of {model} were published; see eval/reference/babel_imagenet.yaml")
        return
    for task in babel_tasks(suite.spec):
        found = differences(results, short, task=task)
        within = sum(one.within for one in found)
        show_table(
            ("language", "top-1 %", "published", "difference", "allowed"),
            [
                (
                    one.language,
                    f"{100 * one.ours:.1f}",
                    f"{100 * one.published:.1f}",
                    f"{100 * (one.ours - one.published):+.2f}",
                    f"{100 * one.allowed:.1f}",
                )
                for one in found
            ],
            title=f"{task} beside the published figures of {short}: {within} of {len(found)} languages agree",
            right=("top-1 %", "published", "difference", "allowed"),
        )
        if others := [one.language for one in found if not one.same_classes]:
            tell(f"note: published with other numbers of classes, not to be compared: {', '.join(others)}")


def _show(results: Results, folder: Path) -> None:
    from vlkit.evaluation.results.terminal_table import task_table

    console = out(width=None if sys.stdout.isatty() else 200)
    for task in results.tasks:
        console.print(task_table(results, task=task, most=_MOST))
    if any(sum(row.task == task for row in results) > _MOST for task in results.tasks):
        tell(f"all languages are in {folder / 'results.csv'}")
    pages = ", ".join(str(page) for page in sorted(folder.glob("report*.html")))
    tell(f"written to {folder / 'results.json'}; look at {pages}")
