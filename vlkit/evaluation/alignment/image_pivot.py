"""Images in the place of the pivot's sentences: an image-text model's images against the names of what they show.

N pairs of an image and a text, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vlkit.data.formats.text_files import read_lines
from vlkit.errors import DataError, UnknownName, VlkitError, counted
from vlkit.evaluation.alignment.parallel_texts import EMOJI_NAMES, ParallelTexts
from vlkit.evaluation.alignment.scores import pair_scores
from vlkit.evaluation.embed.encode import embed_images
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.paths import local_path
from vlkit.types import ImageTextModel, Sample

OPENMOJI = "openmoji"


@dataclass(frozen=True)
class ImageScores:
    """Images against the texts of one language, the pivot's too; shares in 0..1. See ``PairScores``.

    Attributes:
        n: Pairs; chance of the three shares below but ``mexa`` is 1/n.
        n_excluded: Lines without a text in the language or the pivot, or whose embedding is not finite.
        p1_image_to_text: Share of images whose strictly nearest text is their own: zero-shot top-1 where ties lose.
        english_swap: Share of texts that the pivot's texts, in the place of class prototypes, put into their own class.
    """

    language: str
    n: int
    n_excluded: int
    mexa: float
    mexa_chance: float
    p1_image_to_text: float
    p1_text_to_image: float
    english_swap: float


def open_images(name: str, texts: ParallelTexts) -> tuple[Sample, ...]:
    """An image for each line of ``texts``, in order.

    ``name`` is ``openmoji`` for the drawings of ``emoji-names``; or a text file whose line n names the image of line n,
    relative to the file.

    Raises:
        DataError: Files that are missing or do not fit the texts.
    """
    if name != OPENMOJI:
        return _listed(local_path(name), texts)
    from vlkit.data.sources.open import open_source
    from vlkit.spec.sources import BuiltSource

    if texts.name != EMOJI_NAMES:
        raise DataError(f"images {OPENMOJI} go with texts {EMOJI_NAMES}; for {texts.name} name a file of image names")
    source = open_source(BuiltSource(name="openmoji"))
    places = {source.meta(index).key: index for index in range(len(source))}
    if missing := [key for key in texts.keys if key not in places]:
        raise DataError(f"the built drawings lack {counted(missing)} of {len(texts.keys)} emoji; build them anew")
    return tuple(source[places[key]] for key in texts.keys)


def _listed(path: Path, texts: ParallelTexts) -> tuple[Sample, ...]:
    from vlkit.data.formats.images import LazyImage

    names = [line.strip() for line in read_lines(path)]
    if len(names) != len(texts.keys):
        raise DataError(
            f"{path} names {len(names)} images for the {len(texts.keys)} lines of {texts.name}; line n must name the "
            f"image of line n"
        )
    if missing := [name for name in names if not name or not (path.parent / name).is_file()]:
        raise DataError(f"{path}: {counted(missing)} of {len(names)} images are not there; names are relative to it")
    return tuple(Sample(name, (LazyImage(path.parent / name, str(path.parent / name)),), {}) for name in names)


def embed_pivot_images(
    model: ImageTextModel | None, samples: Sequence[Sample], *, lines: int, encoding: Encoding | None = None
) -> Tensor:
    """L2-normalised image_NE, one for each of the ``lines`` of text.

    Raises:
        VlkitError: There is no image side, or not one image a line.
    """
    if len(samples) != lines:
        raise VlkitError(f"{len(samples)} images for {lines} lines of text; need one a line")
    if model is None:
        raise VlkitError("a text model has no images to compare with; give an image-text model, or leave images out")
    images = (sample.image() for sample in samples)
    names = [sample.key for sample in samples]
    return embed_images(model, images, names=names, total=len(names), encoding=encoding)


def score_images(
    image_NE: Tensor, text_NE: Mapping[str, tuple[Sequence[int], Tensor]], *, pivot: str
) -> tuple[ImageScores, ...]:
    """Scores of each language, the pivot's first, whose texts stand for the classes in ``english_swap``.

    ``image_NE`` has a row a line; ``text_NE`` by BCP 47 tag numbers of the lines and the model's own embeddings of
    their texts.

    Raises:
        UnknownName: The pivot is not among the languages.
    """
    if pivot not in text_NE:
        raise UnknownName("language", pivot, allowed=text_NE)
    pivot_rows, pivot_NE = text_NE[pivot]
    place = {row: number for number, row in enumerate(pivot_rows)}
    found = []
    for tag in dict.fromkeys([pivot, *text_NE]):
        rows, own_NE = text_NE[tag]
        seen = pair_scores(image_NE[list(rows)].numpy(), own_NE.numpy())
        swapped = pair_scores(pivot_NE[[place[row] for row in rows]].numpy(), own_NE.numpy())
        found.append(
            ImageScores(
                language=tag,
                n=seen.n,
                n_excluded=len(image_NE) - seen.n,
                mexa=seen.mexa,
                mexa_chance=seen.mexa_chance,
                p1_image_to_text=seen.p1_from_pivot,
                p1_text_to_image=seen.p1_to_pivot,
                english_swap=swapped.p1_to_pivot,
            )
        )
    return tuple(found)
