"""The WIT test sets of IGLUE (Bugliarello et al., ICML 2022): captions of Wikipedia's images in eleven languages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from vlkit.data.formats.images import IMAGE_FILES, StoredImage
from vlkit.data.formats.parquet import read_rows
from vlkit.data.formats.text_files import DELIMITERS, read_cells, read_object, read_objects, read_text
from vlkit.data.sources.captions.collect import Collector
from vlkit.errors import DataError, counted
from vlkit.types import Sample

Naming = Literal["wit_ix", "image_idx", "url_name", "url_md5", "file"]
_KEY, _URL, _CAPTION = "wit_ix", "image_url", "caption_reference_description"


def read_wit(
    captions: Mapping[str, Path], images: Path, *, naming: Naming = "wit_ix", names: Path | None = None
) -> tuple[Sample, ...]:
    """IGLUE's ``test_LANGUAGE.jsonl``, one line a caption: ``{"wit_ix", "image_url", "caption_reference_description"}``

    Lines of one ``wit_ix`` are one image, also in other languages; each of its captions is a query, as in IGLUE's own
    evaluation. The set has only the address of each image: ``naming`` says what the files of one's own copy are called.

    Args:
        captions: Language code -> file.
        images: The folder of images. Their endings do not matter: a vector drawing (.svg) has to be a picture there.
        naming: ``wit_ix`` (wit-test_15.jpg), ``image_idx`` (57.jpg), ``url_name`` (the last part of the address, as it
            is or decoded), ``url_md5`` (MD5 of the address in hex digits), or ``file``.
        names: For ``file``: a CSV or TSV table of key and file name, or a JSON object; keys are ``wit_ix`` or address.

    Raises:
        DataError: Files that are missing or wrong; the message lists the images that are not there.
    """
    found = Collector(Path(", ".join(map(str, captions.values()))))
    records: dict[str, Mapping[str, Any]] = {}
    for code, path in captions.items():
        tag = found.language(code)
        texts: dict[str, list[str]] = {}
        for where, record in read_objects(path):
            if not isinstance(record.get(_CAPTION), str) or not isinstance(record.get(_URL), str):
                found.problem(f"{where}: expected {_KEY!r}, {_URL!r} and {_CAPTION!r}")
                continue
            name = found.image(record.get(_KEY), where=f"{where}: {_KEY}")
            if name is None:
                continue
            if record[_URL] not in _addresses(records.setdefault(name, record)):
                found.problem(f"{where}: {name} is {record[_URL]} here and {records[name][_URL]} above")
            texts.setdefault(name, []).append(record[_CAPTION])
        for name, listed in texts.items():
            if tag:
                found.add(name, tag, listed, where=f"{path}: {name}")
    return found.samples(images, _files(records, images, naming, names))


def _files(
    records: Mapping[str, Mapping[str, Any]], images: Path, naming: Naming, names: Path | None
) -> dict[str, str]:
    """The file name of each image that has one."""
    if naming == "file" and names is not None:
        listed = _table(names)
        keys = {key: [key, *_addresses(record)] for key, record in records.items()}
        return {
            key: listed[one] for key, options in keys.items() if (one := next((o for o in options if o in listed), ""))
        }
    there: dict[str, str] = {}
    for path in sorted(images.iterdir()) if images.is_dir() else []:
        if path.suffix.lower() in IMAGE_FILES and (first := there.setdefault(path.stem, path.name)) != path.name:
            raise DataError(f"{images}: {first} and {path.name} differ in their endings alone; leave one")
    stems = {key: _stems(record, naming) for key, record in records.items()}
    return {
        key: there[stem] for key, options in stems.items() if (stem := next((s for s in options if s in there), ""))
    }


def _stems(record: Mapping[str, Any], naming: Naming) -> list[str]:
    if naming == "url_md5":
        return [hashlib.md5(url.encode(), usedforsecurity=False).hexdigest() for url in _addresses(record)]
    if naming == "url_name":
        name = PurePosixPath(urlsplit(record[_URL]).path).name
        # x.jpg, and x.svg.png of a vector drawing
        return [stem for one in (name, unquote(name)) for stem in (PurePosixPath(one).stem, one)]
    return [str(record.get(naming))]


def _addresses(record: Mapping[str, Any]) -> list[str]:
    """The address as it stands there, and by the other scheme: lines of one image differ in it."""
    rest = record[_URL].partition("://")[2]
    return list(dict.fromkeys([record[_URL], f"https://{rest}", f"http://{rest}"]))


def _table(path: Path) -> dict[str, str]:
    if path.suffix.lower() == ".json":
        content = read_object(path)
        if wrong := [key for key, name in content.items() if not isinstance(name, str)]:
            raise DataError(f"{path}: {counted(wrong)}: must be file names")
        return content
    delimiter = DELIMITERS.get(path.suffix.lower(), ",")
    found: dict[str, str] = {}
    for number, row in read_cells(read_text(path), path, delimiter=delimiter):
        if len(row) != 2:
            raise DataError(f"{path}:{number}: {len(row)} columns, expected two: wit_ix or address, and file name")
        found[row[0].strip()] = row[1].strip()
    return found


def read_caption_parquet(captions: Mapping[str, Sequence[Path]]) -> tuple[Sample, ...]:
    """mteb/wit as it is on the hub: columns ``image`` {bytes, path}, ``image_id`` and ``captions``, a list.

    Rows of one ``image_id`` in several languages are one image, that of the first file. Blank captions are left out, as
    mteb does, and images of which none remains.

    Args:
        captions: Language code -> files.

    Raises:
        MissingPackage: pyarrow is not installed.
        DataError: Files that are missing or wrong.
    """
    found = Collector(Path(", ".join(str(path) for paths in captions.values() for path in paths)))
    images: dict[str, StoredImage] = {}
    for code, paths in captions.items():
        tag = found.language(code)
        for path in paths:
            rows = read_rows(path, images=["image"], columns=[["image_id"], ["captions"]])
            columns = (rows.columns["image_id"], rows.columns["captions"], rows.cells)
            for number, (key, texts, cell) in enumerate(zip(*columns, strict=True)):
                where = f"{path}: row {number}"
                if isinstance(texts, list):
                    texts = [text for text in texts if not isinstance(text, str) or text.strip()]
                if texts == [] or (name := found.image(key, where=where)) is None or tag is None:
                    continue
                found.add(name, tag, texts, where=where)
                images.setdefault(name, StoredImage(cell, f"{name} in {path}", path))
    return found.samples_of(images)
