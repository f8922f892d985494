"""Label files: Babel-ImageNet's JSON, vlkit's own JSON, and tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from vlkit import languages as language_table
from vlkit.data.formats.text_files import DELIMITERS, read_json, read_table
from vlkit.data.names.imagenet import class_numbers, english_names
from vlkit.data.names.label_set import MOST_CLASSES, LabelSet, class_number, raise_all
from vlkit.errors import DataError, UnknownName
from vlkit.foreign import clean
from vlkit.paths import local_path

log = logging.getLogger(__name__)
_IMAGENET = 1000
_BABEL_NOTICE = (
    "Babel-ImageNet labels (Geigle et al., arXiv 2306.08658) are a processed version of BabelNet v5.2, under the "
    "BabelNet Non-Commercial License (https://babelnet.org/full-license): for non-commercial research only, and not to "
    "be passed on. vlkit writes no label of it to any file, unless it is told that the file is for own use."
)
Named = dict[int, tuple[str, ...]]


def read_label_set(path: str | Path, *, num_classes: int | None = None) -> LabelSet:
    """Reads the names of classes in many languages.

    Three forms are known: Babel-ImageNet's JSON (``{"DE": [[0, 2], ["Schleie", "Weißer Hai"]], ...}``), vlkit's JSON
    (``{"name": ..., "labels": {"de": {"0": ["Schleie"]}}}``, classes by number or WordNet id), and tables with the
    columns ``language``, ``class`` and ``name`` (.csv or .tsv), where a class may have several lines.

    Args:
        path: A .json, .csv or .tsv file.
        num_classes: How many classes there are; by default what the file says, else the highest number and one.

    Raises:
        DataError: Missing, or not of this form; the message lists what is wrong.
    """
    path = local_path(path)
    if path.suffix.lower() in DELIMITERS:
        return _table(path, num_classes)
    content = read_json(path, what="label file ")
    if not isinstance(content, dict) or not content:
        raise DataError(f"label file {path} must hold one object with an entry for each language")
    if "labels" in content:
        return _own(path, content, num_classes)
    return _babel(path, content)


def _babel(path: Path, content: Mapping[str, Any]) -> LabelSet:
    """Babel-ImageNet; its English (BabelNet's) gives way to OpenAI's names, as in its own evaluation."""
    problems: list[str] = []
    found: dict[str, Named] = {}
    codes: dict[str, str] = {}
    notes: list[str] = []
    for code, entry in content.items():
        named = _babel_language(code, entry, problems)
        tag = _tag(code, problems, system="babelnet")
        if tag is None or named is None or tag == "en":
            continue
        if tag in found:  # two codes of one language: the one with more classes
            loser = code if len(named) <= len(found[tag]) else codes[tag]
            notes.append(f"{codes[tag]} and {code} are both {tag}; {loser} was left out")
        if tag not in found or len(named) > len(found[tag]):
            found[tag], codes[tag] = named, code
    raise_all(problems, where=f"label file {path}")
    english: Named = {number: (name,) for number, name in enumerate(english_names())}
    _announce(_BABEL_NOTICE)
    return LabelSet(
        "babel-imagenet", _IMAGENET, {"en": english} | found, _BABEL_NOTICE, private=True, notes=tuple(notes)
    )


def _babel_language(code: str, entry: Any, problems: list[str]) -> Named | None:
    if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(side, list) for side in entry)):
        problems.append(f"{code}: must be [[class numbers], [names]]")
        return None
    numbers, names = entry
    before = len(problems)
    if len(numbers) != len(names):
        problems.append(f"{code}: {len(numbers)} class numbers but {len(names)} names")
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        problems.append(f"{code}: class numbers must be integers")
    elif any(number < 0 or number >= _IMAGENET for number in numbers):
        wrong = next(number for number in numbers if number < 0 or number >= _IMAGENET)
        problems.append(f"{code}: class {wrong} is not in 0..{_IMAGENET - 1}")
    elif any(after <= first for first, after in pairwise(numbers)):
        problems.append(f"{code}: class numbers must ascend, each once")
    if not all(isinstance(name, str) and name.strip() for name in names):
        problems.append(f"{code}: a name is empty or no text")
    if not numbers:
        problems.append(f"{code}: no class has a name")
    return {number: (name,) for number, name in zip(numbers, names, strict=True)} if len(problems) == before else None


def _own(path: Path, content: Mapping[str, Any], num_classes: int | None) -> LabelSet:
    problems: list[str] = []
    found: dict[str, Named] = {}
    labels = content["labels"]
    if not isinstance(labels, dict):
        raise DataError(f"label file {path}: 'labels' must map each language to its classes")
    for code, entry in labels.items():
        tag = _tag(code, problems)
        if not isinstance(entry, dict):
            problems.append(f"{code}: must map each class to its names")
        elif tag in found:
            problems.append(f"{code}: the file has {tag} twice")
        elif tag is not None:
            found[tag] = _named(code, entry, problems)
    stated, notes = content.get("num_classes"), content.get("notes", [])
    if stated is not None and (type(stated) is not int or not 1 <= stated <= MOST_CLASSES):
        problems.append(f"num_classes = {stated!r}: must be a whole number from 1 to {MOST_CLASSES:,}")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        problems.append("notes: must be a list of texts")
    raise_all(problems, where=f"label file {path}")
    return LabelSet(
        str(content.get("name", path.stem)),
        _count(found, num_classes or stated),
        found,
        str(content.get("notice", "")),
        notes=tuple(notes),
    )


def _named(code: str, entry: Mapping[str, Any], problems: list[str]) -> Named:
    named: Named = {}
    for key, names in entry.items():
        listed = [names] if isinstance(names, str) else names
        number = _class(str(key))
        if number is None:
            problems.append(f"{code}: {key!r} is no class; give its number or WordNet id (n01440764)")
        elif not isinstance(listed, list) or not all(isinstance(name, str) and name.strip() for name in listed):
            problems.append(f"{code}: class {key} has an empty name or one that is no text")
        elif number in named:
            problems.append(f"{code}: class {key} is given twice")
        elif all(names := _cleaned(listed, problems, where=f"{code}: class {key}")):
            named[number] = names
        else:
            problems.append(f"{code}: class {key} has a name of marks that nobody sees")
    return named


def _cleaned(names: Sequence[str], problems: list[str], *, where: str) -> tuple[str, ...]:
    try:
        return tuple(clean(name) for name in names)
    except DataError as error:
        problems.append(f"{where}: {error}")
        return tuple(names)


def _table(path: Path, num_classes: int | None) -> LabelSet:
    problems: list[str] = []
    codes: dict[str, str] = {}
    found: dict[str, Named] = {}
    for line, row in read_table(path, header=partial(_check_columns, path)):
        where = f"line {line}"
        tag = _tag(row["language"], problems, where=where)
        number, name = _class(row["class"]), _cleaned([row["name"]], problems, where=where)[0]
        if number is None:
            problems.append(f"{where}: {row['class']!r} is no class; give its number or WordNet id (n01440764)")
        if not name:
            problems.append(f"{where}: empty name")
        code = row["language"]
        if tag is not None and language_table.variety(first := codes.setdefault(tag, code)) != language_table.variety(
            code
        ):
            problems.append(f"{where}: {first!r} and {code!r} are both {tag} here; keep one of them")
        elif tag is not None and number is not None and name:
            named = found.setdefault(tag, {})
            named[number] = (*named.get(number, ()), name)
    raise_all(problems, where=f"label file {path}")
    return LabelSet(path.stem, _count(found, num_classes), found)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if missing := {"language", "class", "name"} - set(columns):
        raise DataError(
            f"label file {path} lacks the columns {', '.join(sorted(missing))}; the first line must name language, "
            f"class and name"
        )


def _count(found: Mapping[str, Named], given: int | None) -> int:
    return given or 1 + max((number for named in found.values() for number in named), default=0)


def _class(key: str) -> int | None:
    number = class_number(key.strip())
    if number is None:
        return class_numbers().get(key.strip())
    return number if number <= MOST_CLASSES else None


def _tag(
    code: str, problems: list[str], *, system: language_table.System | None = None, where: str | None = None
) -> str | None:
    try:
        return language_table.get(code, system=system).tag
    except UnknownName as error:
        problems.append(f"{where or code}: {error}")
        return None


@lru_cache(maxsize=8)
def _announce(notice: str) -> None:
    log.warning(notice)  # once a process
