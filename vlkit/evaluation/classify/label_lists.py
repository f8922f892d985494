"""Labels of a classifier: read, cleaned and checked, without loading a model."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from vlkit.data.formats.text_files import read_text
from vlkit.errors import VlkitError, some
from vlkit.foreign import clean
from vlkit.paths import local_path

Labels: TypeAlias = Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str]]

_COMMAS = re.compile("[,\uff0c\u3001\u060c]")  # Latin, Chinese, Japanese, Arabic
LOOK_ALIKES = "differ in case alone"
SHARE_NAMES = "share a name"


def read_labels(labels: Labels, *, repeated: bool = False) -> dict[str, tuple[str, ...]]:
    """Checks labels and gives the names of each, keyed by what is shown.

    That is the first name; where that is taken by a label of other names, all of them, or else the name and a number.
    Names that two labels share are told by a warning. ``repeated`` allows labels that are tuples, as those of a label
    set are, to have all their names in common.

    Raises:
        VlkitError: No label, or one that is blank or occurs twice.
    """
    if isinstance(labels, str):
        raise VlkitError(f"labels = {labels!r} is one string; give a list, e.g. labels=[{labels!r}, ...]")
    named = isinstance(labels, Mapping)
    pairs: list[tuple[Any, Any]] = (
        list(labels.items())
        if isinstance(labels, Mapping)
        else [(label if isinstance(label, str) else None, label) for label in labels]
    )
    if not pairs:
        raise VlkitError("no labels; give at least one, e.g. labels=['cat', 'dog']")
    found: dict[str, tuple[str, ...]] = {}
    first: dict[str, int] = {}
    for number, (shown, names) in enumerate(pairs, 1):
        cleaned = _clean_names(names, number=number)
        label = cleaned[0] if shown is None else _clean(shown, number=number)
        if not named and found.get(label, cleaned) != cleaned:
            label = ", ".join(cleaned)  # two senses of one word, told apart by their other names
        if not named and label in found and (found[label] != cleaned or (repeated and shown is None)):
            label = next(free for n in count(2) if (free := f"{label} ({n})") not in found)
        if label in found:
            raise VlkitError(f"label {label!r} is given twice, as number {first[label]} and {number}; leave one out")
        found[label], first[label] = cleaned, number
    _warn_look_alikes(found)
    _warn_shared(found)
    return found


def _clean_names(names: Any, *, number: int) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Iterable) else (names,)
    if not names:
        raise VlkitError(f"label number {number} has no name; give one or leave it out")
    return tuple(dict.fromkeys(_clean(name, number=number) for name in names))


def _clean(text: Any, *, number: int) -> str:
    if not isinstance(text, str):
        raise VlkitError(
            f"label number {number} is a {type(text).__name__}, {text!r}; labels are strings or tuples of strings"
        )
    cleaned = " ".join(clean(text).split())
    if not cleaned:
        raise VlkitError(f"label number {number} is blank; give it a name or leave it out")
    return cleaned


def _warn_look_alikes(labels: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(label.casefold(), label)
        if other != label:
            warnings.warn(
                f"labels {other!r} and {label!r} {LOOK_ALIKES}; the model may not tell them apart", stacklevel=4
            )


def _warn_shared(labels: Mapping[str, Sequence[str]]) -> None:
    owner: dict[str, str] = {}
    shared = [
        f"{other!r} and {label!r}: {name!r}"
        for label, names in labels.items()
        for name in names
        if (other := owner.setdefault(name, label)) != label
    ]
    if shared:
        warnings.warn(f"labels {SHARE_NAMES} ({some(shared, most=3)}); the model may not tell them apart", stacklevel=4)


def split_labels(text: str) -> list[tuple[str, ...]]:
    """Labels typed in one line: split at commas of any script, the names of one label at ``|``."""
    return [tuple(label.split("|")) for label in _COMMAS.split(text)]


def load_labels(path: str | Path) -> list[tuple[str, ...]]:
    """Labels of a text file, one a line, the names of one label split at ``|``; blank lines are left out.

    So are comments, lines that begin with ``#`` and a blank; ``#sunset`` and ``#1`` are labels.

    Raises:
        DataError: Missing, or not UTF-8 text.
    """
    lines = read_text(local_path(path), what="labels file ").split("\n")
    return [tuple(line.split("|")) for line in map(clean, lines) if line and line != "#" and not line.startswith("# ")]
