"""Statements about one or several images, which are true or not: XVNLI, MaRVL, M5-VGR, and M5-VLOD's odd one out."""

from __future__ import annotations

from pathlib import Path

from vlkit.data.formats.images import LazyImage, read_span
from vlkit.data.formats.tars import Span, sample_key, tar_members
from vlkit.data.formats.text_files import read_objects
from vlkit.data.questions.question_files import files_by_language
from vlkit.data.questions.question_records import YES_NO, ImageQuestion, QuestionCollector, folder_of
from vlkit.data.sources.shards import expand
from vlkit.errors import DataError
from vlkit.foreign import check_size, clean

ENTAILMENT = ("yes", "no", "maybe")
LETTERS = ("A", "B", "C", "D", "E")
_JUDGED = {"entailment": "yes", "contradiction": "no", "neutral": "maybe"}
_NO_LABEL = "-"  # of SNLI: annotators do not agree; left out, as mBLIP and IGLUE do
_M5_CODES = {"ber": "zgh"}  # a family of languages; M5's is written in Tifinagh


def read_xvnli(path: str, images: Path) -> tuple[ImageQuestion, ...]:
    """XVNLI: a JSON line a statement, ``{"gold_label", "sentence2", "pairID", "Flikr30kID"}``.

    Entailment is answered by yes, contradiction by no, what is neutral by maybe, as mBLIP does; statements whose
    annotators do not agree (``-``) are left out.

    Raises:
        DataError: Files that are missing or wrong, or images that are not there.
    """
    found = QuestionCollector(path)
    folder_of(images, where=path)
    for code, (file, *_) in files_by_language(path, ["{language}/test.jsonl"]).items():
        tag = found.language(code, where=str(file))
        for where, record in read_objects(file):
            label = found.text(record, "gold_label", where=where)
            if label is None or label == _NO_LABEL:
                continue
            if label not in _JUDGED:
                known = ", ".join((*_JUDGED, _NO_LABEL))
                found.problem(f"{where}: 'gold_label' is {label!r}, expected one of {known}")
                continue
            text, key = found.text(record, "sentence2", where=where), found.text(record, "pairID", where=where)
            name = found.text(record, "Flikr30kID", where=where)
            file_name = f"{(name or '').removesuffix('.jpg')}.jpg"
            image = found.image(images / file_name, where=where) if name else None
            if tag and text and key and name and image:
                right = ENTAILMENT.index(_JUDGED[label])
                question = ImageQuestion(
                    key, tag, text, (ENTAILMENT[right],), (image,), ENTAILMENT, right, group=file_name, category=label
                )
                found.add(question, where=where)
    return found.questions()


def read_marvl(path: str, images: Path) -> tuple[ImageQuestion, ...]:
    """MaRVL: a JSON line a statement, ``{"id", "concept", "caption", "left_img", "right_img", "label", "chapter"}``.

    The images of a concept occur in several pairs, so that all questions about it are one group.

    Raises:
        DataError: Files that are missing or wrong, or images that are not there.
    """
    found = QuestionCollector(path)
    folder_of(images, where=path)
    for code, (file, *_) in files_by_language(path, ["marvl-{language}.jsonl"]).items():
        tag = found.language(code, where=str(file))
        for where, record in read_objects(file):
            key, text, concept, left, right = (
                found.text(record, field, where=where)
                for field in ("id", "caption", "concept", "left_img", "right_img")
            )
            label = record.get("label")
            if not isinstance(label, bool):
                found.problem(f"{where}: 'label' is {label!r}, expected true or false")
                continue
            if not (key and text and concept and left and right):
                continue
            folder = images / str(record.get("language") or code) / "images" / concept
            pair = (found.image(folder / left, where=where), found.image(folder / right, where=where))
            if tag and pair[0] and pair[1]:
                place = YES_NO.index("yes" if label else "no")
                question = ImageQuestion(
                    key, tag, text, (YES_NO[place],), (pair[0], pair[1]), YES_NO, place, group=concept,
                    category=str(record.get("chapter") or ""),
                )  # fmt: skip
                found.add(question, where=where)
    return found.questions()


def read_m5(path: str, *, stacked: str, outlier: bool) -> tuple[ImageQuestion, ...]:
    """M5's shards: ``KEY.hypothesis``, ``.label_str``, ``.topic``, ``.sample_id`` and one picture of all images.

    Its authors' own evaluation shows models that picture, ``KEY.horizontally_stacked_images.jpg``, say.

    Args:
        path: A folder of tars a language.
        stacked: Which picture: ``horizontally``, ``vertically`` or ``two_col``.
        outlier: Of M5-VLOD: the label is a letter A to E; of M5-VGR it is true or false.

    Raises:
        DataError: Shards that are missing or wrong, or a sample without one of these.
    """
    found = QuestionCollector(path)
    picture = f"{stacked}_stacked_images.jpg"
    for code, folders in files_by_language(path, ["wds/{language}", "{language}"]).items():
        tag = found.language(_M5_CODES.get(code, code), where=path)
        for shard in (one for folder in folders for one in expand(str(folder))):
            for key, members in _samples(shard).items():
                where = f"{shard}: {key}"
                fields = {name: _read(shard, members[name], where) for name in _FIELDS if name in members}
                text, label = (found.text(fields, name, where=where) for name in ("hypothesis", "label_str"))
                if picture not in members:
                    known = ", ".join(name for name in members if name.endswith(".jpg")) or "none"
                    found.problem(f"{where}: no member {picture}; pictures that are there: {known}")
                    continue
                options = LETTERS if outlier else YES_NO
                said = _label(label or "", outlier=outlier)
                if label is not None and said not in options:
                    found.problem(f"{where}: 'label_str' is {label!r}, expected one of {_expected(outlier)}")
                elif tag and text and label:
                    image = LazyImage(shard, where, members[picture])
                    name = fields.get("sample_id", "").strip() or key
                    topic = fields.get("topic", "").strip()
                    question = ImageQuestion(
                        name, tag, text, (said,), (image,), options, options.index(said), group=key, category=topic
                    )
                    found.add(question, where=where)
    return found.questions()


_FIELDS = ("hypothesis", "label_str", "topic", "sample_id")


def _label(text: str, *, outlier: bool) -> str:
    if outlier:
        return text.strip().upper()
    return {"true": "yes", "false": "no"}.get(text.strip().lower(), text.strip().lower())


def _expected(outlier: bool) -> str:
    return ", ".join(LETTERS) if outlier else "true, false, yes, no"


def _samples(shard: Path) -> dict[str, dict[str, Span]]:
    """Key of each sample to its members' places by suffix.

    Raises:
        DataError: Not a tar, or one that breaks off.
    """
    problems: dict[str, str] = {}
    found: dict[str, dict[str, Span]] = {}
    with shard.open("rb") as stream:
        for name, span in tar_members(shard, stream, problems, size=shard.stat().st_size):
            key, suffix = sample_key(name)
            if key:
                found.setdefault(key, {})[suffix] = span
    for name, reason in problems.items():
        raise DataError(f"{shard}: {name}: {reason}; an evaluation needs all of it, get the file anew")
    return found


def _read(shard: Path, span: Span, where: str) -> str:
    check_size(span[1], what=where)
    try:
        return clean(read_span(shard, span).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text (byte {error.start})") from None
