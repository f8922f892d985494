"""Questions with options to choose from: CVQA, Kaleidoscope, M3Exam, xMMMU, read into one form."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vlkit.data.formats.images import StoredImage
from vlkit.data.formats.parquet import ParquetRows, read_columns, read_rows
from vlkit.data.questions.question_files import files_by_language, files_of
from vlkit.data.questions.question_records import (
    ImageQuestion,
    Picture,
    QuestionCollector,
    folder_of,
    joined,
    read_records,
)
from vlkit.types import IMAGE_MARK

_MMMU_IMAGE = re.compile(r"<image (\d)>")
_EXAM_IMAGE = re.compile(
    r"\(?\s*(?:image|图片|รูปภาพ)?\s*\)?\s*\[(image-[\w.-]+\.(?:jpg|jpeg|png|gif))\]", re.IGNORECASE
)
_EXAM_OPTION = re.compile(r"\s*\(?\s*([A-Za-zก-ฮ๑-๕]|\d{1,2})\s*[).:、．。]\s*")
_THAI_DIGITS = str.maketrans("๑๒๓๔๕", "12345")
_NO_LABEL = -1  # of a test set whose answers are kept back


def read_cvqa(path: str, *, questions: Literal["native", "english"]) -> tuple[ImageQuestion, ...]:
    """CVQA: parquet rows of ``image``, ``ID``, ``Subset``, ``Question``, ``Options``, ``Label`` and their translations.

    ``Subset`` is a language and a country, as Python writes a tuple; together they are a group of answers to compare,
    and the country goes into the category. Questions and options of several countries in one language are one language.

    Raises:
        MissingPackage: pyarrow is not installed.
        DataError: Files that are missing or wrong, or a test set without its answers.
    """
    files = files_of(path, ["data/test-*.parquet", "test-*.parquet", "*.parquet"])
    found = QuestionCollector(joined(files))
    prefix = "Translated " if questions == "english" else ""
    names = ("ID", "Subset", f"{prefix}Question", f"{prefix}Options", "Label", "Category")
    for file in files:
        rows = read_rows(file, images=["image"], columns=[[name] for name in names])
        for number, cell in enumerate(rows.cells):
            where = f"{file}: row {number}"
            record = {name: rows.columns[name][number] for name in names}
            language, country = _subset(record["Subset"])
            tag = "en" if questions == "english" else found.language(language, where=where)
            record["Options"] = _listed(record[f"{prefix}Options"])
            options = found.texts(record, "Options", where=where, least=2)
            text, key = (found.text(record, name, where=where) for name in (f"{prefix}Question", "ID"))
            if record["Label"] == _NO_LABEL:
                found.problem(f"{where}: 'Label' is -1: the answers of this file are kept back; get one that has them")
                continue
            image = StoredImage(cell, where, file)
            if tag and text and key and options:
                category = f"{country}: {record['Category']}" if country else str(record["Category"])
                question = ImageQuestion(key, tag, text, (), (image,), options, group=key.rpartition("_")[0] or key,
                                         answer_language=tag, category=category)  # fmt: skip
                _add(found, question, record["Label"], where=where)
    return found.questions()


def read_kaleidoscope(path: str, images: Path | None, *, with_images_only: bool) -> tuple[ImageQuestion, ...]:
    """Kaleidoscope: ``{"language", "question", "options", "answer": 0, "image_png", "category_en", ...}``.

    JSON files hold a list of them, parquet files a row each, in which ``image`` may be a path. The category is the
    subject in English.

    Raises:
        MissingPackage: pyarrow is not installed, and the files are parquet files.
        DataError: Files that are missing or wrong, or images that are not there.
    """
    files = files_of(path, ["*/*.json", "*.json", "data/*.parquet", "*.parquet"])
    found = QuestionCollector(joined(files))
    if images is not None:
        folder_of(images, where=path)
    names = ("language", "question", "options", "answer", "image_png", "image", "category_en")
    for file in files:
        parquet = file.suffix.lower() == ".parquet"
        for number, (where, record) in enumerate(read_columns(file, names) if parquet else read_records(file)):
            name = str(record.get("image") or record.get("image_png") or "")
            if not name and with_images_only:
                continue
            image = _exam_image(found, record, file, images, where=where) if name else None
            if name and image is None:
                continue
            tag = found.language(record.get("language"), where=where)
            text, options = (
                found.text(record, "question", where=where),
                found.texts(record, "options", where=where, least=2),
            )
            if tag and text and options:
                shown: tuple[Picture, ...] = (image,) if image else ()
                key = f"{file.parent.name}/{file.stem}-{number}"
                question = ImageQuestion(key, tag, text, (), shown, options, group=name or key, answer_language=tag,
                                         category=str(record.get("category_en") or ""))  # fmt: skip
                _add(found, question, record.get("answer"), where=where)
    return found.questions()


def read_m3exam(path: str) -> tuple[ImageQuestion, ...]:
    """M3Exam: ``[{"question_text", "background_description": [], "options": ["(1) ..."], "answer_text": "2"}, ...]``.

    Images are named where they stand, ``[image-12.jpg]``, in the background, the question and the options, and lie in
    ``images-LANGUAGE`` beside the file. Numbers or letters before the options are taken off: the right one is found by
    them. The category is ``subject_category``.

    Raises:
        DataError: Files that are missing or wrong, images that are not there, or an answer that is none of the options.
    """
    names = ["multimodal-question/{language}-questions-image.json", "{language}-questions-image.json"]
    found = QuestionCollector(path)
    for code, (file, *_) in files_by_language(path, names).items():
        tag = found.language(code, where=str(file))
        folder = file.parent / f"images-{code}"
        for number, (where, record) in enumerate(read_records(file)):
            given = found.texts(record, "options", where=where, least=2)
            text, answer = (found.text(record, field, where=where) for field in ("question_text", "answer_text"))
            if given is None or text is None or answer is None or tag is None:
                continue
            background = record.get("background_description") or []
            parts = [str(one).strip() for one in (background if isinstance(background, list) else [background])]
            named: list[str] = []
            text = _marked("\n".join([*parts, text]), named)
            marks = [_mark(one) for one in given]
            options = tuple(
                _marked(one[len(mark[0]) :], named).strip() or mark[1] for one, mark in zip(given, marks, strict=True)
            )
            wanted = _mark(answer)[1] or answer.strip().translate(_THAI_DIGITS)
            right = [place for place, mark in enumerate(marks) if mark[1].casefold() == wanted.casefold()]
            pictures = [found.image(folder / name, where=where) for name in named]
            if len(right) != 1:
                found.problem(
                    f"{where}: 'answer_text' is {answer!r}, which is {len(right)} of the options {list(given)}"
                )
            elif all(pictures):
                shown = tuple(picture for picture in pictures if picture)
                category = str(record.get("subject_category") or "")
                key = f"{code}-{number}"
                question = ImageQuestion(key, tag, text, (), shown, options, group=named[0] if named else key,
                                         answer_language=tag, category=category)  # fmt: skip
                _add(found, question, right[0], where=where)
    return found.questions()


def read_xmmmu(path: str) -> tuple[ImageQuestion, ...]:
    """xMMMU: parquet rows of ``id``, ``question``, ``options``, ``answer``, ``image_1`` to ``image_7``.

    Images stand where question and options name them (``<image 1>``); of open questions there are no options, and the
    answer is a text. The category is ``subfield``.

    Raises:
        MissingPackage: pyarrow is not installed.
        DataError: Files that are missing or wrong.
    """
    found = QuestionCollector(path)
    names = ("id", "question", "options", "answer", "subfield")
    for code, files in files_by_language(path, ["data/{language}-*.parquet", "{language}-*.parquet"]).items():
        tag = found.language(code, where=path)
        for file in files:
            first, *others = _image_columns(file, names)
            for number in range(len(first.cells)):
                where = f"{file}: row {number}"
                record = {name: first.columns[name][number] for name in names}
                text, key, answer = (found.text(record, name, where=where) for name in ("question", "id", "answer"))
                if not (tag and text and key and answer):
                    continue
                options = _listed(record["options"]) or []
                order: list[int] = []
                text = _placed(text, order)
                options = [_placed(str(one), order) for one in options]
                every = [first, *others]
                if any(not 1 <= place <= len(every) for place in order):
                    found.problem(f"{where}: names image {max(order)}, and there are columns of {len(every)}")
                    continue
                cells = [every[place - 1].cells[number] for place in order or [1]]
                shown = tuple(StoredImage(cell, f"{where}, {cell.column}", file) for cell in cells)
                question = ImageQuestion(key, tag, text, (), shown, tuple(options), group=key, answer_language=tag,
                                         category=str(record["subfield"] or ""))  # fmt: skip
                if options:
                    _add(found, question, ord(answer.strip()[:1].upper()) - ord("A"), where=where)
                else:
                    found.add(replace(question, answers=_answers(answer)), where=where)
    return found.questions()


def _add(found: QuestionCollector, question: ImageQuestion, right: object, *, where: str) -> None:
    """Takes a question whose right option stands at a place that a file says."""
    count = len(question.options)
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < count:
        found.problem(f"{where}: the right option is {right!r}, and there are {count} (0 to {count - 1})")
        return
    found.add(replace(question, right=right, answers=(question.options[right],)), where=where)


def _subset(value: object) -> tuple[str, str]:
    """Language and country of CVQA's ``('Indonesian', 'Indonesia')``."""
    found = _literal(value)
    if isinstance(found, tuple) and len(found) == 2:
        return str(found[0]).replace("_", " "), str(found[1])
    return str(value), ""


