"""Files that say which class each image of a flat folder or tar is of."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from vlkit.data.formats.images import IMAGE_FILES
from vlkit.data.formats.text_files import DELIMITERS, read_cells, read_text
from vlkit.data.names.label_set import class_number
from vlkit.data.sources.classes.collection import unclear_order
from vlkit.errors import DataError, some
from vlkit.foreign import clean

_WORDNET_ID = re.compile(r"n\d{8}")
_NUMBERED = re.compile(r".*_val_0*(\d+)(_n\d{8})?")  # ILSVRC2012_val_00000293.JPEG
_HEADERS = {"image", "imageid", "image_id", "image_path", "file", "file_name", "filename", "filepath", "name", "path"}
_LABELS = {
    "category", "class", "class_name", "classname", "cls", "label", "labels", "predictionstring", "synset", "target",
    "wnid",
}  # fmt: skip
_IMAGE_NAME = re.compile(rf"(.*?(?:{'|'.join(map(re.escape, sorted(IMAGE_FILES)))}))\s+(\S.*)", re.IGNORECASE)
_META = "meta.mat"
_CLASSES = 1000


def read_image_labels(path: Path, names: Sequence[str], *, wordnet: bool) -> list[str]:
    """The label of each image, from one of these forms.

    - A WordNet id a line (``imagenet_2012_validation_synset_labels.txt``), of other sets the number of a class: line n
      is for ``ILSVRC2012_val_0000000n``; for images of other names, for the n-th of them by name, and there must be as
      many lines as images.
    - A table of image and label, separated by comma (which may stand in quotes), tab or blanks, with or without a
      header; more columns, and what follows a WordNet id in its column (``LOC_val_solution.csv``,
      ``val_annotations.txt``), are passed over. Between blanks all that follows the image is its label.
    - The development kit's ``ILSVRC2012_validation_ground_truth.txt``, with its ``meta.mat`` in the same folder. Its
      numbers are ILSVRC ids, whose order is not that of the WordNet ids.

    Args:
        path: The file.
        names: Names of the images. Of paths the last part counts, where the file does not name the same path.
        wordnet: Labels are WordNet ids; numbers in a table are refused.

    Raises:
        DataError: Missing, of another form, or without a label for an image.
    """
    text = read_text(path)
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path}: the file is empty")
    if blank := [number for number, line in enumerate(lines, start=1) if not line]:
        raise DataError(f"{path}:{blank[0]}: an empty line, so that lines cannot be counted")
    if all(line.isdecimal() and class_number(line) is not None for line in lines):
        return _of_lines(path, _synsets(path, lines) if wordnet else lines, names)
    if all(_WORDNET_ID.fullmatch(line) for line in lines):
        return _of_lines(path, lines, names)
    return _of_table(path, text, names, wordnet=wordnet)


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
    ordered = sorted(names)
    if odd := unclear_order(ordered):
        raise DataError(
            f"{path}: the order of the images is not clear: {odd[0]} comes before {odd[1]} as a text, and after it as "
            f"a number; give a table of image and label"
        )
    place = {name: number for number, name in enumerate(ordered)}
    return [labels[place[name]] for name in names]


def _of_table(path: Path, text: str, names: Sequence[str], *, wordnet: bool) -> list[str]:
    label_of: dict[str, str] = {}
    labels_of_name: dict[str, set[str]] = defaultdict(set)
    for number, image, written in _table(path, text, names):
        known = _WORDNET_ID.match(written)
        label = known[0] if known else written
        if wordnet and label.isdecimal():
            raise DataError(
                f"{path}:{number}: {label} is a number: it may be an ILSVRC id (1 to 1000, in an order of its own) or "
                f"a place among the sorted WordNet ids (0 to 999); write WordNet ids (n01440764)"
            )
        key = _key(image)
        if (above := label_of.setdefault(str(key), label)) != label:
            raise DataError(f"{path}:{number}: {image} is {label} here and {above} above")
        labels_of_name[key.name].add(label)
    found = [label_of.get(str(key), labels_of_name.get(key.name, set())) for key in map(_key, names)]
    if missing := [name for name, label in zip(names, found, strict=True) if not label]:
        raise DataError(f"{path}: {len(missing)} of {len(names)} images have no label: {some(missing)}")
    if unclear := [name for name, label in zip(names, found, strict=True) if isinstance(label, set) and len(label) > 1]:
        raise DataError(f"{path}: images of one name have several labels: {some(unclear)}; give their paths")
    return [label if isinstance(label, str) else next(iter(label)) for label in found]


def _key(name: str) -> PurePosixPath:
    """What an image and its line in a table have in common: the path without the ending of an image."""
    path = PurePosixPath(clean(name))
    return path.with_suffix("") if path.suffix.lower() in IMAGE_FILES else path


def _table(path: Path, text: str, names: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Line, image and label of each row."""
    image, label, count = 0, 1, 0
    for number, cells in _rows(path, text, names):
        written = [clean(cell) for cell in cells]
        if not count:
            count = len(written)
            header = [cell.casefold() for cell in written]
            images = [place for place, cell in enumerate(header) if cell in _HEADERS]
            labels = [place for place, cell in enumerate(header) if cell in _LABELS]
            if images and (labels or images[0] == 0):
                image, label = images[0], next(iter(labels), 1)
                continue
        if len(written) > 1 and len(written) != count:
            raise DataError(
                f"{path}:{number}: {len(written)} columns, the first line has {count}; put quotes around a label "
                f"with a comma"
            )
        if len(written) <= max(image, label) or not written[image] or not written[label]:
            shown = text.split("\n")[number - 1].strip()
            raise DataError(f"{path}:{number}: {shown[:60]!r}: expected an image and its label")
        yield number, written[image], " ".join(written[label].split())


def _rows(path: Path, text: str, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    first = text.partition("\n")[0]
    start = first.partition(",")[0].strip().strip('"')
    if (delimiter := DELIMITERS.get(path.suffix.lower())) in (None, "") or delimiter not in first:
        is_name = start.casefold() in _HEADERS or PurePosixPath(start).suffix.lower() in IMAGE_FILES
        known = (
            is_name
            or not any(sign.isspace() for sign in start)
            or _key(start).name in {_key(one).name for one in names}
        )
        delimiter = "\t" if "\t" in first else "," if "," in first and known else None
        if delimiter is None and path.suffix.lower() == ".csv" and ";" in first:
            delimiter = ";"
    if delimiter is not None:
        yield from read_cells(text, path, delimiter=delimiter)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            named = _IMAGE_NAME.match(line.strip())
            yield number, list(named.groups()) if named else line.split(maxsplit=1)
