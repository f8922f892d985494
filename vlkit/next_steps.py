"""What to try after the quickstart: a picture that is there, and commands that any shell takes as they are printed."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from vlkit.evaluation.report.gallery import GalleryItem
from vlkit.files import write_atomic

EXAMPLE = "example.png"


def save_example(folder: Path, gallery: Sequence[GalleryItem]) -> tuple[Path, tuple[str, ...]]:
    """The drawing that is told in the most languages, as a file, and its name in French among three others."""
    names = dict.fromkeys(item.answers["fr"].truth for item in gallery if "fr" in item.answers)
    labels = tuple(sorted([name for name in names if not set(name) & set(",|")][:4]))
    write_atomic(folder / EXAMPLE, gallery[0].png)
    return folder / EXAMPLE, labels


def next_commands(folder: Path, example: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """Lines to paste into a shell, each word quoted where bash or zsh needs it; first what makes ``vlkit`` known."""
    classify = ["vlkit", "classify", str(example), "--labels", ",".join(labels), "--language", "fr"]
    learn = ["vlkit", "train", "quickstart/multilingual", "run.folder=runs/mine", "data.languages=[en,de,fr]"]
    commands = ([*classify, "--model", str(folder / "model")], [*learn, "stages.0.steps=400"])
    first = activation()
    return (*((first,) if first else ()), *map(shlex.join, commands))


def activation() -> str | None:
    """The line after which a shell knows the command ``vlkit`` of this environment; None where it does already."""
    programs = Path(sys.executable).parent
    known = shutil.which("vlkit")
    if known and Path(known).parent.resolve() == programs.resolve():
        return None
    here = programs.relative_to(Path.cwd()) if programs.is_relative_to(Path.cwd()) else programs
    if (programs / "activate").is_file():
        return shlex.join(["source", str(here / "activate")])
    return f'export PATH={shlex.quote(str(programs))}:"$PATH"'
