"""From a path of whatever form to a collection of labelled images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from vlkit.data.formats.archives import Member, list_archives, list_members
from vlkit.data.formats.folders import files_in, is_hidden
from vlkit.data.formats.images import USUAL, StoredImage
from vlkit.data.formats.parquet import read_rows
from vlkit.data.sources.classes.collection import Collection, LabelledImage, read_label
from vlkit.data.sources.classes.image_labels import read_image_labels
from vlkit.data.sources.classes.shard_images import CLASS_NAMES, SHARD_COUNT, has_label_members, read_shards, shards_of
from vlkit.data.sources.shards import expand
from vlkit.data.sources.tree import SPLITS
from vlkit.errors import DataError, some
from vlkit.foreign import clean, file_name
from vlkit.paths import is_pattern, local_path

_IMAGES = ("image", "jpg", "webp", "png")  # columns of parquet files
_LABELS = ("label", "cls")


def find_images(
    path: str,
    *,
    labels_file: Path | None = None,
    is_class: Sequence[Callable[[str], bool]] = (),
    wordnet: bool = False,
) -> Collection:
    """The images under a path, with their labels. No image is read.

    Known are: a folder, tar or zip with a folder (or tar) for each class; the same without folders and with a
    ``labels_file``; WebDataset shards with a label in ``.cls`` or ``.json``, alone or with CLIP_benchmark's files; and
    parquet files as on the Hugging Face hub. Which one it is follows from what is there.

    Args:
        path: A file, a folder, or a pattern of files (``val-{000..007}.tar``, ``data/validation-*.parquet``).
        labels_file: See image_labels.read_image_labels; for images that lie in no folders.
        is_class: Which names of folders are classes: the first of these that any folder meets decides, and folders
            around classes (``imagenet-r/``) are passed over. Without, those at the top are classes, of an archive the
            first that do not hold all the others.
        wordnet: Labels are WordNet ids.

    Raises:
        DataError: Nothing there, damaged, of no known form, or an image without a label.
    """
    root = local_path(path)
    if is_pattern(path):
        files = expand(str(root))
    else:
        files = _parquet_files(root)
    if files and all(file.suffix.lower() == ".parquet" for file in files):
        _refuse(labels_file, "parquet files")
        return read_parquet(files)
    if files:
        members = list_archives(files)
        return _collect(path, members, labels_file, is_class=is_class, wordnet=wordnet, wrapped=True)
    if not root.exists():
        raise DataError(f"{path}: no such folder of images, nor file")
    if (shards := _shard_folder(root)) is not None:
        _refuse(labels_file, "WebDataset shards")
        return shards
    members = list_members(root)
    if root.is_dir() and labels_file is None:
        _refuse_empty_folders(root, members, is_class)
    return _collect(path, members, labels_file, is_class=is_class, wordnet=wordnet, wrapped=root.is_file())


def _parquet_files(root: Path) -> tuple[Path, ...]:
    """The parquet files of a path: itself, those in it, or those in its folder ``data``."""
    if root.is_file():
        return (root,) if root.suffix.lower() == ".parquet" else ()
    found = files_in(root, "*.parquet") or files_in(root, "data/*.parquet")
    splits = sorted({file.name.split("-")[0] for file in found})
    if len(splits) > 1 and len(found) > 1:
        raise DataError(
            f"{root}: holds parquet files of several splits ({some(splits)}); name one, for example "
            f"{found[0].parent / (splits[-1] + '-*.parquet')}"
        )
    return tuple(found)


def _shard_folder(root: Path) -> Collection | None:
    """CLIP_benchmark's layout: ``test/{0..n}.tar`` with ``nshards.txt``, and ``classnames.txt`` above."""
    folders = [root, *(root / split for split, meant in SPLITS.items() if meant != "train")] if root.is_dir() else []
    split = next((folder for folder in folders if (folder / SHARD_COUNT).is_file()), None)
    if split is None:
        return None
    names = next((file for one in (split, split.parent) if (file := one / CLASS_NAMES).is_file()), None)
    return read_shards(str(split), list_archives(shards_of(split)), names)


def _collect(
    path: str,
    members: Sequence[Member],
    labels_file: Path | None,
    *,
    is_class: Sequence[Callable[[str], bool]],
    wordnet: bool,
    wrapped: bool,
) -> Collection:
    images = [member for member in members if member.is_image]
    if not images:
        raise DataError(f"{path}: no image in it ({USUAL})")
    if has_label_members(members):
        _refuse(labels_file, "WebDataset shards")
        return read_shards(path, members, None)
    if labels_file is not None:
        names = [member.name for member in images]
        labels = read_image_labels(labels_file, names, wordnet=wordnet)
        short = [PurePosixPath(name).name for name in names]
        names = short if len(set(short)) == len(short) else names
        listed = zip(images, labels, names, strict=True)
        return Collection(path, tuple(_image(member, label, name) for member, label, name in listed))
    parts = [PurePosixPath(member.name).parts for member in images]
    depths = _class_depths(parts, is_class, wrapped=wrapped)
    flat = [member.where for member, one, depth in zip(images, parts, depths, strict=True) if len(one) < depth + 2]
    if flat:
        raise DataError(
            f"{path}: {len(flat)} of {len(images)} images lie in no folder of a class: {some(flat)}; give a "
            f"labels_file that says of which class each is, or sort them into a folder for each class"
        )
    _refuse_splits(path, parts, depths)
    sorted_in = zip(images, parts, depths, strict=True)
    return Collection(
        path, tuple(_image(member, one[depth], "/".join(one[depth + 1 :])) for member, one, depth in sorted_in)
    )


