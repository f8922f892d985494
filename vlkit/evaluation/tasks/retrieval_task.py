"""Image-text retrieval by language: images are encoded once, captions language by language.

N images, M texts of a language, E embedding width.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch

from vlkit.data.sources.combine import Subset
from vlkit.data.sources.open import open_source
from vlkit.distributed.collectives import shared_errors
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.abilities import EMBEDS, Ability
from vlkit.evaluation.embed.encode import Embedder
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.image_features import image_features
from vlkit.evaluation.embed.texts import check_languages, embed_texts
from vlkit.evaluation.metrics.intervals import bootstrap_interval
from vlkit.evaluation.metrics.recall import KS, Retrieval, best_images, retrieval
from vlkit.evaluation.results.examples import FoundImages
from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.results.results_file import Value
from vlkit.evaluation.tasks.task import Fact, PlainTask, Scored, choose_languages
from vlkit.files import digest
from vlkit.spec.evaluation import RetrievalSpec
from vlkit.types import Sample

_EXAMPLES, _SHOWN = 4, 5  # captions of a language that are kept to be looked at, and images to each
_SIDES = (("image", "text to image", "t2i"), ("text", "image to text", "i2t"))
MEASURES = Measures(
    kind="retrieval",
    headline="mean_recall",
    metrics={
        **{
            f"{side}_retrieval_recall@{k}": Measure(
                f"{title} R@{k}",
                f"{short}@{k}",
                low=f"{side}_retrieval_ci_low" if k == KS[0] else "",
                high=f"{side}_retrieval_ci_high" if k == KS[0] else "",
            )
            for side, title, short in _SIDES
            for k in KS
        },
        "mean_recall": Measure("mean recall"),
        **{f"{side}_retrieval_median_rank": Measure(share=False) for side, _, _ in _SIDES},
        "chance": Measure(),
    },
    published="image_retrieval_recall@1",
    bars=("image_retrieval_recall@1", "text_retrieval_recall@1"),
    alike={"n_images": "images", "n_texts": "texts", "captions": "captions"},
    chance="chance",
    chance_of="image_retrieval_recall@1",
    table="retrieval",
    explained=f"R@k, for k of {', '.join(map(str, KS))}: queries with a right answer among the best k; mean recall is "
    "the mean of them all.",
)
"""Recalls under CLIP_benchmark's names: shares of queries with a right answer among the best k. Intervals take images
as clusters. ``chance``: of text to image at 1, where the images stand in any order. On ``n_tied`` queries a wrong
answer scores exactly as the best right one."""


@dataclass(frozen=True)
class RetrievalTask(PlainTask):
    """Images (``samples``) to be found by their captions, and captions by their images.

    Attributes:
        captions: Take ``all`` captions of an image as queries, or the ``first`` of each language alone (as
            CLIP_benchmark does for Crossmodal-3600; the figures differ by several points).
        gallery: Candidates of a language's captions: the images with a caption in that ``language``, or ``all``.
        tokenizer_languages: See ``ZeroShotTask``.
    """

    measures: ClassVar[Measures] = MEASURES
    needs: ClassVar[Ability] = EMBEDS  # type: ignore[misc]

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

    @property
    def facts(self) -> dict[str, Fact]:  # type: ignore[override]
        """Digests of the captions by language, with the images that they are of."""
        return {"caption_sets": {tag: digest(self.texts(tag)) for tag in self.languages}}

    @property
    def left_out(self) -> dict[str, str]:  # type: ignore[override]
        """Languages with captions of one image alone, where these images are all that there is to find."""
        counts = Counter(tag for sample in self.samples for tag, texts in sample.captions.items() if texts)
        alone = len(self.samples) < 2
        few = [tag for tag in counts if alone or (self.gallery == "language" and counts[tag] < 2)]
        return dict.fromkeys(few, "captions of one image, which leaves nothing to tell apart")

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """See ``Task.choose``; a language needs captions."""
        return choose_languages(languages, self.languages, of=f"task {self.name}", left_out=self.left_out)

    def score(
        self, model: Embedder, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Iterator[Scored]:
        """One row a language, a ``metrics.recall.Retrieval`` as detail; each image and caption is encoded once."""
        encoding = Encoding() if encoding is None else encoding
        with shared_errors(encoding.ranks):
            check_languages(model, languages, spoken=self.tokenizer_languages)
        with image_features(model, self.samples, encoding=encoding) as features:
            for tag in languages:
                texts, owners = self.texts(tag)
                told = self.tokenizer_languages.get(tag, tag)
                text_ME = embed_texts(model, texts, language=told, encoding=replace(encoding, quiet=True))
                owner_M = torch.tensor(owners)
                images_N = torch.arange(len(features))
                if self.gallery == "language":
                    images_N, owner_M = torch.unique(owner_M, return_inverse=True)
                image_NE = features[images_N]
                found = retrieval(image_NE, text_ME, image_of_text_M=owner_M, ranks=encoding.ranks)
                drawn = sorted(random.Random(seed).sample(range(len(texts)), min(_EXAMPLES, len(texts))))
                best = best_images(text_ME[drawn], image_NE, count=_SHOWN)
                ranks_M = found.text_to_image.rank_Q
                examples = [
                    FoundImages(texts[m], owners[m], int(ranks_M[m]), tuple(images_N[rows].tolist()))
                    for m, rows in zip(drawn, best, strict=True)
                ]
                yield Scored(tag, self._values(found, owner_M, seed=seed), detail=found, examples=examples)

    def _values(self, found: Retrieval, owner_M: torch.Tensor, *, seed: int) -> dict[str, Value]:
        there, back = found.text_to_image, found.image_to_text
        image = bootstrap_interval((there.rank_Q == 1).numpy(), owner_M.numpy(), seed=seed)
        text = bootstrap_interval((back.rank_Q == 1).numpy(), back.queries.numpy(), seed=seed)
        return {
            "captions": self.captions,
            "n_images": found.n_images,
            "n_texts": found.n_texts,
            **found.metrics(),
            "image_retrieval_ci_low": image.low,
            "image_retrieval_ci_high": image.high,
            "text_retrieval_ci_low": text.low,
            "text_retrieval_ci_high": text.high,
            "image_retrieval_median_rank": there.median_rank,
            "text_retrieval_median_rank": back.median_rank,
            "n_tied": there.n_tied + back.n_tied,
            "chance": 1 / found.n_images,
        }

    def texts(self, language: str) -> tuple[list[str], list[int]]:
        """The captions of a language, and for each the row of its image."""
        last = 1 if self.captions == "first" else None
        pairs = [(text, n) for n, one in enumerate(self.samples) for text in one.captions.get(language, ())[:last]]
        return [text for text, _ in pairs], [row for _, row in pairs]


def open_retrieval(task: RetrievalSpec, languages: Iterable[str] | None) -> list[RetrievalTask]:
    """Finds the images and captions of a task of a suite; reads no image.

    Raises:
        DataError: Files that are missing or wrong.
        UnknownName: No such split.
    """
    source = open_source(task.source)
    if task.split is not None:
        metas = [source.meta(index) for index in range(len(source))]
        if task.split not in (splits := {meta.split for meta in metas}):
            raise UnknownName(f"split in the data of task {task.name}", task.split, allowed=splits)
        source = Subset(source, [index for index, meta in enumerate(metas) if meta.split == task.split])
    samples = [source[index] for index in range(len(source))]
    told = task.told
    return [RetrievalTask(task.name, samples, captions=task.captions, gallery=task.gallery, tokenizer_languages=told)]
