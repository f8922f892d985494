"""Every image is encoded once, every text once; languages and prompts only recombine the embeddings.

N images of which C in one chunk, K classes of a language, U of them with names of their own, E embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlkit.distributed.collectives import shared_errors
from vlkit.errors import VlkitError
from vlkit.evaluation.embed.encode import Embedder, device_of, similarity_scale
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.image_features import image_features
from vlkit.evaluation.embed.texts import ClassTexts, check_languages, stream_class_embeddings
from vlkit.evaluation.metrics.intervals import bootstrap_interval, chance, chance_corrected, subset_accuracy
from vlkit.evaluation.results.answers import Answers
from vlkit.evaluation.results.results_file import Value
from vlkit.evaluation.tasks.scorer import ClassEmbeddings, Scorer, first_of_equals
from vlkit.progress import bar

if TYPE_CHECKING:
    from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask

_TOP = 5


@dataclass(frozen=True)
class LanguageScores:
    """What a model answered in one language about the N images that have a class in it.

    Attributes:
        classes: Ids of the K classes with a name in this language.
        images_N: The images, as rows of the task's samples.
        target_N: Their classes, as places in ``classes``.
        rank_N: Rank of the right class, from 1; of equal scores the lower class stands first.
        tolerant_N: The same where classes with just the names of the right one count as right.
        tied_N: True where a class of other names scores exactly as the right one.
        answer_N: The best class, as a place in ``classes``; the right one just where its rank is 1.
        english_N: Rank of the right class with the English names of these K classes; None without them.
        best_NM: The M best places in ``classes``, best first, where they were asked for.
        probability_NM: Theirs in a softmax over all K classes.
        n_ambiguous: Classes that share all their names with another one.
    """

    language: str
    classes: tuple[int, ...]
    images_N: Tensor
    target_N: Tensor
    rank_N: Tensor
    tolerant_N: Tensor
    tied_N: Tensor
    answer_N: Tensor
    english_N: Tensor | None
    best_NM: Tensor
    probability_NM: Tensor
    n_ambiguous: int

    def class_accuracy(self) -> dict[int, float]:
        """Top-1 accuracy of each class that has images, by class id."""
        hits_N, target_N = (self.rank_N == 1).double(), self.target_N.long()
        count_K = torch.bincount(target_N, minlength=len(self.classes))
        right_K = torch.bincount(target_N, weights=hits_N, minlength=len(self.classes))
        return {
            self.classes[place]: (right_K[place] / count_K[place]).item() for place in count_K.nonzero()[:, 0].tolist()
        }

    def values(self, task: ZeroShotTask, *, seed: int = 0) -> dict[str, Value]:
        """The columns of a row, with a 95 % class-cluster bootstrap interval of top-1."""
        hits_N, count = self.rank_N == 1, len(self.classes)
        interval = bootstrap_interval(hits_N.numpy(), self.target_N.numpy(), seed=seed)
        acc1, among = _share(hits_N), math.nan
        if 0 < (size := task.subset_size) <= count:
            among = subset_accuracy(self.rank_N.numpy(), self.target_N.numpy(), num_classes=count, size=size)
        by_class = list(self.class_accuracy().values())
        return {
            "prompt": task.prompt,
            "num_classes": count,
            "n_images": len(self.rank_N),
            "acc1": acc1,
            "acc5": _share(self.rank_N <= _TOP),
            "ci_low": interval.low,
            "ci_high": interval.high,
            "chance": chance(count),
            "chance_corrected": chance_corrected(acc1, count),
            "n_ambiguous": self.n_ambiguous,
            "acc1_tolerant": _share(self.tolerant_N == 1),
            "acc1_en_subset": math.nan if self.english_N is None else _share(self.english_N == 1),
            "mean_per_class_recall": sum(by_class) / len(by_class),
            "mean_reciprocal_rank": self.rank_N.double().reciprocal().mean().item(),
            "n_tied": int(self.tied_N.sum()),
            "median_rank": float(np.median(self.rank_N.numpy())),
            "subset_size": task.subset_size,
            "acc1_subset": among,
        }

    def answers(self) -> Answers:
        """What the model answered to each image, classes by their ids."""
        classes = np.asarray(self.classes, dtype=np.int32)
        return Answers(
            self.images_N.numpy().astype(np.int32),
            classes[self.target_N.numpy()],
            self.rank_N.numpy().astype(np.int32),
            classes[self.answer_N.numpy()],
        )


@dataclass(frozen=True)
class TaskScores:
    """A model's answers on a task by language."""

    task: ZeroShotTask
    languages: Mapping[str, LanguageScores]