def _listed(value: object) -> list[Any] | None:
    """A list, or a text that Python wrote one as."""
    found = value if isinstance(value, list | tuple) else _literal(value)
    return list(found) if isinstance(found, list | tuple) else None


def _literal(value: object) -> object:
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _answers(answer: str) -> tuple[str, ...]:
    listed = _listed(answer) if answer.startswith("[") else None
    return tuple(str(one) for one in listed) if listed else (answer,)


def _exam_image(
    found: QuestionCollector, record: Mapping[str, Any], file: Path, images: Path | None, *, where: str
) -> Picture | None:
    if images is not None:
        return found.image(images / str(record.get("image") or record.get("image_png")), where=where)
    if name := record.get("image_png"):
        return found.image(file.parent / "images" / str(name), where=where)
    return found.image(file.parent / str(record["image"]), where=where)


def _mark(text: str) -> tuple[str, str]:
    """What stands before an option, ``(1) ``, and the number or letter in it; empty without one."""
    fits = _EXAM_OPTION.match(text)
    return (fits[0], fits[1].translate(_THAI_DIGITS)) if fits else ("", "")


def _marked(text: str, named: list[str]) -> str:
    """A text of M3Exam with ``<image>`` where it names one; the names are added to ``named``."""
    named += _EXAM_IMAGE.findall(text)
    return _EXAM_IMAGE.sub(IMAGE_MARK, text).strip()


def _placed(text: str, order: list[int]) -> str:
    """A text of xMMMU with ``<image>`` where it names one; the numbers are added to ``order``."""
    order += [int(number) for number in _MMMU_IMAGE.findall(text)]
    return _MMMU_IMAGE.sub(IMAGE_MARK, text)


def _image_columns(file: Path, names: Sequence[str]) -> list[ParquetRows]:
    """The rows of a file by its columns of images, the first with the other columns beside it."""
    columns = [[name] for name in names]
    first = read_rows(file, images=["image_1"], columns=columns)
    last = next((n for n in range(1, 8) if f"image_{n + 1}" not in first.there), 7)
    return [first, *(read_rows(file, images=[f"image_{number}"], columns=[]) for number in range(2, last + 1))]
