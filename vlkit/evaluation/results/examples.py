"""A few captions with the images that a model found for them, in files: they are shown on the page of a retrieval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vlkit.errors import DataError
from vlkit.files import write_atomic
from vlkit.foreign import read_json

FOLDER = "examples"


@dataclass(frozen=True)
class FoundImages:
    """One caption: ``image`` is the row of its own image in the task, ``best`` are the rows found, best first."""

    text: str
    image: int
    rank: int
    """Of its own image, from 1."""
    best: tuple[int, ...]


def write_examples(folder: Path, task: str, language: str, examples: Sequence[FoundImages]) -> None:
    """Writes the examples in one language below the folder of an evaluation."""
    content = json.dumps([asdict(one) for one in examples], ensure_ascii=False, indent=1)
    write_atomic(_path(folder, task, language), content + "\n")


def read_examples(folder: Path, task: str, language: str) -> list[FoundImages]:
    """What ``write_examples`` wrote; none where there is no such file.

    Raises:
        DataError: The file is damaged.
    """
    path = _path(folder, task, language)
    try:
        return [FoundImages(**{**one, "best": tuple(one["best"])}) for one in read_json(path, expected=list)]
    except FileNotFoundError:
        return []
    except (OSError, TypeError, KeyError) as error:
        raise DataError(f"{path} is no file of examples: {error}; evaluate again") from error


def _path(folder: Path, task: str, language: str) -> Path:
    return folder / FOLDER / task / f"{language}.json"
