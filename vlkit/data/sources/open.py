"""From source specs to samples: one interface over shards, tables, folders, published sets and what vlkit builds."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from vlkit.data.build.concepts import held_out
from vlkit.data.formats.caption_forms import tag
from vlkit.data.formats.folders import files_in
from vlkit.data.formats.text_files import TABLES
from vlkit.data.sources.captions import hub_data, readers, wit
from vlkit.data.sources.classes.open_classes import captioned, open_images
from vlkit.data.sources.combine import ConcatSource, InLanguages, Named, SampleList, Subset, identities, read_metas
from vlkit.data.sources.dialogues import is_dialogues, read_dialogues, read_native_and_translated
from vlkit.data.sources.shards import ShardSource, expand
from vlkit.data.sources.table import TableSource
from vlkit.data.sources.translations import Translations
from vlkit.data.sources.tree import read_tree
from vlkit.errors import DataError, UnknownName
from vlkit.obstacles import Obstacles
from vlkit.paths import local, local_path
from vlkit.spec import sources as spec
from vlkit.spec.dataset import DataSpec
from vlkit.spec.load import load_recipe
from vlkit.types import Sample, Source

_log = logging.getLogger(__name__)
VALIDATION = "validation"
_SALT = "validation:"


def source_names(sources: Sequence[spec.SourceSpec]) -> list[str]:
    """What metrics call each source: the last part of its path, the whole path where others end so too."""
    paths = [_called(source) for source in sources]
    short = [path.rstrip("/").rpartition("/")[2] or path for path in paths]
    return [path if short.count(name) > 1 else name for path, name in zip(paths, short, strict=True)]


def _called(source: spec.SourceSpec) -> str:
    if isinstance(source, spec.BuiltSource):
        return source.name
    if isinstance(source, spec.ImageClasses):
        return source.images.path
    if isinstance(source, spec.PipelineSource):
        return source.object
    if isinstance(source, spec.AlignedLines):
        return source.names
    if isinstance(source, spec.CaptionJsonl | spec.WitJsonl | spec.CaptionParquet):
        return source.kind
    if isinstance(source, spec.TranslationsSource):
        return f"{_called(source.of)} translations"
    return source.path


def open_source(source: spec.SourceSpec) -> Source:
    """The samples that a source spec describes, all splits; a data set that vlkit builds itself is built if need be.

    Raises:
        DataError: Missing, empty, of a wrong form, or a pipeline, which only streams.
    """
    if isinstance(source, spec.WebDatasetSource):
        return ShardSource(expand(source.path), language=source.language)
    if isinstance(source, spec.FolderSource):
        images = None if source.images is None else Path(source.images)
        return TableSource(Path(source.path), images=images, language=source.language, texts_only=source.texts_only)
    if isinstance(source, spec.BuiltSource):
        return ShardSource(expand(built_path(source)))
    if isinstance(source, spec.ImageTree):
        return read_tree(local_path(source.path), language=source.language)
    if isinstance(source, spec.ImageClasses):
        return captioned(*open_images(source.images, source.labels))
    if isinstance(source, spec.TranslationsSource):
        return Translations(open_source(source.of), reads=tag(source.reads))
    if isinstance(source, spec.PipelineSource):
        raise DataError(f"{source.object}: a pipeline gives its samples one after the other, for training only")
    if isinstance(source, spec.Dialogues | spec.NativeAndTranslated):
        path, images = _path(source.path), None if source.images is None else _path(source.images)
        if isinstance(source, spec.Dialogues):
            return read_dialogues(path, images=images, language=source.language)
        return read_native_and_translated(path, images=images, texts=source.texts)
    return SampleList(open_caption_set(source))


def open_caption_set(source: spec.CaptionSet) -> tuple[Sample, ...]:
    """Images with captions in all their languages; no image is read, but each must be there.

    Raises:
        DataError: Files that are missing or wrong.
    """
    if isinstance(source, spec.CaptionParquet):
        return wit.read_caption_parquet(
            {code: [_path(path) for path in paths] for code, paths in source.captions.items()}
        )
    if isinstance(source, spec.HubData):
        return hub_data.read_hub_data(source)
    images = _path(source.images)
    _check_there(source, images)
    if isinstance(source, spec.WitJsonl):
        files = {code: _path(path) for code, path in source.captions.items()}
        names = None if source.names is None else _path(source.names)
        return wit.read_wit(files, images, naming=source.naming, names=names)
    if isinstance(source, spec.BabelJson):
        return readers.read_babel_json(_path(source.path), images)
    if isinstance(source, spec.Crossmodal3600):
        return readers.read_crossmodal3600(_path(source.path), images)
    if isinstance(source, spec.AlignedLines):
        captions = {code: [_path(path) for path in paths] for code, paths in source.captions.items()}
        return readers.read_aligned_lines(_path(source.names), captions, images)
    if isinstance(source, spec.CocoCaptions):
        return readers.read_coco_captions(_path(source.path), images, language=source.language)
    return readers.read_caption_jsonl({code: _path(path) for code, path in source.captions.items()}, images)


def _check_there(source: spec.CaptionFiles, images: Path) -> None:
    """Whether all is there that a set names, before any of it is read.

    Raises:
        VlkitError: What is missing, a line each.
    """
    if isinstance(source, spec.AlignedLines):
        files = [source.names, *chain.from_iterable(source.captions.values())]
    elif isinstance(source, spec.BabelJson | spec.Crossmodal3600 | spec.CocoCaptions):
        files = [source.path]
    else:
        files = [*source.captions.values()]
    if isinstance(source, spec.WitJsonl) and source.names is not None:
        files.append(source.names)
    obstacles = Obstacles()
    for file in map(_path, files):
        with obstacles.met():
            if not os.path.exists(file):  # noqa: PTH110 - Path.exists raises where a name is too long
                raise DataError(f"cannot read {file}: no such file or directory")
    with obstacles.met():
        if obstacles.found and not images.is_dir():
            raise DataError(f"{images}: no such folder of images")
    obstacles.refuse()


def _path(path: str) -> Path:
    return local_path(path)


def open_path(path: str, *, language: str | None = None) -> Source:
    """What a path holds, told apart by what is there: shards (a tar, a folder of tars, a pattern), a table, or images.

    Of a recipe (``.yaml``) it is what that learns from, all splits.

    Raises:
        DataError: Missing, empty or of a wrong form.
    """
    path = local(path)
    suffix = Path(path).suffix.lower()
    if suffix in (".yaml", ".yml"):
        return open_sources(load_recipe(path).data, split="all")
    if suffix in (".json", ".jsonl") and is_dialogues(Path(path)):
        return read_dialogues(Path(path), language=language)
    if suffix in TABLES:
        return TableSource(Path(path), language=language)
    if suffix == ".zip" or (Path(path).is_dir() and not files_in(Path(path), "*.tar")):
        return read_tree(Path(path), language=language)
    return ShardSource(expand(path), language=language)


def built_path(source: spec.BuiltSource) -> str:
    """The folder of a data set that vlkit builds itself; it is built if need be."""
    from vlkit.data.build.builders import built_folder

    stamps = None if source.source is None else _path(source.source)
    return str(built_folder(source.name, image_size=source.image_size, source=stamps))


def open_sources(data: DataSpec, *, split: str = "train") -> Source:
    """All sources of a recipe as one, restricted to a split.

    Sources that hold no split themselves are of the one that the recipe says (``split``).
    ``data.holdout_concepts`` concepts of "train" are kept back by a stable hash: they are the split "validation" and no
    longer in "train". Samples without a concept count as a concept each. ``split="all"`` takes everything.

    Raises:
        UnknownName: No sample has that split.
        DataError: More concepts are to be kept back than there are.
    """
    names = source_names(data.sources)
    opened = tuple(_named(source, name) for source, name in zip(data.sources, names, strict=True))
    whole: Source = opened[0] if len(opened) == 1 else ConcatSource(opened)
    if split == "all":
        return whole
    metas = read_metas(whole)
    shown: Sequence[str] = [""] * len(metas)
    kept_back: frozenset[str] = frozenset()
    if data.holdout_concepts and split in ("train", VALIDATION):
        shown = identities(whole)
        concepts = {one for one, meta in zip(shown, metas, strict=True) if meta.split == "train"}
        if data.holdout_concepts >= len(concepts):
            raise DataError(
                f"data.holdout_concepts = {data.holdout_concepts} keeps everything back: "
                f"the training split has {len(concepts)} concepts"
            )
        kept_back = held_out(concepts, data.holdout_concepts, salt=_SALT)
    wanted = "train" if kept_back else split
    keep = split == VALIDATION and bool(kept_back)
    indices = [
        index
        for index, (one, meta) in enumerate(zip(shown, metas, strict=True))
        if meta.split == wanted and (one in kept_back) == keep
    ]
    if not indices:
        allowed = {meta.split for meta in metas} | ({VALIDATION} if data.holdout_concepts else set())
        raise UnknownName("split", split, allowed=allowed)
    return whole if len(indices) == len(whole) else Subset(whole, indices)


def _named(source: spec.SourceSpec, name: str) -> Named:
    split = source.split if isinstance(source, spec.HoldsOneSplit) else None
    if split == "train" and isinstance(source, spec.ImageClasses) and isinstance(source.images, spec.ObjectNetImages):
        _log.warning("%s: ObjectNet's license forbids to train on its images", name)
    opened = open_source(source)
    if source.languages is not None:
        opened = InLanguages(opened, frozenset(map(tag, source.languages)))
    return Named(opened, name, split, task_of(source))


def task_of(source: spec.SourceSpec) -> str:
    """What the samples of a source teach that do not say it themselves."""
    if source.task is not None:
        return source.task
    if isinstance(source, spec.ImageClasses) or (isinstance(source, spec.BuiltSource) and source.name != "tuxpaint"):
        return "name"
    if isinstance(source, spec.TranslationsSource):
        return "translate"
    return "caption" if isinstance(source, spec.BuiltSource | spec.CaptionSet) else ""
