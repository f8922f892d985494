"""Data sets in the forms that other toolkits for vision-language models read: a JSON file and a folder of images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from vlkit.data.build.reshard import ShardOptions, encoded_image
from vlkit.data.build.writer import said_of
from vlkit.data.formats.caption_forms import tag
from vlkit.data.formats.images import image_place
from vlkit.data.formats.shard_index import free_name
from vlkit.data.sources.combine import problems
from vlkit.errors import DataError
from vlkit.files import atomic_folder, disk_errors
from vlkit.foreign import printable
from vlkit.models.turns import prompts_of, turns_of
from vlkit.outputs import check_replaceable
from vlkit.progress import bar
from vlkit.spec.dataset import PromptsSpec
from vlkit.types import IMAGE_MARK, Pick, Sample, Source, Turn

Form = Literal["llava", "mblip", "centurio", "turns"]
_FILES = {"llava": "llava.json", "mblip": "mblip.json", "centurio": "centurio.json", "turns": "turns.jsonl"}
_IMAGES = "images"
_ROLES = {"user": "human", "assistant": "gpt", "system": "system"}


@dataclass
class Converted:
    """What came of it: ``file`` and how many ``records`` are in it; ``bad``: name -> reason of what was left out."""

    file: Path
    records: int = 0
    images: int = 0
    bad: dict[str, str] = field(default_factory=dict)


def convert(
    source: Source,
    folder: Path,
    form: Form,
    *,
    prompts: PromptsSpec | None = None,
    languages: Sequence[str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Converted:
    """Writes the conversations of a source, and a conversation for each caption of it, as ``form`` has them.

    ``llava`` is a list of ``conversations``; ``mblip`` of ``context`` and ``label``, whose image stands before the
    text; ``centurio`` the same with places of images and several turns; ``turns`` vlkit's own, a line each. All name
    the language of their texts, and vlkit reads all of them (``kind: dialogues``). Captions answer ``prompts``.

    Raises:
        VlkitError: The folder holds something, no record is left, or the disk is full.
    """
    folder = folder.absolute()
    _check_free(source, folder, overwrite=overwrite)
    wanted = None if languages is None else {tag(code) for code in languages}
    chosen = prompts_of(prompts or PromptsSpec())
    done = Converted(
        folder / _FILES[form], bad={printable(name): printable(why) for name, why in problems(source).items()}
    )
    with (
        disk_errors(folder),
        atomic_folder(folder) as whole,
        bar(f"converting to {form}", total=len(source), unit="samples", quiet=quiet) as shown,
        ExitStack() as files,
    ):
        (whole / _IMAGES).mkdir()
        written = _Images(whole / _IMAGES)
        file = _List(files.enter_context((whole / _FILES[form]).open("w", encoding="utf-8", newline="")), form)
        for index in range(len(source)):
            name = printable(source.meta(index).key)
            try:
                sample = source[index]
                told = [
                    (language, _record(form, turns_of(sample, pick, chosen), sample))
                    for language, pick in _picks(sample, index)
                    if wanted is None or language in wanted
                ]
                places = written.of(index, sample) if told else []
            except DataError as error:
                done.bad[free_name(name, done.bad)] = printable(str(error))
            else:
                for number, (language, record) in enumerate(told):
                    file.add(_about(form, f"{index:09d}-{number}", places, language) | record)
                done.records += len(told)
            shown.advance()
        file.end()
        done.images = written.count
        if not done.records:
            first = next((f"; the first problem: {name}: {why}" for name, why in done.bad.items()), "")
            raise DataError(f"no record is left of {len(source)} samples{first}")
    return done


def _check_free(source: Source, folder: Path, *, overwrite: bool) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise DataError(f"{folder}: is there already; choose another --out, or replace it with --overwrite")
        check_replaceable(
            folder,
            what="what vlkit data convert wrote",
            made=lambda there: (there / _IMAGES).is_dir() and any((there / name).is_file() for name in _FILES.values()),
            names=(*_FILES.values(), _IMAGES),
            inputs=set(_files_read(source)),
        )


def _files_read(source: Source) -> Iterator[Path]:
    for index in range(len(source)):
        with suppress(DataError):
            yield from (place[0] for image in source[index].images if (place := image_place(image)))


def _picks(sample: Sample, index: int) -> Iterator[tuple[str, Pick]]:
    """A pick for each caption, or one for a conversation; prompts come in turn over a source."""
    if sample.turns:
        language = next(iter(sample.counts()))
        yield language, Pick(index, language, 0, index)
        return
    for language, texts in sample.captions.items():
        for number in range(len(texts)):
            yield language, Pick(index, language, number, index + number)


def _record(form: Form, turns: Sequence[Turn], sample: Sample) -> dict[str, Any]:
    said = said_of(sample)
    said.pop("turns", None)
    if form == "turns":
        return {"turns": [{"role": one.role, "text": one.text, "language": one.language} for one in turns], **said}
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    if form == "llava":
        # LLaVA wants a place for each image: those without one come first.
        before = f"{IMAGE_MARK}\n" * (len(sample.images) - marks)
        first = next(number for number, turn in enumerate(turns) if turn.role == "user")
        return {
            "conversations": [
                {"from": _ROLES[one.role], "value": before * (number == first) + one.text, "language": one.language}
                for number, one in enumerate(turns)
            ],
            **said,
        }
    asked = [turn for turn in turns if turn.role != "system"]
    questions, answers = asked[::2], asked[1::2]
    if [turn.role for turn in asked] != ["user", "assistant"] * len(questions) or len(asked) < len(turns):
        raise DataError(f"{form} has a question and an answer in turn, and no system turns")
    if form == "mblip":
        if len(questions) > 1 or (marks and not turns[0].text.lstrip().startswith(IMAGE_MARK)):
            raise DataError("mblip has one question, with its images before the text; take centurio")
        return {"context": questions[0].text.replace(IMAGE_MARK, "").strip(), "label": answers[0].text, **said}
    context = [turn.text.replace(IMAGE_MARK, "<image_placeholder>") for turn in questions]
    return {"context": context, "label": [turn.text for turn in answers], **said}


def _about(form: Form, key: str, places: Sequence[str], language: str) -> dict[str, Any]:
    images: Any = places[0] if len(places) == 1 else list(places)
    if form in ("llava", "turns"):
        return {"id": key, **({"image": images} if places else {}), "language": language}
    return {"image_id": images if places else "", "language": language}


class _Images:
    """Images as they were, each written once however many samples are about it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self._names: dict[object, str] = {}

    def of(self, index: int, sample: Sample) -> list[str]:
        """Their names, as a record has them."""
        names = []
        for number, image in enumerate(sample.images):
            place: object = image_place(image) or (index, number)
            if place not in self._names:
                suffix, raw = encoded_image(sample.key, image, ShardOptions())
                name = f"{index:09d}-{number}.{suffix}"
                (self.folder / name).write_bytes(raw)
                self._names[place] = f"{_IMAGES}/{name}"
                self.count += 1
            names.append(self._names[place])
        return names


class _List:
    """A JSON list, or lines of JSON, written record by record."""

    def __init__(self, stream: IO[str], form: Form) -> None:
        self.stream, self.lines, self._first = stream, _FILES[form].endswith(".jsonl"), True

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes one."""
        between = "" if self.lines else "[\n" if self._first else ",\n"
        self.stream.write(between + json.dumps(record, ensure_ascii=False) + ("\n" if self.lines else ""))
        self._first = False

    def end(self) -> None:
        """Writes the end."""
        if not self.lines:
            self.stream.write("[]\n" if self._first else "\n]\n")
