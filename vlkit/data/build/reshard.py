"""Any images with captions to WebDataset shards: smaller images, fewer languages, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch.utils.data import Dataset

from vlkit import files
from vlkit.data.batches.workers import in_workers
from vlkit.data.build.writer import ShardWriter, record_bytes, said_of
from vlkit.data.formats.caption_forms import tag
from vlkit.data.formats.images import LazyImage, StoredImage, image_mark, open_image
from vlkit.data.formats.shard_index import free_name
from vlkit.data.sources.combine import problems
from vlkit.errors import DataError
from vlkit.foreign import printable
from vlkit.obstacles import Obstacles
from vlkit.outputs import check_folder, check_replaceable, locked
from vlkit.progress import bar
from vlkit.types import Sample, Source

_VERSION = 4  # of what is written; a change makes half-written folders start anew
_CHUNK = 16  # samples that go to a worker together
_CHECKED_AT = 64  # pixels of the shorter side at which copied images are looked at
_KEPT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "AVIF": "avif", "JPEG2000": "jp2"}
_PROGRESS = "progress.json"
_SUMMARY = "summary.json"
_LISTS = ("sizes.json", _SUMMARY)
_AGAIN = "run the same command again, it goes on from there"


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

    A call that was interrupted goes on behind the last whole shard when it is made again, unless captions, images or
    options changed; one that had ended has nothing to do. The folder appears when all is written. ``workers`` read and
    resize; the bytes do not depend on them. With ``overwrite``, shards that were written so before are replaced, but
    never those that are read.

    Raises:
        VlkitError: The folder holds something, an option is out of range, no sample is left, or the disk is full.
    """
    options = checked(options)
    folder = folder.absolute()
    check_place(folder, overwrite=overwrite)
    scratch = folder.parent / f".{folder.name}.partial"
    with files.disk_errors(folder, scratch=scratch, then=_AGAIN), locked(scratch):
        work = _Writing(source, scratch, options)
        written = None if overwrite else _written(folder, work.mark)
        if written is None:
            _check_free(folder, work.inputs, overwrite=overwrite)
            try:
                with bar("writing shards", total=len(source), unit="samples", quiet=quiet) as shown:
                    shown.advance(work.next)
                    work.run(workers, shown.advance)
                work.place(folder)
            except KeyboardInterrupt as stop:
                stop.args = (f"stopped; {work.next:,} of {len(source):,} samples are written: {_AGAIN}",)
                raise
            written = work.written
        shutil.rmtree(scratch)
    return written


def check_place(folder: Path, *, overwrite: bool = False) -> None:
    """Whether shards may be written to a folder, as far as can be said before their source is read.

    Raises:
        VlkitError: It holds something else.
    """
    folder = folder.absolute()
    check_folder(folder)
    if not (folder / _SUMMARY).is_file():
        _check_free(folder, (), overwrite=overwrite)


