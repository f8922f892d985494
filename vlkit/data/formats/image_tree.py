"""A folder of images: each with its captions in a file beside it, or sorted into folders named after what they show."""

from __future__ import annotations

from pathlib import Path, PurePath

from vlkit.data.formats.caption_forms import CaptionError
from vlkit.data.formats.images import LazyImage
from vlkit.data.formats.tar_index import IMAGE_SUFFIXES, read_record
from vlkit.errors import DataError
from vlkit.types import Sample, SampleMeta

IMAGE_FILES = {f".{suffix}" for suffix in (*IMAGE_SUFFIXES, "gif", "bmp", "tif", "tiff")}
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


class TreeSource:
    """Samples of a folder of images, with all folders in it, sorted by path.

    Where one image has a ``.json`` or ``.txt`` of the same name, all need one; else the name of an image's folder is
    its caption and its concept ("golden_retriever": "golden retriever"). A first folder named train, val, validation
    or test is the split.

    Args:
        folder: The folder.
        language: BCP 47 tag of folder names and of captions that name none themselves.

    Attributes:
        problems: Path -> reason of the images that had to be left out.

    Raises:
        DataError: No folder, or no image in it that has a caption.
    """

    def __init__(self, folder: Path, *, language: str | None = None) -> None:
        self.folder = folder
        self.problems: dict[str, str] = {}
        self._samples: list[Sample] = []
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_FILES and path.is_file())
        paired = any(_beside(path) for path in images)
        if images and not paired and language is None:
            raise DataError(f"{folder}: the names of its folders are captions; say in which language (--language en)")
        for path in images:
            name = path.relative_to(folder).as_posix()
            try:
                self._samples.append(_sample(path, name, paired=paired, language=language))
            except (CaptionError, OSError) as error:
                self.problems[name] = str(error)
        if not self._samples:
            first = next((f"; the first problem: {name}: {why}" for name, why in self.problems.items()), "")
            raise DataError(f"{folder}: no image with a caption ({len(images)} images){first}")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        """One sample; its image is read and decoded when called for."""
        return self._samples[index]

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages."""
        sample = self._samples[index]
        counts = tuple(len(texts) for texts in sample.captions.values())
        return SampleMeta(sample.key, sample.concept, sample.split, tuple(sample.captions), counts)


def _beside(image: Path) -> Path | None:
    return next((file for suffix in (".json", ".txt") if (file := image.with_suffix(suffix)).is_file()), None)


def _sample(path: Path, name: str, *, paired: bool, language: str | None) -> Sample:
    first, *more = PurePath(name).parts
    split = _SPLITS.get(first.lower(), "train") if more else "train"
    concept = ""
    if paired:
        beside = _beside(path)
        if beside is None:
            raise CaptionError("no .json or .txt beside it")
        raw, plain = beside.read_bytes(), beside.suffix == ".txt"
    else:
        if not more:
            raise CaptionError("neither a .json or .txt beside it nor a folder that names what it shows")
        concept = path.parent.name
        raw, plain = concept.replace("_", " ").encode(), True
    record = read_record(raw, plain=plain, language=language)
    if not record["captions"]:
        raise CaptionError("it has no caption text")
    if record["split"] == "train":
        record["split"] = split
    return Sample(
        name,
        LazyImage(path, str(path)),
        record["captions"],
        record["concept"] or concept,
        record["split"],
        record["license"],
    )
