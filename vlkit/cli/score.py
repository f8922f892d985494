"""`vlkit score geneval` and `vlkit score dpg`: benchmarks of generated images, from detections and answers in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vlkit.cli.console import show_table, tell, write_json
from vlkit.cli.options import AsJson
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.evaluation.composition.language_scores import ComposedScores

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Benchmarks of generated images, from what was found on them."
)
_OUT = typer.Option(None, "--out", parser=local_path, metavar="FILE", help="Write all figures to this JSON file.")


@app.command()
def geneval(
    prompts: Path = typer.Argument(
        parser=local_path,
        metavar="PROMPTS",
        help="GenEval's evaluation_metadata.jsonl, of any language.",
    ),
    detections: list[Path] = typer.Argument(
        parser=local_path, metavar="DETECTIONS", help="JSONL: prompt, language and objects of an image a line."
    ),
    target: Path | None = _OUT,
    as_json: AsJson = False,
) -> None:
    """Score objects, counts, colors and positions (GenEval, m-GenEval), by language."""
    from vlkit.evaluation.composition.geneval import read_detections, read_geneval_prompts, score_geneval

    found = [row for path in detections for row in read_detections(path)]
    _tell(score_geneval(read_geneval_prompts(prompts), found), target, as_json=as_json)


@app.command()
def dpg(
    questions: Path = typer.Argument(parser=local_path, metavar="QUESTIONS", help="DPG-Bench's dpg_bench.csv."),
    answers: list[Path] = typer.Argument(
        parser=local_path, metavar="ANSWERS", help="JSONL: item, language and answers about an image a line."
    ),
    compat: bool = typer.Option(
        False,
        "--compat",
        help="As the published code: a question less, parents in order, categories of one image.",
    ),
    target: Path | None = _OUT,
    as_json: AsJson = False,
) -> None:
    """Score answers to questions that hang on each other (DPG-Bench, m-DPG), by language."""
    from vlkit.evaluation.composition.dpg import read_dpg_answers, read_dpg_questions, score_dpg

    said = [row for path in answers for row in read_dpg_answers(path)]
    _tell(score_dpg(read_dpg_questions(questions, compat=compat), said, compat=compat), target, as_json=as_json)


def _tell(scores: ComposedScores, target: Path | None, *, as_json: bool) -> None:
    from vlkit.evaluation.results.results_file import plain
    from vlkit.files import write_atomic

    content = plain(scores.plain())
    if target is not None:
        write_atomic(target, json.dumps(content, indent=1) + "\n")
        tell(f"written to {target}")
    if as_json:
        write_json(content)
        return
    parts = [name for name in scores.part_means if " - " not in name]  # detailed ones stand in files
    show_table(
        ("language", "score", "95 % interval", *parts),
        [
            (
                one.language,
                f"{100 * one.score:.1f}",
                f"{100 * one.interval.low:.1f} to {100 * one.interval.high:.1f}",
                *(f"{100 * one.parts[name]:.1f}" if name in one.parts else "" for name in parts),
            )
            for one in scores.languages
        ],
        title=scores.summary(),
        right=("score", "95 % interval", *parts),
    )
