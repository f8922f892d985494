"""A folder of images: each with its captions in a file beside it, or sorted into folders named after what they show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from vlkit.data.formats.archives import Member, list_members
from vlkit.data.formats.caption_forms import CaptionError
from vlkit.data.formats.conversation_forms import check_places
from vlkit.data.formats.sample_records import read_record
from vlkit.data.sources.combine import SampleList
from vlkit.errors import DataError
from vlkit.types import Sample

SPLITS = {"train": "train", "test": "test", "val": "validation", "validation": "validation"}
"""The split that a folder of this name holds."""


def read_tree(folder: Path, *, language: str | None = None) -> SampleList:
    """The samples of a folder of images (or a tar or zip of one), with all folders in it, sorted by path.

    Where one image has a ``.json`` or ``.txt`` of the same name, all need one; else the name of an image's folder is
    its caption and its concept ("golden_retriever": "golden retriever"). A first folder named train, val, validation
    or test is the split.

    Args:
        folder: The folder, tar or zip.
        language: BCP 47 tag of folder names and of captions that name none themselves.

    Returns:
        The samples; ``problems`` has path and reason of the images that had to be left out.

    Raises:
        DataError: No folder, or no image in it that has a caption.
    """
    if not folder.exists():
        raise DataError(f"{folder}: no such folder")
    members = {member.name: member for member in list_members(folder)}
    images = sorted((one for one in members.values() if one.is_image), key=lambda one: PurePosixPath(one.name).parts)
    paired = any(_beside(image, members) for image in images)
    if images and not paired and language is None:
        raise DataError(f"{folder}: the names of its folders are captions; say in which language (--language en)")
    samples: list[Sample] = []
    problems: dict[str, str] = {}
    for image in images:
        beside = _beside(image, members)
        try:
            if paired and beside is None:
                raise CaptionError("no .json or .txt beside it")
            samples.append(_sample(image, beside, language=language))
        except (CaptionError, DataError) as error:
            problems[image.name] = str(error)
    if not samples:
        first = next((f"; the first problem: {name}: {why}" for name, why in problems.items()), "")
        raise DataError(f"{folder}: no image with a caption ({len(images)} images){first}")
    return SampleList(samples, problems)


def _beside(image: Member, members: Mapping[str, Member]) -> Member | None:
    path = PurePosixPath(image.name)
    return next((members[name] for end in (".json", ".txt") if (name := str(path.with_suffix(end))) in members), None)


def _sample(image: Member, beside: Member | None, *, language: str | None) -> Sample:
    *folders, _ = PurePosixPath(image.name).parts
    split = SPLITS.get(folders[0].lower(), "train") if folders else "train"
    concept = ""
    if beside is not None:
        raw, plain = beside.read(), beside.name.endswith(".txt")
    else:
        if not folders:
            raise CaptionError("neither a .json or .txt beside it nor a folder that names what it shows")
        concept = folders[-1]
        raw, plain = concept.replace("_", " ").encode(), True
    record = read_record(raw, plain=plain, language=language)
    if not (record.captions or record.turns):
        raise CaptionError("it has no caption text")
    check_places(record.turns, 1)
    return Sample(
        image.name,
        (image.image(),),
        record.captions,
        record.concept or concept,
        split if record.split == "train" else record.split,
        record.license,
        turns=record.turns,
        task=record.task,
        translated=record.translated,
        keywords=record.keywords,
    )