def _written(folder: Path, mark: str) -> Written | None:
    """What came of an earlier call, where that was the same and read the same."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
        if found["inputs"] == mark and len(list(folder.glob("shard-*.tar"))) == found["shards"]:
            return Written(**{one.name: found[one.name] for one in fields(Written)})
    return None


def _check_free(folder: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise DataError(f"{folder}: is there already; choose another --out, or replace it with --overwrite")
        check_replaceable(
            folder,
            what="shards of vlkit data shard",
            made=lambda there: all((there / name).is_file() for name in _LISTS),
            names=("shard-*.tar", *_LISTS),
            inputs=inputs,
        )


def checked(options: ShardOptions) -> ShardOptions:
    """The options with their languages as BCP 47 tags, in order.

    Raises:
        VlkitError: What is out of range or no language, a line each.
    """
    obstacles = Obstacles()
    for name, value, low, high in (
        ("--per-shard", options.per_shard, 1, 10**7),
        ("--max-mb", options.max_mb, 0.1, 10**6),
        ("--image-size", options.image_size, 16, 8192),
        ("--quality", options.quality, 1, 100),
    ):
        with obstacles.met():
            if value is not None and not low <= value <= high:
                raise DataError(f"{name} {value:g}: must be {low:g} to {high:g}")
    with obstacles.met():
        if options.per_shard is None and options.max_mb is None:
            raise DataError("give --per-shard or --max-mb, or both")
    tags = set[str]()
    for code in options.languages or ():
        with obstacles.met():
            tags.add(tag(code))
    obstacles.refuse()
    return options if options.languages is None else replace(options, languages=tuple(sorted(tags)))


class _Writing:
    """The shards on their way, and what is known of those that are whole."""

    def __init__(self, source: Source, folder: Path, options: ShardOptions) -> None:
        self.source, self.folder, self.options = source, folder, options
        states: dict[Path, str] = {}
        self.mark = _mark(source, options, states)
        self.inputs = tuple(states)
        self.next = 0
        self.sizes: dict[str, int] = {}
        bad = {printable(name): printable(reason) for name, reason in problems(source).items()}
        self.written = Written(0, 0, 0, 0, {}, bad)
        done = _read_progress(folder)
        if done.get("mark") == self.mark:
            self.next, self.sizes = done["next"], done["sizes"]
            self.written = Written(**done["written"])
        for path in (*folder.glob("shard-*.tar"), *folder.glob(".shard-*.part")):
            if path.name not in self.sizes:
                path.unlink()

    def place(self, folder: Path) -> None:
        """Makes the whole shards appear in a folder."""
        if not self.sizes:
            first = next((f"; the first problem: {name}: {why}" for name, why in self.written.bad.items()), "")
            raise DataError(f"no sample is left of {len(self.source)}{first}")
        summary = {**asdict(self.written), "options": asdict(self.options), "inputs": self.mark}
        with files.atomic_folder(folder, then=_AGAIN) as whole:
            for name in self.sizes:
                _give(self.folder / name, whole / name)
            for name, value in zip(_LISTS, (self.sizes, summary), strict=True):
                text = json.dumps(value, indent=1, ensure_ascii=False)
                (whole / name).write_text(text + "\n", encoding="utf-8")

    def run(self, workers: int, advance: Any) -> None:
        """Writes what is not written yet."""
        options, written = self.options, self.written
        limit = None if options.max_mb is None else int(options.max_mb * 1e6)
        start, before = self.next, dict(self.sizes)
        with (
            ShardWriter(self.folder, per_shard=options.per_shard, max_bytes=limit, first=len(self.sizes)) as writer,
            closing(_packed(self.source, options, start=start, workers=workers)) as all_packed,
        ):
            for packed in all_packed:
                if not packed.members:
                    if packed.reason:
                        written.bad[free_name(packed.key, written.bad)] = packed.reason
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
        files.write_atomic(self.folder / _PROGRESS, json.dumps(value))


def _read_progress(folder: Path) -> dict[str, Any]:
    try:
        done: dict[str, Any] = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        whole = all((folder / name).is_file() for name in done["sizes"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return done if whole else {}


def _mark(source: Source, options: ShardOptions, states: dict[Path, str]) -> str:
    """What has to be equal for whole shards to be kept; ``states`` are those of the images' files."""
    contents = hashlib.sha256()
    for index in range(len(source)):
        try:
            sample = source[index]
            said: tuple[object, ...] = (
                sample.key,
                dict(sample.captions),
                said_of(sample),
                sample.concept,
                sample.split,
                sample.license,
                [image_mark(image, states) for image in sample.images],
            )
        except DataError as error:
            said = (str(error),)
        contents.update(repr(said).encode("utf-8", "surrogatepass"))
    return files.digest([_VERSION, asdict(options), len(source), contents.hexdigest()])


def _give(shard: Path, target: Path) -> None:
    """Another name for a shard, so that it is not lost where the folder of the new name does not come about."""
    try:
        os.link(shard, target)
    except OSError:  # a disk without such names
        shard.rename(target)


@dataclass
class _Chunks(Dataset[list[_Packed]]):
    source: Source
    options: ShardOptions

    def __getitem__(self, start: int) -> list[_Packed]:
        stop = min(start + _CHUNK, len(self.source))
        return [self._pack(index) for index in range(start, stop)]

    def _pack(self, index: int) -> _Packed:
        key = printable(self.source.meta(index).key)
        try:
            sample = self.source[index]
            captions = {
                language: texts
                for language, texts in sample.captions.items()
                if self.options.languages is None or language in self.options.languages
            }
            counts = {
                language: count
                for language, count in sample.counts().items()
                if self.options.languages is None or language in self.options.languages
            }
            if not counts:
                return _Packed(index, key, {}, {})
            if not (sample.images or sample.turns):
                raise DataError(f"sample {sample.key!r} has no image")
            members = _members(sample, self.options)
        except DataError as error:
            return _Packed(index, key, {}, {}, printable(str(error)))
        record = record_bytes(
            captions, concept=sample.concept, license=sample.license, split=sample.split, key=sample.key,
            more=said_of(sample),
        )  # fmt: skip
        return _Packed(index, key, {**members, "json": record}, counts)


def _members(sample: Sample, options: ShardOptions) -> dict[str, bytes]:
    """The images of a sample by suffix: `jpg` of one, `0.jpg`, `1.png`, ... of several."""
    written = [encoded_image(sample.key, image, options) for image in sample.images]
    if len(written) == 1:
        return dict(written)
    return {f"{number}.{suffix}": raw for number, (suffix, raw) in enumerate(written)}


def encoded_image(key: str, lazy: Callable[[], Image.Image], options: ShardOptions) -> tuple[str, bytes]:
    """Suffix and bytes of the image to write; every image is decoded once, so that broken ones are found now."""
    size = options.image_size
    if not isinstance(lazy, LazyImage | StoredImage):
        raise DataError(f"{key}: its image has no file")
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


def _packed(source: Source, options: ShardOptions, *, start: int, workers: int) -> Generator[_Packed, None, None]:
    """All samples from ``start`` on, in order."""
    order = range(start, len(source), _CHUNK)
    with closing(in_workers(_Chunks(source, options), workers, order=order, ahead=4)) as chunks:
        for chunk in chunks:
            yield from chunk
