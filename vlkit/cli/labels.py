"""`vlkit labels build omw` and `vlkit labels check FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from vlkit.cli.console import show_table, tell, write
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.data.names.label_set import LabelSet

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Class names in many languages for evaluation.")


@app.command()
def build(
    name: str = typer.Argument(metavar="NAME", help="omw: Open Multilingual Wordnet, for the ImageNet classes."),
    source: Path = typer.Option(
        ..., parser=local_path, metavar="DIR", help="Folder with its .tab files, at any depth."
    ),
    target: Path = typer.Option(
        Path("labels-omw.json"), "--out", parser=local_path, metavar="FILE", help="JSON file to write."
    ),
    lemmas: Literal["one", "all"] = typer.Option("one", help="One name a class, or all of them."),
    drop_english: bool = typer.Option(
        False, "--drop-english", help="Leave out names that are spelled as an English one."
    ),
    min_classes: int = typer.Option(10, min=1, metavar="N", help="Leave out languages that name fewer classes."),
) -> None:
    """Build a label file from free sources."""
    from vlkit.data.names.omw import build_omw
    from vlkit.errors import UnknownName

    if name != "omw":
        raise UnknownName("label source", name, allowed=("omw",))
    labels = build_omw(source, lemmas=lemmas, drop_english=drop_english, min_classes=min_classes)
    labels.save(target)
    for note in labels.notes:
        tell(note)
    counts = labels.counts.values()
    tell(
        f"{len(counts)} languages, {sum(counts):,} class names, written to {target}; "
        f"look at it with: vlkit labels check {target}"
    )


@app.command()
def check(
    path: Path = typer.Argument(
        parser=local_path, metavar="FILE", help="Babel-ImageNet's JSON, vlkit's own, or a .csv or .tsv table."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Check a label file and report, for each language, how many classes it names and what is odd about the names."""
    import json
    from dataclasses import asdict

    from vlkit.data.names.label_files import read_label_set

    labels = read_label_set(path)
    reports = labels.report(_english(labels))
    if as_json:
        found = {one.language: {**asdict(one), "n_other_script": one.n_other_script} for one in reports}
        write(json.dumps({"name": labels.name, "digest": labels.digest, "notes": labels.notes, "languages": found}))
        return
    headers = ("language", "classes", "names", "ambiguous", "as in English", "script", "other scripts")
    rows = []
    for one in reports:
        counts = map(str, (one.n_classes, one.n_names, one.n_ambiguous, one.n_english))
        rows.append((one.language, *counts, next(iter(one.scripts)).title(), str(one.n_other_script)))
    show_table(headers, rows, title=f"{labels.name}, {labels.num_classes} classes", right=headers[1:5] + headers[6:])
    for note in labels.notes:
        tell(note)


def _english(labels: LabelSet) -> dict[int, tuple[str, ...]]:
    """English names to compare with: the file's own, else WordNet's where the classes are ImageNet's."""
    from vlkit.data.names.imagenet import english_lemmas

    if "en" in labels.names and not labels.private:
        return dict(labels.names["en"])
    lemmas = english_lemmas()
    return dict(enumerate(lemmas)) if labels.num_classes == len(lemmas) else {}
