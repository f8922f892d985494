"""Images that a model makes of prompts, each once: they lie in files, from which a stopped run goes on."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image as PillowImage

from vlkit.data.formats.images import LazyImage
from vlkit.distributed.collectives import shared_errors
from vlkit.errors import VlkitError
from vlkit.evaluation.embed.encode import evaluating
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.identity import painter_key
from vlkit.files import digest, write_atomic
from vlkit.progress import Bar, bar
from vlkit.types import Painter

if TYPE_CHECKING:
    from PIL.Image import Image


class Prompt(NamedTuple):
    """A text in a language (BCP 47)."""

    language: str
    text: str


@dataclass(frozen=True)
class Drawing:
    """How images are made.

    Attributes:
        num_images: Of each prompt, of seeds ``seed``, ``seed`` + 1, ...
        settings: Further arguments of the model's ``generate``.
        batch_size: About how many at a time.
    """

    num_images: int = 4
    seed: int = 0
    settings: Mapping[str, Any] | None = None
    batch_size: int = 16

    @property
    def key(self) -> list[tuple[str, Any]]:
        """All that decides images beside model, prompt and seed."""
        return sorted((self.settings or {}).items())


@contextmanager
def drawn_images(
    model: Painter, prompts: Sequence[Prompt], drawing: Drawing, *, encoding: Encoding
) -> Iterator[dict[Prompt, tuple[LazyImage, ...]]]:
    """The images of each prompt in the order of their seeds, made where they are not there yet.

    They lie in the cache, in a folder of the model; without a cache they are there inside the block alone. A file is
    known by prompt, language, seed and settings, and one that is damaged is made again. Processes share the work.

    Raises:
        VlkitError: The model gave other than it was asked for, or its weights cannot be known and there is a cache.
    """
    ranks, distinct = encoding.ranks, list(dict.fromkeys(prompts))
    with tempfile.TemporaryDirectory(prefix="vlkit-drawn-") as scratch:
        folder = Path(ranks.gather_objects(scratch)[0])
        if encoding.cache is not None:
            key = ranks.gather_objects(None if encoding.follows else painter_key(model))[0]
            folder = encoding.cache / f"drawn-{key}"
        files = {one: _files(folder, one, drawing) for one in distinct}
        found = [] if encoding.follows else [one for one in distinct if not all(map(_whole, files[one]))]
        missing: list[Prompt] = ranks.gather_objects(found)[0]
        quiet = encoding.quiet or encoding.follows or not missing
        with bar("drawing", total=len(distinct) * drawing.num_images, unit="images", quiet=quiet) as shown:
            shown.advance((len(distinct) - len(missing)) * drawing.num_images)
            _draw(model, missing, drawing, files, encoding, shown)
        yield {one: tuple(LazyImage(path, str(path)) for path in paths) for one, paths in files.items()}
        ranks.barrier()  # the scratch folder of rank 0 is read by all


def _files(folder: Path, prompt: Prompt, drawing: Drawing) -> list[Path]:
    seeds = range(drawing.seed, drawing.seed + drawing.num_images)
    return [folder / f"{digest([*prompt, seed, drawing.key])}.png" for seed in seeds]


def _whole(path: Path) -> bool:
    """Whether an image is there, from its first byte to its last."""
    try:
        with PillowImage.open(path) as image:
            image.verify()
    except (OSError, SyntaxError):  # the latter of a broken PNG
        return False
    return True


def _draw(
    model: Painter,
    prompts: Sequence[Prompt],
    drawing: Drawing,
    files: Mapping[Prompt, Sequence[Path]],
    encoding: Encoding,
    shown: Bar,
) -> None:
    ranks, size = encoding.ranks, max(1, drawing.batch_size // drawing.num_images)
    groups = [list(group) for _, group in groupby(sorted(prompts), key=lambda prompt: prompt.language)]
    batches = [group[start : start + size] for group in groups for start in range(0, len(group), size)]
    count = 0
    with shared_errors(ranks), evaluating(model):
        for batch in batches[ranks.rank :: ranks.size]:
            images = iter(_made(model, batch, drawing))
            for prompt in batch:
                for path in files[prompt]:
                    write_atomic(path, _png(next(images)))
            count += len(batch) * drawing.num_images
            shown.advance(len(batch) * drawing.num_images)
    encoding.counts.drawn += sum(ranks.gather_objects(count))


def _made(model: Painter, batch: Sequence[Prompt], drawing: Drawing) -> list[Image]:
    texts, told = [prompt.text for prompt in batch], dict(drawing.settings or {})
    images = model.generate(texts, language=batch[0].language, seed=drawing.seed, num_images=drawing.num_images, **told)
    wanted = len(batch) * drawing.num_images
    if len(images) != wanted:
        raise VlkitError(
            f"generate of a {type(model).__name__} gave {len(images)} images for {len(batch)} prompts with num_images "
            f"= {drawing.num_images}; it has to give {wanted}, those of one prompt after those of another"
        )
    return images


def _png(image: Image) -> bytes:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="PNG")
    return stream.getvalue()