def iter_scores(
    model: Embedder,
    task: ZeroShotTask,
    *,
    languages: Iterable[str] | None = None,
    answers: int = 0,
    encoding: Encoding | None = None,
) -> Iterator[LanguageScores]:
    """Answers a task in one language after the other; each image is decoded and encoded once, each text as well.

    ``languages`` None takes all of the task; with English among them, each one is compared with English on its own
    classes. ``answers`` is how many best answers to keep for each image. Memory holds the embeddings of some 65,000
    texts and the scores of one chunk of images; image embeddings are in a file. One process or several give the same,
    bit for bit.

    Raises:
        UnknownName: A language that is none, or that the task has no names in.
        VlkitError: A language that the model's tokenizer has no mark for.
    """
    encoding, tags = Encoding() if encoding is None else encoding, task.choose(languages)
    scale, quiet = similarity_scale(model), encoding.quiet or encoding.follows
    with shared_errors(encoding.ranks):
        check_languages(model, tags, spoken=task.tokenizer_languages)
    if "en" in tags:  # the others are compared with it
        tags = ("en", *(tag for tag in tags if tag != "en"))
    english: _English | None = None
    with (
        image_features(model, task.samples, encoding=encoding) as features,
        bar(f"languages of {task.name}", total=len(tags), unit="languages", quiet=quiet) as shown,
    ):
        names = {tag: task.classes(tag) for tag in tags}
        wanted = [ClassTexts(task.spoken(tag), names[tag][1], task.templates_of(tag)) for tag in tags]
        shown.advance(0, now=tags[0])
        for tag, following, class_KE in zip(
            tags, (*tags[1:], "done"), stream_class_embeddings(model, wanted, encoding=encoding), strict=True
        ):
            ids, listed = names[tag]
            classes = ClassEmbeddings(ids, class_KE, first_of_equals(listed))
            scorer = Scorer(features, task.targets, ids, ranks=encoding.ranks, device=device_of(model))
            scores = _answer(scorer, task, tag, classes, english=english, answers=answers, scale=scale)
            if tag == "en":
                english = _English(classes, scores.rank_N)
                scores = replace(scores, english_N=scores.rank_N)
            yield scores
            shown.advance(now=following)


def score_task(
    model: Embedder,
    task: ZeroShotTask,
    *,
    languages: Iterable[str] | None = None,
    answers: int = _TOP,
    encoding: Encoding | None = None,
) -> TaskScores:
    """``iter_scores`` of all languages, with the best five answers for each image."""
    scored = iter_scores(model, task, languages=languages, answers=answers, encoding=encoding)
    found = {one.language: one for one in scored}
    return TaskScores(task, {tag: found[tag] for tag in task.choose(languages)})


def _answer(
    scorer: Scorer,
    task: ZeroShotTask,
    language: str,
    classes: ClassEmbeddings,
    *,
    english: _English | None,
    answers: int,
    scale: float,
) -> LanguageScores:
    rank_4N, best_NM, probability_NM = scorer.score(classes, answers=answers, scale=scale)
    return LanguageScores(
        language=language,
        classes=classes.ids,
        images_N=scorer.images_N,
        target_N=scorer.target_N,
        rank_N=rank_4N[0],
        tolerant_N=rank_4N[1],
        tied_N=rank_4N[2] > 0,
        answer_N=rank_4N[3],
        english_N=None if english is None else english.ranks(scorer, classes.ids),
        best_NM=best_NM,
        probability_NM=probability_NM,
        n_ambiguous=task.ambiguous(language),
    )


class _English(NamedTuple):
    """The classes by their English names, and the ranks of their images among all of them."""

    classes: ClassEmbeddings
    rank_N: Tensor

    def ranks(self, scorer: Scorer, ids: tuple[int, ...]) -> Tensor | None:
        """Ranks among some of the classes; None where English has no name for one of them."""
        if ids == self.classes.ids:
            return self.rank_N
        if not set(ids) <= set(self.classes.ids):
            return None
        row = {class_id: place for place, class_id in enumerate(self.classes.ids)}
        rows = torch.tensor([row[class_id] for class_id in ids])
        first: dict[int, int] = {}
        groups = [first.setdefault(group, place) for place, group in enumerate(self.classes.first_K[rows].tolist())]
        chosen = ClassEmbeddings(ids, self.classes.class_KE[rows], torch.tensor(groups))
        return scorer.score(chosen, answers=0, scale=1.0)[0][0]


def _share(mask_N: Tensor) -> float:
    if not len(mask_N):
        raise VlkitError("no image has a class in this language")
    return mask_N.double().mean().item()
