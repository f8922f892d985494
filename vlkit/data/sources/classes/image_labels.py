"""Files that say which class each image of a flat folder or tar is of."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from vlkit.data.formats.text_files import read_text
from vlkit.data.sources.classes.collection import some
from vlkit.errors import DataError

_WORDNET_ID = re.compile(r"n\d{8}")
_NUMBERED = re.compile(r".*_val_0*(\d+)(_n\d{8})?")  # ILSVRC2012_val_00000293.JPEG
_HEADERS = {"image", "imageid", "file", "file_name", "filename", "name", "path"}
_META = "meta.mat"
_CLASSES = 1000


def read_image_labels(path: Path, names: Sequence[str], *, wordnet: bool) -> list[str]:
    """The label of each image, from one of these forms.

    - A WordNet id a line (``imagenet_2012_validation_synset_labels.txt``): line n is for ``ILSVRC2012_val_0000000n``;
      for images of other names, for the n-th of them by name, and there must be as many lines as images.
    - A table of image and label, separated by comma, tab or blanks, with or without a header; more columns, and what
      follows a WordNet id in its column (``LOC_val_solution.csv``, ``val_annotations.txt``), are passed over.
    - The development kit's ``ILSVRC2012_validation_ground_truth.txt``, with its ``meta.mat`` in the same folder. Its
      numbers are ILSVRC ids, whose order is not that of the WordNet ids.

    Args:
        path: The file.
        names: Names of the images; of paths the last part counts.
        wordnet: Labels are WordNet ids; numbers in a table are refused.

    Raises:
        DataError: Missing, of another form, or without a label for an image.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path}: the file is empty")
    if blank := [number for number, line in enumerate(lines, start=1) if not line]:
        raise DataError(f"{path}:{blank[0]}: an empty line, so that lines cannot be counted")
    if all(line.isdecimal() for line in lines):
        return _of_lines(path, _synsets(path, lines), names)
    if all(_WORDNET_ID.fullmatch(line) for line in lines):
        return _of_lines(path, lines, names)
    return _of_table(path, _table(path, lines, wordnet=wordnet), names)


def _synsets(path: Path, lines: Sequence[str]) -> list[str]:
    meta = path.with_name(_META)
    if not meta.is_file():
        raise DataError(
            f"{path} holds ILSVRC ids (1 to 1000), which are not in the order of the WordNet ids: what they stand for "
            f"is in the development kit's {_META}. Put that beside it, or give a file with one WordNet id a line"
        )
    synset_of = synsets_of_ids(meta)
    if strange := [f"line {number}: {line}" for number, line in enumerate(lines, 1) if int(line) not in synset_of]:
        raise DataError(f"{path}: {some(strange)}: no such ILSVRC id in {meta}")
    return [synset_of[int(line)] for line in lines]


def synsets_of_ids(path: Path) -> dict[int, str]:
    """ILSVRC id (1..1000) -> WordNet id, from ``meta.mat`` of the ILSVRC2012 development kit.

    Raises:
        DataError: Missing, or not such a file.
    """
    from scipy.io import loadmat

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    try:
        rows = loadmat(io.BytesIO(raw), squeeze_me=True, variable_names=["synsets"]).get("synsets")
        if rows is None or rows.dtype.names is None:
            raise ValueError("no array of structures 'synsets'")
        pairs = [(int(row["ILSVRC2012_ID"]), str(row["WNID"])) for row in rows.reshape(-1)]
    except Exception as error:  # scipy raises OSError, ValueError, TypeError, MatReadError, zlib.error, ...
        raise DataError(
            f"cannot read {path}: not the meta.mat of ImageNet's development kit ({error}); give a file with one "
            f"WordNet id a line instead"
        ) from None
    found = {number: wnid for number, wnid in pairs if 1 <= number <= _CLASSES}
    if not found:
        raise DataError(f"{path}: has no ILSVRC id from 1 to {_CLASSES}")
    return found


def _of_lines(path: Path, labels: Sequence[str], names: Sequence[str]) -> list[str]:
    stems = [PurePosixPath(name).stem for name in names]
    numbers = [int(found[1]) if (found := _NUMBERED.fullmatch(stem)) else None for stem in stems]
    if None not in numbers:
        wrong = [name for name, number in zip(names, numbers, strict=True) if not 1 <= (number or 0) <= len(labels)]
        if wrong:
            raise DataError(f"{path} has {len(labels)} lines, none for {some(wrong)}")
        return [labels[(number or 0) - 1] for number in numbers]
    if len(labels) != len(names):
        raise DataError(
            f"{path} has {len(labels)} lines for {len(names)} images, which do not carry a line's number "
            f"(ILSVRC2012_val_00000001.JPEG) in their names; give a table of image and label"
        )
    place = {name: number for number, name in enumerate(sorted(names))}
    return [labels[place[name]] for name in names]


def _table(path: Path, lines: Sequence[str], *, wordnet: bool) -> dict[str, str]:
    delimiter = next((sign for sign in (",", "\t") if sign in lines[0]), None)
    rows = [[cell.strip() for cell in line.split(delimiter)] for line in lines]
    first = 1 if rows[0][0].lower() in _HEADERS else 0
    found: dict[str, str] = {}
    for number, row in enumerate(rows[first:], start=first + 1):
        if len(row) < 2 or not row[0] or not row[1]:
            raise DataError(f"{path}:{number}: {lines[number - 1][:60]!r}: expected an image and its label")
        known = _WORDNET_ID.match(row[1])
        label = known[0] if known else row[1]
        if wordnet and label.isdecimal():
            raise DataError(
                f"{path}:{number}: {label} is a number: it may be an ILSVRC id (1 to 1000, in an order of its own) or "
                f"a place among the sorted WordNet ids (0 to 999); write WordNet ids (n01440764)"
            )
        stem = _stem(row[0])
        if found.setdefault(stem, label) != label:
            raise DataError(f"{path}:{number}: {row[0]} is {label} here and {found[stem]} above")
    return found


def _of_table(path: Path, label_of: Mapping[str, str], names: Sequence[str]) -> list[str]:
    if missing := [name for name in names if _stem(name) not in label_of]:
        raise DataError(f"{path}: {len(missing)} of {len(names)} images have no label: {some(missing)}")
    return [label_of[_stem(name)] for name in names]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
