"""What a model said about each image, in words, in files: to be read, shown on pages, and compared image by image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vlkit.data.formats.text_files import read_objects
from vlkit.errors import DataError
from vlkit.files import write_atomic

FOLDER = "written"


@dataclass(frozen=True)
class WrittenAnswer:
    """One answer.

    Attributes:
        image: Row of the image in the task.
        key: What its data set calls it.
        concept: A number that images of one thing share.
        references: What would have been right; empty where that may not be passed on.
        answer: What was said.
        figures: How good it is, by the names of the columns of a row; all in 0..1.
        question: What was asked about this image, where that is not the same for all.
    """

    image: int
    key: str
    concept: int
    references: tuple[str, ...]
    answer: str
    figures: Mapping[str, float]
    question: str = ""


def write_written(folder: Path, task: str, language: str, answers: Sequence[WrittenAnswer]) -> None:
    """Writes the answers in one language below the folder of an evaluation, one JSON object a line."""
    lines = (json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in answers)
    write_atomic(_path(folder, task, language), "".join(lines))


def read_written(folder: Path, task: str, language: str) -> list[WrittenAnswer] | None:
    """What ``write_written`` wrote; None where there is no such file.

    Raises:
        DataError: The file is damaged.
    """
    path = _path(folder, task, language)
    if not path.is_file():
        return None
    try:
        return [WrittenAnswer(**{**one, "references": tuple(one["references"])}) for _, one in read_objects(path)]
    except (TypeError, KeyError) as error:
        raise DataError(f"{path} is no file of answers in words: {error}; evaluate again") from error


def _path(folder: Path, task: str, language: str) -> Path:
    return folder / FOLDER / task / f"{language}.jsonl"
