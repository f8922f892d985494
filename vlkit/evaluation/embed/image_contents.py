"""What images hold, in 64 bits each: one that was replaced under its old name is another image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlkit.data.formats.images import LazyImage, StoredImage, image_place
from vlkit.distributed.collectives import shared_errors
from vlkit.errors import DataError
from vlkit.evaluation.embed.encode import read_ahead
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.files import file_state
from vlkit.models.feature_store import Numbers, key_of
from vlkit.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH = 64


def image_contents(samples: Sequence[Sample], *, encoding: Encoding, may_fail: bool = False) -> Numbers:
    """Of the first image of each of N samples, whatever it is called and wherever it lies; 0 for those without one.

    They are those of the encoded bytes, which are read but not decoded; of images that have none, of the pixels. Each
    is looked at by one of the processes, and for an ``Encoding`` once, unless its file changes.

    With ``may_fail`` what is wrong with an image that cannot be read stands for what it holds.

    Raises:
        DataError: An image that cannot be read, without ``may_fail``.
    """
    firsts = [sample.images[0] for sample in samples if sample.images]
    contents = iter(picture_contents(firsts, encoding=encoding, may_fail=may_fail).tolist())
    return np.array([next(contents) if sample.images else 0 for sample in samples], dtype=np.int64)


def picture_contents(pictures: Sequence[Callable[[], Image]], *, encoding: Encoding, may_fail: bool = False) -> Numbers:
    """The same of N images that are in no sample; one that stands there several times is looked at once.

    Raises:
        DataError: An image that cannot be read, without ``may_fail``.
    """
    ranks, known = encoding.ranks, encoding.contents
    images = {image_version(one): one for one in pictures}
    missing = [(mark, image) for mark, image in images.items() if mark not in known]
    mine, found = missing[ranks.rank :: ranks.size], list[int]()
    with shared_errors(ranks):
        batches = (mine[start : start + _BATCH] for start in range(0, len(mine), _BATCH))
        for batch in read_ahead(batches, lambda one: _content(one[1], may_fail), workers=encoding.workers):
            found += batch
    for rank, contents in enumerate(ranks.gather_objects(found)):
        turn = missing[rank :: ranks.size]
        # the image is kept, so that no other one takes its id
        known.update((mark, (image, content)) for (mark, image), content in zip(turn, contents, strict=True))
    return np.array([known[image_version(one)][1] for one in pictures], dtype=np.int64)


def image_version(image: Callable[[], Image]) -> tuple[object, ...]:
    """What tells an image and its versions apart: its file, where in it, and last the state of the file."""
    place = image_place(image)
    return (id(image),) if place is None else (*place, file_state(place[0]))


def _content(image: Callable[[], Image], may_fail: bool) -> int:
    if isinstance(image, LazyImage | StoredImage):
        try:
            return key_of(image.read())
        except (OSError, DataError):
            pass  # why is said by what decodes it
    try:
        picture = image().convert("RGB")
    except DataError as error:
        if not may_fail:
            raise
        return key_of(str(error))
    return key_of(picture.size, picture.tobytes())
