"""Image-text retrieval by language: images are encoded once, captions language by language.

N images, M texts of a language, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from vlkit import languages as language_table
from vlkit.distributed.collectives import shared_errors
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.embed.encode import Embedder
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.image_features import image_features
from vlkit.evaluation.embed.texts import check_languages, embed_texts
from vlkit.evaluation.metrics.intervals import Interval, bootstrap_interval
from vlkit.evaluation.metrics.recall import KS, Retrieval, retrieval
from vlkit.files import digest
from vlkit.types import Sample


@dataclass(frozen=True)
class RetrievalTask:
    """Images to be found by their captions, and captions by their images.

    Attributes:
        name: Names the task in results.
        samples: The images; their captions are the texts.
        captions: Take ``all`` captions of an image as queries, or the ``first`` of each language alone (as
            CLIP_benchmark does for Crossmodal-3600; the figures differ by several points).
        gallery: Candidates of a language's captions: the images with a caption in that ``language``, or ``all``.
        tokenizer_languages: See ``ZeroShotTask``.
    """

    name: str
    samples: Sequence[Sample]
    captions: Literal["all", "first"] = "all"
    gallery: Literal["language", "all"] = "language"
    tokenizer_languages: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.samples:
            raise DataError(f"task {self.name!r} has no images")
        if not self.languages:
            raise DataError(f"task {self.name!r} has no captions")

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags in the order in which they first occur."""
        return tuple(dict.fromkeys(tag for sample in self.samples for tag, texts in sample.captions.items() if texts))

    @property
    def digest(self) -> str:
        """Hex digest of the images' keys and all captions, for provenance."""
        images = [(sample.key, sample.captions) for sample in self.samples]
        return digest([self.name, self.captions, self.gallery, images, sorted(self.tokenizer_languages.items())])

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """Tags of the languages asked for; all of the task for None.

        Raises:
            UnknownName: Not a language, or one without captions.
        """
        if languages is None:
            return self.languages
        tags = tuple(dict.fromkeys(language_table.normalize(code) for code in languages))
        for tag in tags:
            if tag not in self.languages:
                raise UnknownName(f"language of task {self.name}", tag, allowed=self.languages)
        return tags

    def texts(self, language: str) -> tuple[list[str], list[int]]:
        """The captions of a language, and for each the row of its image."""
        last = 1 if self.captions == "first" else None
        pairs = [(text, n) for n, one in enumerate(self.samples) for text in one.captions.get(language, ())[:last]]
        return [text for text, _ in pairs], [row for _, row in pairs]


@dataclass(frozen=True)
class RetrievalRow:
    """Retrieval of one model in one language; recalls are shares in 0..1.

    ``text_to_image`` and ``image_to_text`` are the 95 % intervals of the recalls at 1, with images as clusters.
    """

    task: str
    variant: str
    language: str
    captions: str
    result: Retrieval
    text_to_image: Interval
    image_to_text: Interval

    def plain(self) -> dict[str, Any]:
        """The row for a JSON file or a table, with CLIP_benchmark's names for the recalls."""
        there, back = self.result.text_to_image, self.result.image_to_text
        return {
            "task": self.task,
            "variant": self.variant,
            "language": self.language,
            "captions": self.captions,
            "n_images": self.result.n_images,
            "n_texts": self.result.n_texts,
            **self.result.metrics(),
            "image_retrieval_ci_low": self.text_to_image.low,
            "image_retrieval_ci_high": self.text_to_image.high,
            "text_retrieval_ci_low": self.image_to_text.low,
            "text_retrieval_ci_high": self.image_to_text.high,
            "image_retrieval_median_rank": there.median_rank,
            "text_retrieval_median_rank": back.median_rank,
            "n_tied": there.n_tied + back.n_tied,
        }


def evaluate_retrieval(
    model: Embedder,
    task: RetrievalTask,
    *,
    languages: Iterable[str] | None = None,
    variant: str = "model",
    ks: Sequence[int] = KS,
    seed: int = 0,
    encoding: Encoding | None = None,
) -> list[RetrievalRow]:
    """One row a language; each image is encoded once whatever their number, each caption once.

    Args:
        model: Any image-text model, or a pair of functions.
        task: Images with captions.
        languages: BCP 47 tags or other codes; None takes all of the task.
        variant: What results call the model.
        ks: Numbers of candidates to look at.
        seed: Of the bootstrap.
        encoding: Batches, cache and processes.

    Raises:
        UnknownName: A language that is none, or that the task has no captions in.
    """
    encoding, tags = Encoding() if encoding is None else encoding, task.choose(languages)
    ranks = encoding.ranks
    with shared_errors(ranks):
        check_languages(model, tags, spoken=task.tokenizer_languages)
    rows = []
    with image_features(model, task.samples, encoding=encoding) as features:
        for tag in tags:
            texts, owners = task.texts(tag)
            text_ME = embed_texts(model, texts, language=task.tokenizer_languages.get(tag, tag), encoding=encoding)
            owner_M = torch.tensor(owners)
            images_N = torch.arange(len(features))
            if task.gallery == "language":
                images_N, owner_M = torch.unique(owner_M, return_inverse=True)
            found = retrieval(features[images_N], text_ME, image_of_text_M=owner_M, ks=ks, ranks=ranks)
            rows.append(_row(task, found, owner_M, variant=variant, language=tag, seed=seed))
    return rows


def _row(
    task: RetrievalTask, found: Retrieval, owner_M: torch.Tensor, *, variant: str, language: str, seed: int
) -> RetrievalRow:
    there, back = found.text_to_image, found.image_to_text
    return RetrievalRow(
        task=task.name,
        variant=variant,
        language=language,
        captions=task.captions,
        result=found,
        text_to_image=bootstrap_interval((there.rank_Q == 1).numpy(), owner_M.numpy(), seed=seed),
        image_to_text=bootstrap_interval((back.rank_Q == 1).numpy(), back.queries.numpy(), seed=seed),
    )
