"""A few images that a model made of its prompts, in files: they are shown on the page of a task, and can be opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vlkit.errors import DataError
from vlkit.files import write_atomic
from vlkit.foreign import read_json

FOLDER = "drawn"


@dataclass(frozen=True)
class DrawnImage:
    """One image.

    Attributes:
        title: What the prompt says, in a language that is the same for all.
        text: The prompt.
        image: Row of the real image in the task; -1 for none.
        rank: Of what was asked for, among all that the judge could see in it, from 1.
        png: The encoded image.
    """

    title: str
    text: str
    image: int
    rank: int
    png: bytes


def write_drawn(folder: Path, task: str, language: str, drawn: Sequence[DrawnImage]) -> None:
    """Writes the images in one language below the folder of an evaluation, in their order."""
    place = folder / FOLDER / task / language
    for number, one in enumerate(drawn):
        write_atomic(place / f"{number}.png", one.png)
    listed = [{key: value for key, value in asdict(one).items() if key != "png"} for one in drawn]
    write_atomic(place / "drawn.json", json.dumps(listed, ensure_ascii=False, indent=1) + "\n")


def read_drawn(folder: Path, task: str, language: str) -> list[DrawnImage]:
    """What ``write_drawn`` wrote; none where there is no such file.

    Raises:
        DataError: The files are damaged.
    """
    place = folder / FOLDER / task / language
    path = place / "drawn.json"
    if not path.is_file():
        return []
    try:
        listed = read_json(path, expected=list)
        return [DrawnImage(**one, png=(place / f"{number}.png").read_bytes()) for number, one in enumerate(listed)]
    except (OSError, TypeError) as error:
        raise DataError(f"{path} is no file of drawn images: {error}; evaluate again") from error
