"""Every image is encoded once, every text once; languages and prompts only recombine the embeddings.

N images, T texts, K classes of a language, E embedding width. Embeddings are float32 on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlkit import prompts
from vlkit.errors import VlkitError
from vlkit.evaluate.results import ResultRow
from vlkit.evaluate.statistics import bootstrap_interval, chance, chance_corrected
from vlkit.evaluate.tasks import ZeroShotTask
from vlkit.files import digest
from vlkit.models.freeze import tensor_digest
from vlkit.progress import bar
from vlkit.types import ImageTextModel

if TYPE_CHECKING:
    from PIL.Image import Image

BARE: tuple[str, ...] = ("{}",)
_TOP = 5


@contextmanager
def evaluating(model: ImageTextModel) -> Iterator[torch.device]:
    """Evaluation mode without gradients; yields the device of the parameters and puts every submodule's mode back."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        if isinstance(model, nn.Module):
            model.eval()
        with torch.inference_mode():
            yield _device(model)
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _device(model: ImageTextModel) -> torch.device:
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def embed_images(
    model: ImageTextModel,
    images: Iterable[Image],
    *,
    batch_size: int = 64,
    names: Sequence[str] | None = None,
    total: int | None = None,
    quiet: bool = True,
) -> Tensor:
    """L2-normalised image_NE of RGB images, in their order.

    Args:
        model: Embeds one side of each pair.
        images: Read one batch at a time, so that a generator of any length fits into memory.
        batch_size: Images a forward pass.
        names: What the images are called in error messages; else their number.
        total: Their number for the progress bar, where ``images`` has no length.
        quiet: Show no progress bar.

    Raises:
        VlkitError: No image, or an embedding that is not finite (the message names the image).
    """
    _check_batch_size(batch_size)
    if total is None and isinstance(images, Sequence):
        total = len(images)
    blocks: list[Tensor] = []
    stream, done = iter(images), 0
    with evaluating(model) as device, bar("images", total=total, unit="images", quiet=quiet) as shown:
        while pixels := [model.transform(image) for image in islice(stream, batch_size)]:
            block_NE = model.encode_image(torch.stack(pixels).to(device)).float().cpu()
            called = range(done + 1, done + 1 + len(pixels)) if names is None else names[done : done + len(pixels)]
            _check_finite(block_NE, [f"image {name}" for name in called])
            blocks.append(block_NE)
            done += len(pixels)
            shown.advance(len(pixels))
    if not blocks:
        raise VlkitError("no images to encode; give at least one")
    return F.normalize(torch.cat(blocks), dim=1)


def embed_texts(
    model: ImageTextModel, texts: Sequence[str], *, language: str | None = None, batch_size: int = 256
) -> Tensor:
    """L2-normalised text_TE of texts of one language, in their order.

    Equal texts are encoded once and texts of like length together, which saves padding; the result is the same.

    Raises:
        VlkitError: No text, or an embedding that is not finite (the message names the text).
    """
    _check_batch_size(batch_size)
    if not texts:
        raise VlkitError("no texts to encode; give at least one")
    # the order of the batches is that of the set of texts, whatever order they came in
    distinct = sorted(set(texts), key=lambda text: (len(text.encode()), text))
    blocks: list[Tensor] = []
    with evaluating(model) as device:
        for start in range(0, len(distinct), batch_size):
            batch = distinct[start : start + batch_size]
            tokens = model.tokenize(batch, language=language)
            tokens = tokens._replace(ids_BL=tokens.ids_BL.to(device), mask_BL=tokens.mask_BL.to(device))
            block_TE = model.encode_text(tokens).float().cpu()
            _check_finite(block_TE, [f"text {text!r}" for text in batch])
            blocks.append(block_TE)
    place = {text: row for row, text in enumerate(distinct)}
    return F.normalize(torch.cat(blocks), dim=1)[[place[text] for text in texts]]


def class_embeddings(
    model: ImageTextModel,
    names_per_class: Sequence[Sequence[str]],
    *,
    language: str | None = None,
    templates: Sequence[str] = BARE,
    batch_size: int = 256,
) -> Tensor:
    """L2-normalised class_KE: the mean of a class's names in all templates (CLIP, arXiv 2103.00020, section 3.1.4).

    Args:
        model: Embeds the texts.
        names_per_class: One or more names of each of the K classes.
        language: BCP 47 tag of the names, for tokenizers that need it.
        templates: Texts with one ``{}`` where the name goes; one that occurs twice weighs twice.
        batch_size: Texts a forward pass.
    """
    rows: list[int] = []
    texts: list[str] = []
    for row, names in enumerate(names_per_class):
        for name in names:
            texts += [template.replace("{}", name, 1) for template in templates]
            rows += [row] * len(templates)
    if missing := set(range(len(names_per_class))) - set(rows):
        raise VlkitError(f"class {min(missing)} has no name or no template")
    text_TE = embed_texts(model, texts, language=language, batch_size=batch_size)
    sums_KE = torch.zeros(len(names_per_class), text_TE.shape[1])
    return F.normalize(sums_KE.index_add_(0, torch.tensor(rows), text_TE), dim=1)


@dataclass(frozen=True)
class LanguageScores:
    """What a model answered in one language.

    ``images_N`` are rows of the task's samples that have a class in this language; ``target_N`` and ``best_NM`` (best
    first, M = min(5, K)) are places in ``classes``, which are ids of the task; ``probability_NM`` is theirs in a
    softmax over all K classes.
    """

    language: str
    classes: tuple[int, ...]
    images_N: Tensor
    target_N: Tensor
    best_NM: Tensor
    probability_NM: Tensor
    n_ambiguous: int


