"""Any images with captions to WebDataset shards: smaller images, fewer languages, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch.utils.data import Dataset

from vlkit import files
from vlkit.data.batches.workers import in_workers
from vlkit.data.build.writer import ShardWriter, record_bytes
from vlkit.data.formats.caption_forms import tag
from vlkit.data.formats.images import LazyImage, StoredImage, open_image
from vlkit.data.sources.combine import problems
from vlkit.errors import DataError
from vlkit.progress import bar
from vlkit.types import Sample, Source

_VERSION = 2  # of what is written; a change makes half-written folders start anew
_CHUNK = 16  # samples that go to a worker together
_CHECKED_AT = 64  # pixels of the shorter side at which copied images are looked at
_KEPT = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_PROGRESS = "progress.json"


@dataclass(frozen=True)
class ShardOptions:
    """What is written.

    ``per_shard`` samples or ``max_mb`` megabytes (10^6 bytes) a shard at most, either or both. ``image_size``: images
    whose shorter side has more pixels are made that small, as JPEGs of ``quality``; the others are copied as they are.
    ``languages``: BCP 47 tags to keep.
    """

    per_shard: int | None = 1000
    max_mb: float | None = None
    image_size: int | None = None
    quality: int = 90
    languages: tuple[str, ...] | None = None


@dataclass
class Written:
    """What came of it. ``bad``: name -> reason of what was left out; ``left_out`` had no caption in the languages."""

    samples: int
    shards: int
    bytes: int
    left_out: int
    languages: dict[str, int]
    bad: dict[str, str]


class _Packed(NamedTuple):
    number: int
    key: str
    members: dict[str, bytes]
    counts: dict[str, int]
    reason: str = ""


def write_shards(
    source: Source,
    folder: Path,
    options: ShardOptions,
    *,
    workers: int = 2,
    overwrite: bool = False,
    quiet: bool = False,
) -> Written:
    """Writes a source as shards with ``sizes.json`` (name -> samples) and ``summary.json``.

    A call that was interrupted goes on behind the last whole shard when it is made again. The folder appears when all
    is written. ``workers`` read and resize; the bytes do not depend on them.

    Raises:
        DataError: The folder holds something, an option is out of range, or no sample is left.
    """
    options = _checked(options)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise DataError(f"{folder}: is there already; choose another --out, or replace it with --overwrite")
    scratch = folder.parent / f".{folder.name}.partial"
    work = _Writing(source, scratch, options)
    with bar("writing shards", total=len(source), unit="samples", quiet=quiet) as shown:
        shown.advance(work.next)
        work.run(workers, shown.advance)
    if not work.sizes:
        first = next((f"; the first problem: {name}: {why}" for name, why in work.written.bad.items()), "")
        raise DataError(f"no sample is left of {len(source)}{first}")
    with files.atomic_folder(folder) as whole:
        for name in work.sizes:
            (scratch / name).rename(whole / name)
        (whole / "sizes.json").write_text(json.dumps(work.sizes, indent=1) + "\n", encoding="utf-8")
        summary = {**asdict(work.written), "options": asdict(options)}
        (whole / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.rmtree(scratch)
    return work.written


def _checked(options: ShardOptions) -> ShardOptions:
    for name, value, low, high in (
        ("--per-shard", options.per_shard, 1, 10**7),
        ("--max-mb", options.max_mb, 0.1, 10**6),
        ("--image-size", options.image_size, 16, 8192),
        ("--quality", options.quality, 1, 100),
    ):
        if value is not None and not low <= value <= high:
            raise DataError(f"{name} {value:g}: must be {low:g} to {high:g}")
    if options.per_shard is None and options.max_mb is None:
        raise DataError("give --per-shard or --max-mb, or both")
    if options.languages is None:
        return options
    return replace(options, languages=tuple(sorted({tag(code) for code in options.languages})))


class _Writing:
    """The shards on their way, and what is known of those that are whole."""

    def __init__(self, source: Source, folder: Path, options: ShardOptions) -> None:
        self.source, self.folder, self.options = source, folder, options
        self.mark = _mark(source, options)
        self.next = 0
        self.sizes: dict[str, int] = {}
        self.written = Written(0, 0, 0, 0, {}, dict(problems(source)))
        done = _read_progress(folder)
        if done.get("mark") == self.mark:
            self.next, self.sizes = done["next"], done["sizes"]
            self.written = Written(**done["written"])
        for path in folder.glob("*") if folder.is_dir() else ():
            if path.name not in (*self.sizes, _PROGRESS):
                path.unlink()

    def run(self, workers: int, advance: Any) -> None:
        """Writes what is not written yet."""
        options, written = self.options, self.written
        limit = None if options.max_mb is None else int(options.max_mb * 1e6)
        start, before = self.next, dict(self.sizes)
        with ShardWriter(self.folder, per_shard=options.per_shard, max_bytes=limit, first=len(self.sizes)) as writer:
            for packed in _packed(self.source, options, start=start, workers=workers):
                if not packed.members:
                    if packed.reason:
                        written.bad[packed.key] = packed.reason
                    else:
                        written.left_out += 1
                else:
                    if writer.write(f"{packed.number:09d}", packed.members):
                        self._shard_done(writer, before, packed.number)
                    written.samples += 1
                    for language, count in packed.counts.items():
                        written.languages[language] = written.languages.get(language, 0) + count
                advance()
        self._shard_done(writer, before, len(self.source), last=True)

    def _shard_done(self, writer: ShardWriter, before: Mapping[str, int], index: int, *, last: bool = False) -> None:
        """Notes all but the shard at hand as whole; ``index`` is the first sample that is in none of them."""
        names = list(writer.sizes) if last else list(writer.sizes)[:-1]
        self.sizes = {**before, **{name: writer.sizes[name] for name in names}}
        self.written.shards = len(self.sizes)
        self.written.bytes = sum((self.folder / name).stat().st_size for name in self.sizes)
        self.next = index
        value = {"mark": self.mark, "next": index, "sizes": self.sizes, "written": asdict(self.written)}
        files.write_atomic(self.folder / _PROGRESS, json.dumps(value, ensure_ascii=False))


def _read_progress(folder: Path) -> dict[str, Any]:
    try:
        done: dict[str, Any] = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        whole = all((folder / name).is_file() for name in done["sizes"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return done if whole else {}


def _mark(source: Source, options: ShardOptions) -> str:
    """What has to be equal for whole shards to be kept."""
    keys = hashlib.sha256()
    for index in range(len(source)):
        keys.update(repr(source.meta(index)).encode())
    return files.digest([_VERSION, asdict(options), len(source), keys.hexdigest()])


@dataclass
class _Chunks(Dataset[list[_Packed]]):
    source: Source
    options: ShardOptions

    def __getitem__(self, start: int) -> list[_Packed]:
        stop = min(start + _CHUNK, len(self.source))
        return [self._pack(index) for index in range(start, stop)]

    def _pack(self, index: int) -> _Packed:
        key = self.source.meta(index).key
        try:
            sample = self.source[index]
            captions = {
                language: texts
                for language, texts in sample.captions.items()
                if self.options.languages is None or language in self.options.languages
            }
            if not captions:
                return _Packed(index, key, {}, {})
            suffix, raw = _image(sample, self.options)
        except DataError as error:
            return _Packed(index, key, {}, {}, str(error))
        counts = {language: len(texts) for language, texts in captions.items()}
        record = record_bytes(
            captions, concept=sample.concept, license=sample.license, split=sample.split, key=sample.key
        )
        return _Packed(index, key, {suffix: raw, "json": record}, counts)


def _image(sample: Sample, options: ShardOptions) -> tuple[str, bytes]:
    """Suffix and bytes of the image to write; every image is decoded once, so that broken ones are found now."""
    size = options.image_size
    lazy = sample.image
    if not isinstance(lazy, LazyImage | StoredImage):
        raise DataError(f"{sample.key}: its image has no file")
    try:
        raw = lazy.read()
    except OSError as error:
        raise DataError(f"cannot read image {lazy.name}: {error.strerror or error}") from error
    # Twice the side that is wanted leaves the resizing filter enough to work with.
    image = open_image(raw, draft_size=2 * size if size else _CHECKED_AT, name=lazy.name)
    with Image.open(io.BytesIO(raw)) as header:
        kind, shorter = header.format or "", min(header.size)
    if size is not None and shorter > size:
        scale = size / min(image.size)
        small = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC
        )
        return "jpg", _encoded(small, "JPEG", quality=options.quality)
    if kind in _KEPT:
        return _KEPT[kind], raw
    return "png", _encoded(open_image(raw, name=lazy.name), "PNG")  # a format that readers of shards may not expect


def _encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def _packed(source: Source, options: ShardOptions, *, start: int, workers: int) -> Iterator[_Packed]:
    """All samples from ``start`` on, in order."""
    for chunk in in_workers(_Chunks(source, options), workers, order=range(start, len(source), _CHUNK), ahead=4):
        yield from chunk
