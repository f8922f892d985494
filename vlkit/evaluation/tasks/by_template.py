"""What each template is worth alone: one score a template, from texts that are encoded already.

K classes of a language, E embedding width.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from vlkit.evaluation.embed.encode import Embedder, device_of
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.image_features import image_features
from vlkit.evaluation.embed.texts import ClassTexts, stream_class_embeddings
from vlkit.evaluation.metrics.intervals import bootstrap_interval
from vlkit.evaluation.metrics.ranking import first_of_equals
from vlkit.evaluation.tasks.scorer import ClassEmbeddings, Scorer

if TYPE_CHECKING:
    from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask


class TemplateScore(NamedTuple):
    """Top-1 with one template alone, a share in 0..1, and its 95 % class-cluster bootstrap interval."""

    task: str
    language: str
    template: str
    times: int
    """How often it stands among the language's templates."""
    acc1: float
    ci_low: float
    ci_high: float


def template_scores(
    model: Embedder, task: ZeroShotTask, language: str, *, seed: int = 0, encoding: Encoding | None = None
) -> list[TemplateScore]:
    """One score for each distinct template of a language, best first.

    After an evaluation with the same cache no image and no text is encoded.

    Raises:
        UnknownName: Not a language of the task.
    """
    encoding = Encoding() if encoding is None else encoding
    (tag,) = task.choose([language])
    ids, names = task.classes(tag)
    counts = Counter(task.templates_of(tag))
    wanted = [ClassTexts(task.spoken(tag), names, (template,)) for template in counts]
    found = []
    with image_features(model, task.samples, encoding=encoding) as features:
        scorer = Scorer(features, task.targets, ids, ranks=encoding.ranks, device=device_of(model))
        embedded = stream_class_embeddings(model, wanted, encoding=encoding)
        for (template, count), class_KE in zip(counts.items(), embedded, strict=True):
            rank_4N, _, _ = scorer.score(ClassEmbeddings(ids, class_KE, first_of_equals(names)), answers=0, scale=1.0)
            hits_N = rank_4N[0] == 1
            interval = bootstrap_interval(hits_N.numpy(), scorer.target_N.numpy(), seed=seed)
            found.append(TemplateScore(task.name, tag, template, count, hits_N.double().mean().item(), *interval))
    return sorted(found, key=lambda one: -one.acc1)
