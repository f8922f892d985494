"""What visitors type and upload, checked before a model sees it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vlkit import languages, prompts
from vlkit.data.formats.images import open_image
from vlkit.errors import DataError, VlkitError
from vlkit.evaluation.classify.label_lists import read_labels, split_labels
from vlkit.foreign import clean

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_LABELS = 1000
"""Labels that are taken at once; `vlkit classify` takes any number."""
MOST_LANGUAGES = 30
"""Languages that are compared, or that an image is described in, at once."""
MOST_PROMPTS = 8
"""Prompts that images are made of at once."""
LONGEST = 20_000
"""Characters of any text but labels."""
Names: TypeAlias = tuple[tuple[str, ...], ...]
"""The names of each label."""
_COLONS = (":", "\uff1a")


@dataclass(frozen=True)
class Upload:
    """A file that a visitor gave, under the name that it had there."""

    path: Path
    name: str

    def open(self) -> Image:
        """The RGB image in it.

        Raises:
            DataError: It is none that can be read.
        """
        return open_image(self.path, name=self.name)


@dataclass(frozen=True)
class TypedLabels:
    """Labels of one language; ``notes`` say what may go wrong with them."""

    language: str
    names: Names
    notes: tuple[str, ...] = ()


def need_image(upload: Upload | None) -> Image:
    """The image that was uploaded.

    Raises:
        DataError: None was, or it cannot be read.
    """
    if upload is None:
        raise DataError("no image; drop one into the field for it, paste one, or choose a file")
    return upload.open()


def need_text(text: str | None, *, what: str) -> str:
    """A text without what nobody sees.

    Raises:
        DataError: It is blank, or too long.
    """
    cleaned = clean(text or "")
    if not cleaned:
        raise DataError(f"no {what}; write one, in any language")
    if len(cleaned) > LONGEST:
        raise DataError(f"the {what} has {len(cleaned):,} characters, more than the {LONGEST:,} that the demo takes")
    return cleaned


def need_prompts(text: str | None) -> list[str]:
    """What images are to show, a line each.

    Raises:
        DataError: There is none, or a line is too long.
        VlkitError: There are too many.
    """
    lines = [line for line in (text or "").splitlines() if clean(line)]
    if len(lines) > MOST_PROMPTS:
        raise VlkitError(f"{len(lines)} prompts; the demo takes at most {MOST_PROMPTS} at once, a line each")
    return [need_text(line, what="prompt") for line in lines] or [need_text("", what="prompt")]


def need_language(typed: str | None) -> str:
    """The tag of a language that was chosen, or typed as any code or name.

    Raises:
        UnknownName: No such language.
        VlkitError: None was given.
    """
    if not (typed or "").strip():
        raise VlkitError("no language; choose one from the list, or type a code or name such as sw or Swahili")
    return languages.normalize(str(typed))


def need_languages(typed: Sequence[str] | None) -> list[str]:
    """The same for several, each once.

    Raises:
        VlkitError: None was given, or too many, or there is no such language.
    """
    if not typed:
        need_language(None)
    tags = list(dict.fromkeys(need_language(one) for one in typed or ()))
    if len(tags) > MOST_LANGUAGES:
        raise VlkitError(f"{len(tags)} languages; the demo takes at most {MOST_LANGUAGES} at once")
    return tags


def read_label_lines(text: str | None, *, language: str | None) -> TypedLabels:
    """Labels, one a line, the names of one label split at ``|``; a single line may hold several, with commas between.

    Raises:
        VlkitError: None, too many, two that are equal, or no such language.
    """
    tag = need_language(language)
    lines = [line for line in map(clean, (text or "").splitlines()) if line]
    if not lines:
        raise VlkitError("no labels; write what to choose from, one label a line, in any script")
    split = split_labels(lines[0]) if len(lines) == 1 else [tuple(line.split("|")) for line in lines]
    return _checked(tag, split)


def read_language_lines(text: str | None) -> list[TypedLabels]:
    """The same labels in several languages: lines such as ``de: Katze, Hund``, a language each.

    Raises:
        VlkitError: Fewer than two lines, one without a language, a language twice, or lines whose labels do not match.
    """
    lines = [line for line in map(clean, (text or "").splitlines()) if line]
    if not lines:
        raise VlkitError("no labels; write a line for each language, such as de: Katze, Hund, Auto")
    if len(lines) > MOST_LANGUAGES:
        raise VlkitError(f"{len(lines)} languages; the demo takes at most {MOST_LANGUAGES} at once")
    sets: dict[str, TypedLabels] = {}
    for number, line in enumerate(lines, 1):
        colon = min((line.index(one) for one in _COLONS if one in line), default=-1)
        if colon < 0:
            raise VlkitError(f"line {number} has no language; begin it with one and a colon, such as de: Katze, Hund")
        found = _checked(need_language(line[:colon]), split_labels(line[colon + 1 :]), where=f"line {number}: ")
        first = next(iter(sets.values()), found)
        if found.language in sets:
            raise VlkitError(f"line {number} is in {_named(found)} again; leave one of the two out")
        if len(found.names) != len(first.names):
            raise VlkitError(
                f"line {number} ({_named(found)}) has {_counted(found)}, line 1 ({_named(first)}) has "
                f"{_counted(first)}; give the same things in the same order"
            )
        sets[found.language] = found
    return list(sets.values())


def read_templates(text: str | None) -> tuple[str, ...]:
    """Prompt templates, one a line; () for none.

    Raises:
        DataError: One has no slot for the label, or more than one.
    """
    lines = tuple(line for line in map(clean, (text or "").splitlines()) if line)
    for line in lines:
        prompts.check_template(line)
    return lines


def _checked(language: str, split: Iterable[tuple[str, ...]], *, where: str = "") -> TypedLabels:
    listed = list(split)
    if len(listed) > MOST_LABELS:
        raise VlkitError(
            f"{where}{len(listed):,} labels; the demo takes at most {MOST_LABELS:,}, vlkit classify --labels-file "
            f"takes any number"
        )
    try:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            names = read_labels(listed)
    except VlkitError as error:
        raise VlkitError(f"{where}{error}") from None
    return TypedLabels(language, tuple(names.values()), tuple(str(note.message) for note in notes))


def _named(labels: TypedLabels) -> str:
    return languages.get(labels.language).name


def _counted(labels: TypedLabels) -> str:
    return f"{len(labels.names)} label{'' if len(labels.names) == 1 else 's'}"
