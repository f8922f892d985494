"""What a model answered about each image, in files: two evaluations are compared image by image.

N images that have a class in the language.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from vlkit.errors import DataError
from vlkit.files import write_atomic

_FOLDER = "answers"


class Answers(NamedTuple):
    """Rows of the task's images, their classes, the rank of the right class (from 1) and the answer, int32 each.

    ``answer_N`` are class ids; -1 where the answer is not known.
    """

    image_N: npt.NDArray[np.int32]
    class_N: npt.NDArray[np.int32]
    rank_N: npt.NDArray[np.int32]
    answer_N: npt.NDArray[np.int32]


def write_answers(folder: Path, task: str, language: str, answers: Answers) -> None:
    """Writes the answers in one language below the folder of an evaluation; no name of a class is in them."""
    stream = io.BytesIO()
    np.savez_compressed(
        stream, image=answers.image_N, target=answers.class_N, rank=answers.rank_N, answer=answers.answer_N
    )
    write_atomic(_path(folder, task, language), stream.getvalue())


def read_answers(folder: Path, task: str, language: str) -> Answers | None:
    """What ``write_answers`` wrote; None where there is no such file.

    Raises:
        DataError: The file is damaged.
    """
    path = _path(folder, task, language)
    try:
        with np.load(path, allow_pickle=False) as found:
            return Answers(found["image"], found["target"], found["rank"], found["answer"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} is no file of answers: {error}; evaluate again") from error


def _path(folder: Path, task: str, language: str) -> Path:
    return folder / _FOLDER / task / f"{language}.npz"
