"""A folder of images that visitors search with words; embeddings are kept on disk.

N images, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vlkit.data.formats.archives import list_members
from vlkit.demo.room import ShownModel
from vlkit.errors import DataError
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.image_features import ImageFeatures, image_features
from vlkit.evaluation.embed.texts import embed_texts
from vlkit.evaluation.search.image_index import nearest_rows
from vlkit.files import home
from vlkit.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 512  # longest side in pixels of what the page shows


class Found(NamedTuple):
    """An image that answers a search, with its cosine."""

    name: str
    score: float
    image: Image


def list_images(place: Path) -> list[Sample]:
    """The images of a folder or archive, in the order of their names.

    Raises:
        DataError: There is no such place, or no image in it.
    """
    members = [member for member in list_members(place) if member.is_image]
    if not members:
        raise DataError(f"{place} holds no images; give a folder of images, or a tar or zip of them")
    return [Sample(member.name, (member.image(),), captions={}) for member in members]


class Photos:
    """Images, and their embeddings by each model that can search them.

    Args:
        samples: The images; those that cannot be read are left out: ``unread`` has the reason by name.
        stack: Keeps the embeddings open as long as the page is.
    """

    def __init__(self, samples: Sequence[Sample], *, stack: ExitStack) -> None:
        self.samples = list(samples)
        self.unread: dict[str, str] = {}
        self._stack = stack
        self._features: dict[str, ImageFeatures] = {}

    def embed(self, shown: ShownModel) -> None:
        """Embeds all images with a model; what is known of them already is read from disk.

        Raises:
            DataError: None of the images can be read.
        """
        try:
            self._features[shown.name] = self._read(shown)
        except DataError:
            self._leave_out_unread()
            self._features[shown.name] = self._read(shown)

    def _read(self, shown: ShownModel) -> ImageFeatures:
        encoding = Encoding(cache=home() / "embeddings", quiet=False)
        return self._stack.enter_context(image_features(shown.model, self.samples, encoding=encoding))

    def _leave_out_unread(self) -> None:
        readable = []
        for sample in self.samples:
            try:
                sample.image()
            except DataError as error:
                self.unread[sample.key] = str(error)
            else:
                readable.append(sample)
        if not readable:
            first = next(iter(self.unread.values()))
            raise DataError(f"none of {len(self.samples)} images can be read; the first: {first}")
        self.samples = readable

    def search(self, shown: ShownModel, text: str, *, language: str, most: int) -> list[Found]:
        """The images most like a text, best first."""
        text_1E = embed_texts(shown.model, [text], language=language)
        (score_K,), (row_K,) = nearest_rows(self._features[shown.name], text_1E, k=most)
        pairs = zip(score_K.tolist(), row_K.tolist(), strict=True)
        return [Found(self.samples[row].key, score, _small(self.samples[row])) for score, row in pairs]


def _small(sample: Sample) -> Image:
    image = sample.image()
    image.thumbnail((SIDE, SIDE))
    return image
