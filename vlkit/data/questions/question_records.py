"""What a set of questions gives, whatever its files look like, and how readers gather it and all that is wrong."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlkit import languages
from vlkit.data.formats.images import LazyImage
from vlkit.data.formats.text_files import read_json
from vlkit.data.names.label_set import raise_all
from vlkit.errors import DataError, UnknownName
from vlkit.foreign import clean, json_kind

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = Callable[[], "Image"]
YES_NO = ("yes", "no")


@dataclass(frozen=True)
class ImageQuestion:
    """One question about no, one or several images.

    Attributes:
        key: What its set calls it; translations of one question share it.
        language: BCP 47 tag of the question.
        text: The question, or the statement that is to be judged; ``<image>`` stands where an image belongs, if at all.
        answers: All that count as right, at least one; of a closed set the one right option.
        images: Decode when called.
        options: All possible answers where these are few; else none.
        right: Place of the right one among the options; -1 where there are none.
        answer_language: BCP 47 tag that is to be answered in.
        group: Questions with the same one stand or fall together: those about one image.
        category: What kind of question it is, in the words of the set; "" where it does not say.
    """

    key: str
    language: str
    text: str
    answers: tuple[str, ...]
    images: tuple[Picture, ...] = ()
    options: tuple[str, ...] = ()
    right: int = -1
    answer_language: str = "en"
    group: str = ""
    category: str = ""


class QuestionCollector:
    """Gathers questions in the order in which they are read; what is wrong is told in one message.

    Args:
        where: The file or files, for errors.
    """

    def __init__(self, where: str | Path) -> None:
        self.where = str(where)
        self._problems: list[str] = []
        self._found: dict[tuple[str, str], ImageQuestion] = {}
        self._tags: dict[str, str | None] = {}
        self._there: dict[Path, Path | None] = {}

    def problem(self, text: str) -> None:
        """Notes what is wrong."""
        self._problems.append(text)

    def language(self, code: object, *, where: str = "") -> str | None:
        """The BCP 47 tag of a code of any system, or None (and a problem, once a code)."""
        named = str(code)
        if named not in self._tags:
            try:
                self._tags[named] = languages.normalize(named)
            except UnknownName as error:
                self._tags[named] = None
                self.problem(f"{where}: {error}" if where else str(error))
        return self._tags[named]

    def image(self, path: Path, *, where: str) -> LazyImage | None:
        """The image in a file, or None (and a problem) where it is not there.

        macOS takes accents in names of files apart, and others join them: either will do.
        """
        if path not in self._there:
            spelt = [path, *(Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))]
            # Path.is_file raises where a name is too long
            self._there[path] = next((one for one in spelt if os.path.isfile(one)), None)  # noqa: PTH113
        found = self._there[path]
        if found is None:
            self.problem(f"{where}: no image {path}")
            return None
        return LazyImage(found, str(found))

    def text(self, record: Mapping[str, Any], field: str, *, where: str) -> str | None:
        """A text of a record, cleaned; None (and a problem) for something else, or a blank one."""
        value = record.get(field)
        if not isinstance(value, str) or not clean(value).strip():
            said = "is missing" if field not in record else f"is {_shown(value)}"
            self.problem(f"{where}: {field!r} {said}, expected a text")
            return None
        return clean(value).strip()

    def texts(self, record: Mapping[str, Any], field: str, *, where: str, least: int = 1) -> tuple[str, ...] | None:
        """A list of ``least`` or more texts of a record, cleaned; None (and a problem) for something else."""
        value = record.get(field)
        good = isinstance(value, list | tuple) and all(isinstance(one, str) and clean(one).strip() for one in value)
        if not good or len(value or ()) < least:
            said = "is missing" if field not in record else f"is {_shown(value)}"
            self.problem(f"{where}: {field!r} {said}, expected a list of {least} or more texts, none of them blank")
            return None
        return tuple(clean(one).strip() for one in value or ())

    def add(self, question: ImageQuestion, *, where: str) -> None:
        """Takes a question; a second one of its key and language is a problem."""
        at = question.language, question.key
        if at in self._found:
            self.problem(f"{where}: question {question.key!r} in {question.language} for the second time")
            return
        self._found[at] = question

    def questions(self) -> tuple[ImageQuestion, ...]:
        """All of them.

        Raises:
            DataError: Problems have been noted, or there is no question.
        """
        raise_all(self._problems, where=self.where)
        if not self._found:
            raise DataError(f"{self.where}: there are no questions")
        return tuple(self._found.values())


def records_of(content: object, *, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place (``FILE: record 3``) and content of each object of a JSON list.

    Raises:
        DataError: It is no list, or something else than objects stands in it.
    """
    if not isinstance(content, list):
        raise DataError(f"{where}: expected a list, found {json_kind(type(content))}")
    for number, record in enumerate(content, start=1):
        place = f"{where}: record {number}"
        if not isinstance(record, dict):
            raise DataError(f"{place} is {json_kind(type(record))}, expected an object")
        yield place, record


def read_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """``records_of`` of a JSON file.

    Raises:
        DataError: See ``records_of`` and ``read_json``.
    """
    return records_of(read_json(path), where=str(path))


def folder_of(images: Path, *, where: str | Path) -> Path:
    """The folder of images.

    Raises:
        DataError: There is none.
    """
    if not images.is_dir():
        raise DataError(f"{images}: no such folder of images; images names the folder of those that {where} speaks of")
    return images


def joined(paths: Sequence[Path]) -> str:
    """Several files as errors call them."""
    return ", ".join(map(str, paths))


def _shown(value: object) -> str:
    shown = f"{value!r}"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
