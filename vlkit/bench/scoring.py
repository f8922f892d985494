"""Scoring at scale: made embeddings of many images against many languages, its time and its memory.

The engine is run as users run it; only the encoders are none: they look embeddings up in tables.

B images or texts of one batch, E embedding width, P rows of a table.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlkit.bench.figures import Figures
from vlkit.bench.memory import PeakMemory
from vlkit.bench.ranks import on_ranks
from vlkit.errors import VlkitError
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.tasks.engine import iter_scores
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask
from vlkit.languages import all_languages
from vlkit.types import Sample, TextBatch

_BATCH = 4096
_PERIOD = 4093  # prime: sums of two rows of the tables are different for 16 million numbers
_MOST = _PERIOD**2


def bench_scoring(*, images: int = 50_000, dim: int = 512, languages: int = 10, classes: int = 1000) -> Figures:
    """Scores in a fresh process, so that its memory is that of the evaluation alone.

    English is none of the languages, so that each is scored once.

    Raises:
        VlkitError: More languages than there are, more classes than images, or more images than can be told apart.
    """
    known = len(_tags(None))
    if not 1 <= languages <= known:
        raise VlkitError(f"--languages {languages}: must be 1 to {known}")
    if not 1 <= classes <= images <= _MOST:
        raise VlkitError(f"--images {images} --classes {classes}: images must be 1 to {_MOST:,}, classes 1 to images")
    arguments = {"images": images, "dim": dim, "languages": languages, "classes": classes}
    return Figures(**on_ranks("vlkit.bench.scoring:measure", arguments, ranks=1)[0], **arguments)


def measure(*, images: int, dim: int, languages: int, classes: int) -> dict[str, Any]:
    """What a fresh process does; seconds are wall-clock time, megabytes 10^6 bytes."""
    tags = _tags(languages)
    with PeakMemory() as memory:
        model, start = Tables(dim), time.perf_counter()
        samples = [Sample(key=str(n), images=(partial(_picture, n),), captions={}, split="test") for n in range(images)]
        names = {tag: [(f"{tag} {k}",) for k in range(classes)] for tag in tags}
        task = ZeroShotTask("scoring", samples, names, [n % classes for n in range(images)])
        row_s = row_cpu_s = 0.0
        for scores in iter_scores(model, task, encoding=Encoding(batch_size=_BATCH)):
            before, cpu_before = time.perf_counter(), time.process_time()
            scores.values(task)
            row_s, row_cpu_s = row_s + time.perf_counter() - before, row_cpu_s + time.process_time() - cpu_before
        score_s = time.perf_counter() - model.encoded - row_s
        score_cpu_s = time.process_time() - model.encoded_cpu - row_cpu_s
    return {
        "language_s": score_s / languages,  # class embeddings and the ranks of all images
        "language_cpu_s": score_cpu_s / languages,  # which other work on the machine changes less
        "row_s": row_s / languages,  # the figures of a language's row, with the interval of top-1 by bootstrap
        "score_s": score_s,  # all languages, without the rows
        "features_s": model.encoded - start,  # to make the embeddings and write them to the file
        "peak_rss_mb": memory.peak_rss_mb,
        "peak_anonymous_mb": memory.peak_anonymous_mb,
        "start_rss_mb": memory.start_rss_mb,  # before there was any image: Python and its libraries
        "features_mb": images * dim * 4 / 1e6,  # the file of embeddings
        "threads": torch.get_num_threads(),
    }


class Tables:
    """An image-text model without encoders: the embedding of a number is the sum of rows of two tables."""

    def __init__(self, dim: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.one_PE, self.other_PE = (torch.randn(_PERIOD, dim, generator=generator) for _ in range(2))
        self.place = {tag: number for number, tag in enumerate(_tags(None))}
        self.encoded = self.encoded_cpu = 0.0  # when the last image was, by ``perf_counter`` and ``process_time``

    def transform(self, image: Image.Image) -> Tensor:
        """The number that is the colour of the image."""
        return torch.tensor(int.from_bytes(image.tobytes(), "big"))

    def encode_image(self, pixels_B: Tensor) -> Tensor:
        """image_BE of numbers."""
        image_BE = self.one_PE[pixels_B % _PERIOD] + self.other_PE[pixels_B // _PERIOD % _PERIOD]
        self.encoded, self.encoded_cpu = time.perf_counter(), time.process_time()
        return image_BE

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Number of the language and of the class, which are the text."""
        pairs = [text.split() for text in texts]
        ids_B2 = torch.tensor([[self.place[tag], int(number)] for tag, number in pairs])
        return TextBatch(ids_B2, torch.ones_like(ids_B2))

    def encode_text(self, tokens: TextBatch) -> Tensor:
        """text_BE: near those of the images whose number is the class, but for a part of the language's own."""
        language_B, class_B = tokens.ids_BL.T
        return self.one_PE[class_B % _PERIOD] + 0.5 * self.other_PE[(class_B * 31 + language_B) % _PERIOD]


def _picture(number: int) -> Image.Image:
    return Image.frombytes("RGB", (1, 1), number.to_bytes(3, "big"))


def _tags(count: int | None) -> list[str]:
    return [row.tag for row in all_languages() if row.tag != "en"][:count]
