"""From the spec of a published set of captioned images to its samples."""

from __future__ import annotations

from pathlib import Path

from vlkit.data.sources.captions import readers, wit
from vlkit.spec import sources as spec
from vlkit.types import Sample


def open_caption_set(source: spec.CaptionSet) -> tuple[Sample, ...]:
    """Images with captions in all their languages; no image is read, but each must be there.

    Raises:
        DataError: Files that are missing or wrong.
    """
    if isinstance(source, spec.CaptionParquet):
        return wit.read_caption_parquet(
            {code: [_path(path) for path in paths] for code, paths in source.captions.items()}
        )
    images = _path(source.images)
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
    return readers.read_caption_jsonl({code: _path(path) for code, path in source.captions.items()}, images)


def _path(path: str) -> Path:
    return Path(path).expanduser()
