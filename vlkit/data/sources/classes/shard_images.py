"""WebDataset shards with a class for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vlkit.data.formats.archives import Member
from vlkit.data.formats.tars import sample_key
from vlkit.data.formats.text_files import read_lines, read_text
from vlkit.data.names.label_set import class_number
from vlkit.data.sources.classes.collection import Collection, LabelledImage, read_label
from vlkit.errors import DataError, some
from vlkit.foreign import clean, parse_json

CLASS_NAMES = "classnames.txt"
SHARD_COUNT = "nshards.txt"
_DIGITS = 6  # of the number of shards
_JSON_KEYS = ("label", "cls", "wnid", "class")


def has_label_members(members: Sequence[Member]) -> bool:
    """Whether a tar's members are samples with labels: a ``.cls``, or a ``.json`` beside the first image."""
    names = {member.name for member in members if member.span is not None}
    if any(name.endswith(".cls") for name in names):
        return True
    first = next((member.name for member in members if member.is_image and member.span is not None), None)
    return first is not None and f"{sample_key(first)[0]}.json" in names


def shards_of(folder: Path) -> list[Path]:
    """The shards 0.tar to n.tar of a folder with ``nshards.txt``.

    Raises:
        DataError: The file holds no number, or a shard is missing.
    """
    text = read_text(folder / SHARD_COUNT).strip()
    if not text.isdecimal() or len(text) > _DIGITS or int(text) < 1:
        raise DataError(f"{folder / SHARD_COUNT}: must hold the number of shards, not {text[:40]!r}")
    shards = [folder / f"{number}.tar" for number in range(int(text))]
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise DataError(f"{folder}: {SHARD_COUNT} says {text} shards, but {some(missing)} are missing")
    return shards


def read_shards(where: str, members: Sequence[Member], class_names: Path | None) -> Collection:
    """Samples of an image and a label, a number or a text.

    The label is the text of the ``.cls`` member, or ``label``, ``cls``, ``wnid`` or ``class`` of the ``.json``. Samples
    are named by their keys, which must be their own in all shards; where they are not, by shard and key.

    Args:
        where: The set, for errors.
        members: Of all shards; below a folder for each shard where there are several.
        class_names: CLIP_benchmark's ``classnames.txt``: the name of class n in line n, from 0 on.

    Raises:
        DataError: A sample without image or label.
    """
    samples: dict[str, dict[str, Member]] = {}
    for member in members:
        key, suffix = sample_key(member.name)
        samples.setdefault(key, {})[suffix] = member
    images: list[tuple[str, Member, Mapping[str, Member]]] = []
    for key, parts in samples.items():
        image = next((one for one in parts.values() if one.is_image), None)
        if image is not None:
            images.append((key, image, parts))
        elif "cls" in parts:
            raise DataError(f"{parts['cls'].where}: a label without an image; there is: {', '.join(sorted(parts))}")
    short = [key.partition("/")[2] for key, _, _ in images]
    sharded = "" not in short and len(set(short)) == len(short)
    listed = [
        LabelledImage(_label(image, parts), name if sharded else key, image.image(), image.where)
        for (key, image, parts), name in zip(images, short, strict=True)
    ]
    names = () if class_names is None else tuple(clean(line) for line in read_lines(class_names))
    return Collection(where, tuple(listed), names)


def _label(image: Member, parts: Mapping[str, Member]) -> str | int:
    if "cls" in parts:
        where = parts["cls"].where
        try:
            return _number(parts["cls"].read().decode("utf-8-sig"), where)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: the label is not UTF-8 text (byte {error.start})") from None
    if "json" not in parts:
        several = "; .npy holds several labels an image, which is another task" if "npy" in parts else ""
        raise DataError(
            f"{image.where}: no label beside it (.cls or .json); there is: {', '.join(sorted(parts))}{several}"
        )
    where = parts["json"].where
    record = parse_json(parts["json"].read(), where=where, expected=dict)
    value = next((record[key] for key in _JSON_KEYS if key in record), None)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where}: has no label; expected a number or text under {', '.join(_JSON_KEYS)}")
    return _number(str(value), where)


def _number(text: str, where: str) -> str | int:
    label = str(read_label(text, where=where))
    number = class_number(label.removeprefix("-"))
    if number is None:
        return label
    return -number if label.startswith("-") else number