def _image(member: Member, label: str, name: str) -> LabelledImage:
    return LabelledImage(read_label(label, where=member.where), name, member.image(), member.where)


def _class_depths(
    parts: Sequence[tuple[str, ...]], is_class: Sequence[Callable[[str], bool]], *, wrapped: bool
) -> list[int]:
    """How many folders are around the folder of each image's class."""
    common = 0
    # folders that hold all images, and none directly, are no classes
    while (
        (wrapped or is_class or parts[0][common].lower() in SPLITS)
        and all(len(one) > common + 2 for one in parts)
        and len({one[common] for one in parts}) == 1
    ):
        common += 1
    for known in is_class:
        found = [next((depth for depth, part in enumerate(one[:-1]) if known(part)), None) for one in parts]
        if any(depth is not None for depth in found):
            return [common if depth is None else depth for depth in found]
    return [common] * len(parts)


def _refuse_splits(path: str, parts: Sequence[tuple[str, ...]], depths: Sequence[int]) -> None:
    """Refuses ``train`` and ``val`` side by side, where classes or the folders around them are looked for."""
    nested = all(len(one) > depth + 2 for one, depth in zip(parts, depths, strict=True))
    for place in range(max(depths) + 1):
        found = {one[place] for one, depth in zip(parts, depths, strict=True) if place < depth + nested}
        splits = sorted(name for name in found if name.lower() in SPLITS)
        if len(splits) > 1 and (place < min(depths) or len(splits) == len(found)):
            raise DataError(
                f"{path}: {' and '.join(splits)} are splits of one set, not classes; name one of them "
                f"({path}/{splits[-1]}), in an archive unpack it first"
            )


def _refuse(labels_file: Path | None, what: str) -> None:
    if labels_file is not None:
        raise DataError(f"labels_file = {labels_file}: {what} bring their labels; leave it out")


def _refuse_empty_folders(root: Path, members: Sequence[Member], is_class: Sequence[Callable[[str], bool]]) -> None:
    filled = {PurePosixPath(one.name).parts[0] for one in members if one.is_image or one.name.lower().endswith(".tar")}
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or is_hidden(folder.name) or file_name(folder.name) in filled:
            continue
        if root.resolve().is_relative_to(folder.resolve()):  # a link to a folder around it
            continue
        if not is_class or any(one(folder.name) for one in is_class):
            raise DataError(f"{folder}: has no image ({USUAL})")


def read_parquet(files: Sequence[Path]) -> Collection:
    """The rows of one or several files: ``image`` ``{bytes, path}`` and ``label``, a number or a text.

    ``jpg``, ``png`` or ``webp`` and ``cls`` (converted WebDataset shards) are read as well. Images are named by
    ``path`` where each has one of its own in its class, else by their row.

    Raises:
        MissingPackage: pyarrow is not installed.
        DataError: A file is missing or damaged, lacks a column, or numbers its classes otherwise than the first one.
    """
    listed: list[LabelledImage] = []
    names: tuple[str, ...] = ()
    for number, file in enumerate(files):
        rows = read_rows(file, images=_IMAGES, columns=[_LABELS])
        paths = rows.columns.get(f"{_IMAGES[0]}.path", [None] * len(rows.cells))
        own = tuple(clean(str(name)) for name in rows.features.get(_LABELS[0], {}).get("names") or ())
        if number and own != names:
            raise DataError(f"{file}: names its classes otherwise than {files[0]}; give files of one data set")
        names = own
        for row, (label, name, cell) in enumerate(zip(rows.columns[_LABELS[0]], paths, rows.cells, strict=True)):
            where = f"{file}: row {row}"
            label = read_label(label, where=where)
            listed.append(LabelledImage(label, file_name(str(name or "")), StoredImage(cell, where, file), where))
    called = {(image.label, image.name) for image in listed if image.name}
    if len(called) < len(listed):
        listed = [
            LabelledImage(image.label, f"row-{row:08d}", image.image, image.where) for row, image in enumerate(listed)
        ]
    return Collection(str(files[0]) if len(files) == 1 else str(files[0].parent), tuple(listed), names)