@dataclass(frozen=True)
class TaskScores:
    """A model's answers on a task by language."""

    task: ZeroShotTask
    languages: Mapping[str, LanguageScores]

    def rows(self, variant: str, *, seed: int = 0) -> list[ResultRow]:
        """One result row a language, with a 95 % class-cluster bootstrap interval of top-1."""
        return [_row(self.task, scores, variant=variant, seed=seed) for scores in self.languages.values()]


def score_task(
    model: ImageTextModel,
    task: ZeroShotTask,
    *,
    languages: Iterable[str] | None = None,
    batch_size: int = 64,
    text_batch_size: int = 256,
    quiet: bool = True,
) -> TaskScores:
    """Answers a task in each language; each image is decoded and encoded once, whatever the number of languages.

    Args:
        model: Any image-text model.
        task: Images and the names of their classes.
        languages: BCP 47 tags or other codes; null takes all of the task.
        batch_size: Images a forward pass.
        text_batch_size: Texts a forward pass.
        quiet: Show no progress bar.

    Raises:
        UnknownName: A language that is none, or that the task has no names in.
    """
    tags = task.choose(languages)
    image_NE = embed_images(
        model,
        (sample.image() for sample in task.samples),
        batch_size=batch_size,
        names=[sample.key for sample in task.samples],
        total=len(task.samples),
        quiet=quiet,
    )
    scale = similarity_scale(model)
    scores = {}
    for tag in tags:
        classes, names = task.classes(tag)
        templates = prompts.templates(tag) if task.templates is None else task.templates
        class_KE = class_embeddings(model, names, language=tag, templates=templates, batch_size=text_batch_size)
        scores[tag] = _score_language(task, image_NE, class_KE, language=tag, classes=classes, scale=scale)
    return TaskScores(task, scores)


def evaluate_task(
    model: ImageTextModel,
    task: ZeroShotTask,
    *,
    languages: Iterable[str] | None = None,
    variant: str = "model",
    seed: int = 0,
    batch_size: int = 64,
    quiet: bool = True,
) -> list[ResultRow]:
    """``score_task`` for those who need the numbers alone."""
    return score_task(model, task, languages=languages, batch_size=batch_size, quiet=quiet).rows(variant, seed=seed)


def _score_language(
    task: ZeroShotTask, image_NE: Tensor, class_KE: Tensor, *, language: str, classes: tuple[int, ...], scale: float
) -> LanguageScores:
    place = {class_id: row for row, class_id in enumerate(classes)}
    images = [row for row, target in enumerate(task.targets) if target in place]
    images_N = torch.tensor(images)
    # one language's N x K scores at a time; ties go to the lower class, whatever the device
    score_NK = image_NE[images_N] @ class_KE.T
    best_NM = score_NK.sort(dim=1, descending=True, stable=True).indices[:, :_TOP]
    return LanguageScores(
        language=language,
        classes=classes,
        images_N=images_N,
        target_N=torch.tensor([place[task.targets[row]] for row in images]),
        best_NM=best_NM,
        probability_NM=(scale * score_NK).softmax(1).gather(1, best_NM),
        n_ambiguous=task.ambiguous(language),
    )


def _row(task: ZeroShotTask, scores: LanguageScores, *, variant: str, seed: int) -> ResultRow:
    hits_NM = scores.best_NM == scores.target_N[:, None]
    count = len(scores.classes)
    interval = bootstrap_interval(hits_NM[:, 0].numpy(), scores.target_N.numpy(), seed=seed)
    acc1 = hits_NM[:, 0].double().mean().item()
    return ResultRow(
        task=task.name,
        variant=variant,
        language=scores.language,
        prompt=task.prompt,
        num_classes=count,
        n_images=len(scores.images_N),
        acc1=acc1,
        acc5=hits_NM.any(1).double().mean().item(),
        ci_low=interval.low,
        ci_high=interval.high,
        chance=chance(count),
        chance_corrected=chance_corrected(acc1, count),
        n_ambiguous=scores.n_ambiguous,
    )


def similarity_scale(model: ImageTextModel) -> float:
    """What cosines are multiplied by before the softmax.

    The model's own ``log_scale`` (at most ``max_scale``) where it has one; else 100, which CLIP's training ends at.
    """
    log_scale = getattr(model, "log_scale", None)
    if not isinstance(log_scale, Tensor):
        return 100.0
    return min(log_scale.detach().float().exp().item(), float(getattr(model, "max_scale", float("inf"))))


def weights_digest(model: nn.Module) -> str:
    """Hex digest (16 digits) of all parameters and buffers, for provenance."""
    return digest({name: tensor_digest(tensor) for name, tensor in model.state_dict().items()})


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise VlkitError(f"batch_size = {batch_size}: must be at least 1")


def _check_finite(block_BE: Tensor, names: Sequence[str]) -> None:
    bad_B = ~block_BE.isfinite().all(1)
    if bad_B.any():
        raise VlkitError(
            f"the model's embedding of {names[int(bad_B.nonzero()[0])]} is not finite (NaN or infinite); its weights "
            f"are broken, or overflow in half precision: load it with dtype=torch.float32"
        )
