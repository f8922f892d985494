"""Data sets of the Hugging Face hub: parquet files with an image and captions in each row, fetched once and pinned."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from vlkit.data.formats.images import StoredImage
from vlkit.data.formats.parquet import read_rows
from vlkit.data.sources.captions.collect import Collector
from vlkit.errors import AssetError, DataError
from vlkit.parts.assets import hub
from vlkit.paths import local_path
from vlkit.spec.sources import HUB, HubData
from vlkit.types import Sample


def read_hub_data(source: HubData) -> tuple[Sample, ...]:
    """The samples of a data set in the hub's layout; images are read when they are needed, by row group.

    Raises:
        MissingPackage: pyarrow is not installed.
        DataError: It is not there, or its files are missing or wrong.
    """
    folder = _folder(source)
    files = _files(folder, source)
    found = Collector(folder)
    tags = {code: found.language(code) for code in source.captions}
    columns = [[name] for name in dict.fromkeys(source.captions.values())]
    images: dict[str, StoredImage] = {}
    for path in files:
        rows = read_rows(path, images=[source.image], columns=columns)
        for number, cell in enumerate(rows.cells):
            where = f"{path}: row {number}"
            texts = {code: _texts(rows.columns[name][number]) for code, name in source.captions.items()}
            name = f"{path.relative_to(folder)}:{number}"
            if not any(texts.values()) or found.image(name, where=where) is None:
                continue
            for code, tag in tags.items():
                if tag is not None:
                    found.add(name, tag, texts[code], where=where)
            images[name] = StoredImage(cell, f"row {number} in {path}", path)
    return found.samples_of(images)


def _texts(cell: Any) -> Any:
    """One caption or several as a list, blank ones left out; what is neither is told by who takes them."""
    if cell is None or isinstance(cell, str):
        cell = [] if cell is None else [cell]
    return [text for text in cell if not isinstance(text, str) or text.strip()] if isinstance(cell, list) else cell


def _patterns(source: HubData) -> list[str]:
    """Names that the files of a split have on the hub."""
    if source.files is not None:
        return [source.files]
    split = source.hub_split or source.split
    places = [f"{source.subset}/"] if source.subset else ["", "data/"]
    return [f"{place}{split}{rest}" for place in places for rest in ("-*.parquet", ".parquet", "/*.parquet")]


def _folder(source: HubData) -> Path:
    if not source.path.startswith(HUB):
        folder = local_path(source.path)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; a data set of the hub reads {HUB}ORG/NAME")
        return folder
    barred = f"{forbidden} is set" if (forbidden := hub.offline()) else hub.unreachable(hub.endpoint())
    name = source.path.removeprefix(HUB)
    try:
        return hub.snapshot(
            name, _patterns(source), local_only=barred is not None, revision=source.revision, repo_type="dataset"
        )
    except AssetError as error:
        missing = f"it is not in the hub's cache, and {hub.endpoint()} was not asked ({barred})"
        why = missing if barred else f"{hub.endpoint()} says {error}"
        raise DataError(
            f"no data set {name!r} of revision {source.revision}: {why}; give a folder in the hub's layout, or set "
            f"HF_ENDPOINT to a hub that can be reached"
        ) from error


def _files(folder: Path, source: HubData) -> list[Path]:
    patterns = _patterns(source)
    there = {path: path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.parquet"))}
    files = [path for path, name in there.items() if any(fnmatch(name, pattern) for pattern in patterns)]
    if not files:
        names = ", ".join(list(there.values())[:5]) or "no parquet files"
        raise DataError(
            f"{source.path}: no file fits {' or '.join(patterns)}; there are: {names}; see hub_split, subset and files"
        )
    return files
