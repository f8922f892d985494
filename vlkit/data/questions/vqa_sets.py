"""Questions that words answer: xGQA, MaXM, MTVQA, SMPQA."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlkit.data.formats.images import StoredImage
from vlkit.data.formats.parquet import read_rows
from vlkit.data.formats.text_files import read_object
from vlkit.data.questions.question_files import LANGUAGE, files_by_language, files_of
from vlkit.data.questions.question_records import (
    YES_NO,
    ImageQuestion,
    QuestionCollector,
    folder_of,
    joined,
    read_records,
    records_of,
)
from vlkit.errors import DataError

SHORT_ANSWER = "Answer the question using a single word or phrase."
"""What the questions of SMPQA's files end with; it is a part of the prompt and not of the question."""
_MTVQA_CODES = {"KR": "ko", "KO": "ko"}  # not Kanuri


def read_xgqa(path: str, images: Path) -> tuple[ImageQuestion, ...]:
    """xGQA: ``{"202158849": {"question", "answer", "imageId", "types": {"structural"}, ...}, ...}``, a file a language.

    The answer is English. The category is how GQA's question is built: verify, query, choose, logical, compare.

    Raises:
        DataError: Files that are missing or wrong, or images that are not there.
    """
    files = files_by_language(path, ["testdev_balanced_questions_{language}.json", "{language}/test.json"])
    found = QuestionCollector(path)
    folder_of(images, where=path)
    for code, (file, *_) in files.items():
        tag = found.language(code, where=str(file))
        for key, record in read_object(file).items():
            where = f"{file}: question {key}"
            if not isinstance(record, dict):
                found.problem(f"{where}: expected an object")
                continue
            text, answer = found.text(record, "question", where=where), found.text(record, "answer", where=where)
            name = found.text(record, "imageId", where=where)
            image = None if name is None else found.image(images / f"{name}.jpg", where=where)
            types = record.get("types")
            category = str(types.get("structural", "")) if isinstance(types, Mapping) else ""
            if tag and text and answer and image and name:
                question = ImageQuestion(key, tag, text, (answer,), (image,), group=name, category=category)
                found.add(question, where=where)
    return found.questions()


def read_maxm(path: str, images: Path) -> tuple[ImageQuestion, ...]:
    """MaXM: ``{"annotations": [{"image_id", "qa_pairs": [{"question_id", "question", "processed_answers"}]}]}``.

    Each of the ``processed_answers`` is right. The category is ``collection`` where several things are asked for.

    Raises:
        DataError: Files that are missing or wrong, or images that are not there.
    """
    found = QuestionCollector(path)
    folder_of(images, where=path)
    for code, (file, *_) in files_by_language(path, ["maxm_v1_{language}.json"]).items():
        tag = found.language(code, where=str(file))
        for where, record in records_of(read_object(file).get("annotations"), where=f"{file}: annotations"):
            name = found.text(record, "image_id", where=where)
            image = None if name is None else found.image(images / f"{name}.jpg", where=where)
            for place, pair in records_of(record.get("qa_pairs"), where=f"{where}, qa_pairs"):
                key, text = (found.text(pair, field, where=place) for field in ("question_id", "question"))
                answers = found.texts(pair, "processed_answers", where=place)
                if tag and key and text and answers and image and name:
                    category = "collection" if pair.get("is_collection") in (True, "true") else "single"
                    right = tuple(dict.fromkeys(answers))
                    question = ImageQuestion(
                        key, tag, text, right, (image,), answer_language=tag, group=name, category=category
                    )
                    found.add(question, where=place)
    return found.questions()


def read_mtvqa(path: str) -> tuple[ImageQuestion, ...]:
    """MTVQA: parquet rows of ``image``, ``id``, ``lang`` and ``qa_pairs``, a list of questions and answers as text.

    Raises:
        MissingPackage: pyarrow is not installed.
        DataError: Files that are missing or wrong.
    """
    files = files_of(path, ["data/test-*.parquet", "test-*.parquet", "*.parquet"])
    found = QuestionCollector(joined(files))
    for file in files:
        rows = read_rows(file, images=["image"], columns=[["id"], ["qa_pairs"], ["lang"]])
        columns = (rows.columns[name] for name in ("id", "qa_pairs", "lang"))
        for number, (cell, key, pairs, code) in enumerate(zip(rows.cells, *columns, strict=True)):
            where = f"{file}: row {number}"
            tag = found.language(_MTVQA_CODES.get(str(code), str(code)), where=where)
            image = StoredImage(cell, where, file)
            for place, pair in enumerate(_pairs(pairs, where=where)):
                here = f"{where}, question {place + 1}"
                text, answer = found.text(pair, "question", where=here), found.text(pair, "answer", where=here)
                if tag and text and answer:
                    name = f"{key}-{place}"
                    question = ImageQuestion(name, tag, text, (answer,), (image,), answer_language=tag, group=str(key))
                    found.add(question, where=here)
    return found.questions()


def read_smpqa(path: str, images: Path) -> tuple[ImageQuestion, ...]:
    """SMPQA as Centurio's evaluation reads it: ``[{"context": [question], "text_label", "image_id"}, ...]``.

    ``LANGUAGE_ground.json`` has questions to be answered by yes or no, ``LANGUAGE_name.json`` such to be answered by a
    word that stands in the plot. An instruction at the end of a question is taken off: prompts have their own.

    Raises:
        DataError: Files that are missing or wrong, or images that are not there.
    """
    found = QuestionCollector(path)
    folder_of(images, where=path)
    for category in ("ground", "name"):
        for code, (file, *_) in _of_category(path, category).items():
            tag = found.language(code, where=str(file))
            for number, (where, record) in enumerate(read_records(file)):
                text, answer = _context(found, record, where), found.text(record, "text_label", where=where)
                name = found.text(record, "image_id", where=where)
                image = None if name is None else found.image(images / name, where=where)
                closed = YES_NO if category == "ground" else ()
                if closed and answer and answer.lower() not in closed:
                    found.problem(f"{where}: 'text_label' is {answer!r}, expected yes or no")
                elif tag and text and answer and image and name:
                    answer = answer.lower() if closed else answer
                    found.add(
                        ImageQuestion(
                            f"{category}-{number}", tag, text, (answer,), (image,), closed,
                            closed.index(answer) if closed else -1, "en" if closed else tag, name, category,
                        ),
                        where=where,
                    )  # fmt: skip
    return found.questions()


def _of_category(path: str, category: str) -> dict[str, list[Path]]:
    """The files of one category, where a pattern names those of either."""
    given = Path(path)
    name = re.sub("_(ground|name)", f"_{category}", given.name) if LANGUAGE in given.name else given.name
    return files_by_language(str(given.with_name(name)), [f"{LANGUAGE}_{category}.json"])


def _context(found: QuestionCollector, record: Mapping[str, Any], where: str) -> str | None:
    """The question of a record of Centurio's form, a text or a list of one."""
    given = record.get("context")
    one = given[0] if isinstance(given, list) and len(given) == 1 else given
    text = found.text({"context": one}, "context", where=where)
    return text.removesuffix(SHORT_ANSWER).strip() if text else None


def _pairs(text: object, *, where: str) -> Sequence[Mapping[str, Any]]:
    """Questions and answers of MTVQA, which stand in its files as Python writes a list of dicts; JSON is such too.

    Raises:
        DataError: It is something else.
    """
    try:
        found = ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise DataError(f"{where}: 'qa_pairs' is {str(text)[:60]!r}, expected a list of questions and answers")
    return found
