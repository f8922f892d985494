"""The forms in which retrieval sets are published.

Each reader takes the user's own files (by language code) and the folder of images, and gives samples for
``RetrievalTask``. All raise DataError that names what is wrong: files, languages, captions, images that are not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlkit.data.formats.text_files import read_lines, read_object, read_objects
from vlkit.data.sources.captions.collect import Collector
from vlkit.errors import DataError, counted
from vlkit.types import Sample

_IMAGE_KEYS = ("image", "img_path")
_CAPTION_KEYS = ("caption", "sentences")


def read_babel_json(path: Path, images: Path) -> tuple[Sample, ...]:
    """XTD, xFlickrCO and Crossmodal-3600 as Babel-ImageNet's repository has them.

    The form is ``{"images": [name, ...], "captions": {language: [[caption, ...], ...]}}``, a list for each image.
    """
    content = read_object(path)
    names, captions = content.get("images"), content.get("captions")
    if not isinstance(names, list) or not isinstance(captions, dict):
        raise DataError(f'{path}: must be {{"images": [names], "captions": {{language: [[captions], ...]}}}}')
    found = Collector(path)
    _refuse_repeats(names, path)
    known = [found.image(name, where=f"image {number}") for number, name in enumerate(names)]
    for code, lists in captions.items():
        tag = found.language(code)
        if not isinstance(lists, list) or len(lists) != len(names):
            length = len(lists) if isinstance(lists, list) else type(lists).__name__
            found.problem(f"{code}: {length} lists of captions for {len(names)} images")
            continue
        for number, (name, texts) in enumerate(zip(known, lists, strict=True)):
            if tag and name:
                found.add(name, tag, texts, where=f"{code}, image {number} ({name})")
    return found.samples(images)


def read_crossmodal3600(path: Path, images: Path) -> tuple[Sample, ...]:
    """Crossmodal-3600's own ``captions.jsonl`` (Thapliyal et al. 2022); images are ``KEY.jpg``.

    A line is ``{"image/key": KEY, "en": {"caption": [...], ...}, "fil": {...}, ...}``; other ``image/...`` entries and
    tokenized captions are passed over.
    """
    found = Collector(path)
    seen: list[str] = []
    for where, record in read_objects(path):
        key = record.get("image/key")
        name = found.image(f"{key}.jpg" if isinstance(key, str) and key else key, where=f"{where}: image/key")
        if name is None:
            continue
        seen.append(name)
        for code, entry in record.items():
            if code.startswith("image/"):
                continue
            if not isinstance(entry, dict) or "caption" not in entry:
                found.problem(f'{where}: {code!r} must be {{"caption": [...]}}')
            elif tag := found.language(code, system="xm3600"):
                found.add(name, tag, entry["caption"], where=f"{where}: {code}")
    _refuse_repeats(seen, path)
    return found.samples(images)


def read_aligned_lines(names: Path, captions: Mapping[str, Sequence[Path]], images: Path) -> tuple[Sample, ...]:
    """Multi30K's and XTD's own text files: line n of each holds a caption of the image in line n of ``names``.

    ``captions`` are several files a language where images have several captions; all files may be ``.gz``.
    """
    found = Collector(names)
    lines = [line.strip() for line in read_lines(names)]
    _refuse_repeats(lines, names)
    known = [found.image(line, where=f"{names}:{number}") for number, line in enumerate(lines, start=1)]
    for code, paths in captions.items():
        tag = found.language(code)
        columns = [[line.strip() for line in read_lines(path)] for path in paths]
        for path, column in zip(paths, columns, strict=True):
            if len(column) != len(lines):
                found.problem(f"{path} has {len(column)} lines for the {len(lines)} images of {names}")
        if any(len(column) != len(lines) for column in columns):
            continue
        for number, (name, texts) in enumerate(zip(known, zip(*columns, strict=True), strict=True), start=1):
            if tag and name:
                found.add(name, tag, list(texts), where=f"{', '.join(map(str, paths))}:{number}")
    return found.samples(images)


def read_caption_jsonl(captions: Mapping[str, Path], images: Path) -> tuple[Sample, ...]:
    """One JSONL file a language, one line an image with a list of captions.

    Lines are ``{"image": name, "caption": [...]}`` (Flickr30K-CN and COCO-CN as M2-Encoder has them) or
    ``{"img_path": name, "sentences": [...]}`` (xFlickrCO of IGLUE). Images that several files name are one.
    """
    found = Collector(Path(", ".join(map(str, captions.values()))))
    for code, path in captions.items():
        tag = found.language(code)
        for where, record in read_objects(path):
            image_key = next((key for key in _IMAGE_KEYS if key in record), None)
            caption_key = next((key for key in _CAPTION_KEYS if key in record), None)
            if image_key is None or caption_key is None:
                found.problem(f"{where}: expected 'image' and 'caption', or 'img_path' and 'sentences'")
                continue
            name = found.image(record[image_key], where=where)
            if tag and name:
                found.add(name, tag, record[caption_key], where=where)
    return found.samples(images)


def read_coco_captions(path: Path, images: Path, *, language: str) -> tuple[Sample, ...]:
    """COCO's ``captions_train2017.json`` (Lin et al. 2014; Chen et al. 2015), and sets in the same form.

    The form is ``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}``; an annotation may name
    the ``language`` of its caption, else it is ``language``. Images without a caption are passed over.
    """
    content = read_object(path)
    listed, annotations = content.get("images"), content.get("annotations")
    if not isinstance(listed, list) or not isinstance(annotations, list):
        raise DataError(
            f'{path}: must be {{"images": [{{"id", "file_name"}}], "annotations": [{{"image_id", "caption"}}]}}'
        )
    found = Collector(path)
    names = {one.get("id"): one.get("file_name") for one in listed if isinstance(one, dict)}
    _refuse_repeats(list(names.values()), path)
    texts: dict[object, dict[str, list[str]]] = {}
    for number, one in enumerate(annotations):
        where = f"annotation {number}"
        if not isinstance(one, dict) or one.get("image_id") not in names:
            found.problem(
                f"{where}: its image_id {one.get('image_id') if isinstance(one, dict) else one!r} is no image's id"
            )
        elif not isinstance(caption := one.get("caption"), str):
            found.problem(f"{where}: its caption must be text")
        elif code := found.language(str(one.get("language") or language)):
            texts.setdefault(one["image_id"], {}).setdefault(code, []).append(" ".join(caption.split()))
    for one, by_language in texts.items():
        name = found.image(names[one], where=f"image {one}: file_name")
        for code, captions in by_language.items():
            if name:
                found.add(name, code, captions, where=f"image {one} ({name}), {code}")
    return found.samples(images)


def _refuse_repeats(names: Sequence[object], path: Path) -> None:
    counts = Counter(name for name in names if isinstance(name, str))
    if repeated := [name for name, count in counts.items() if name and count > 1]:
        raise DataError(f"{path}: {counted(repeated)} images stand there more than once")
