"""Images, texts and class names to embeddings: L2-normalised, float32, on the CPU.

N images, T texts, K classes of a language, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlkit.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.progress import bar
from vlkit.types import ImageTextModel

if TYPE_CHECKING:
    from PIL.Image import Image

BARE: tuple[str, ...] = ("{}",)


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
    check_batch_size(batch_size)
    if total is None and isinstance(images, Sequence):
        total = len(images)
    blocks: list[Tensor] = []
    stream, done = iter(images), 0
    with evaluating(model) as device, bar("images", total=total, unit="images", quiet=quiet) as shown:
        while pixels := [model.transform(image) for image in islice(stream, batch_size)]:
            block_NE = model.encode_image(torch.stack(pixels).to(device)).float().cpu()
            called = range(done + 1, done + 1 + len(pixels)) if names is None else names[done : done + len(pixels)]
            check_finite(block_NE, [f"image {name}" for name in called])
            blocks.append(block_NE)
            done += len(pixels)
            shown.advance(len(pixels))
    if not blocks:
        raise VlkitError("no images to encode; give at least one")
    return F.normalize(torch.cat(blocks), dim=1)


def embed_texts(
    model: ImageTextModel,
    texts: Sequence[str],
    *,
    language: str | None = None,
    batch_size: int = 256,
    ranks: Ranks | None = None,
) -> Tensor:
    """L2-normalised text_TE of texts of one language, in their order.

    Equal texts are encoded once and texts of like length together, which saves padding; the result is the same. A batch
    never mixes languages, since tokenizers may have to be told which it is.

    Args:
        model: Embeds one side of each pair.
        texts: Any, in any order.
        language: BCP 47 tag, for tokenizers that need it.
        batch_size: Texts a forward pass.
        ranks: Processes that share the batches between them; each gets all embeddings, to the last bit the same as
            one process alone.

    Raises:
        VlkitError: No text, or an embedding that is not finite (the message names the text).
    """
    check_batch_size(batch_size)
    if not texts:
        raise VlkitError("no texts to encode; give at least one")
    ranks = Ranks() if ranks is None else ranks
    # the order of the batches is that of the set of texts, whatever order they came in
    distinct = sorted(set(texts), key=lambda text: (len(text.encode()), text))
    batches = [distinct[start : start + batch_size] for start in range(0, len(distinct), batch_size)]
    with together(ranks):
        mine = [_encode_texts(model, batch, language) for batch in batches[ranks.rank :: ranks.size]]
    blocks = mine
    if ranks.size > 1:
        shared = ranks.gather_objects([block_TE.numpy() for block_TE in mine])
        blocks = [torch.from_numpy(shared[n % ranks.size][n // ranks.size]) for n in range(len(batches))]
    place = {text: row for row, text in enumerate(distinct)}
    return F.normalize(torch.cat(blocks), dim=1)[[place[text] for text in texts]]


def _encode_texts(model: ImageTextModel, texts: Sequence[str], language: str | None) -> Tensor:
    with evaluating(model) as device:
        tokens = model.tokenize(texts, language=language)
        tokens = tokens._replace(ids_BL=tokens.ids_BL.to(device), mask_BL=tokens.mask_BL.to(device))
        text_TE = model.encode_text(tokens).float().cpu()
    check_finite(text_TE, [f"text {text!r}" for text in texts])
    return text_TE


@contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """Work that one process may fail at: its error is raised in all of them, so that none waits for it forever."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    said = ranks.gather_objects(None if failed is None else f"{type(failed).__name__}: {failed}")
    if failed is not None:
        raise failed
    for rank, message in enumerate(said):
        if message is not None:
            raise VlkitError(f"process {rank} failed: {message}")


def class_embeddings(
    model: ImageTextModel,
    names_per_class: Sequence[Sequence[str]],
    *,
    language: str | None = None,
    templates: Sequence[str] = BARE,
    batch_size: int = 256,
    ranks: Ranks | None = None,
) -> Tensor:
    """L2-normalised class_KE: the mean of a class's names in all templates (CLIP, arXiv 2103.00020, section 3.1.4).

    Args:
        model: Embeds the texts.
        names_per_class: One or more names of each of the K classes.
        language: BCP 47 tag of the names, for tokenizers that need it.
        templates: Texts with one ``{}`` where the name goes; one that occurs twice weighs twice.
        batch_size: Texts a forward pass.
        ranks: See ``embed_texts``.
    """
    rows: list[int] = []
    texts: list[str] = []
    for row, names in enumerate(names_per_class):
        for name in names:
            texts += [template.replace("{}", name, 1) for template in templates]
            rows += [row] * len(templates)
    if missing := set(range(len(names_per_class))) - set(rows):
        raise VlkitError(f"class {min(missing)} has no name or no template")
    text_TE = embed_texts(model, texts, language=language, batch_size=batch_size, ranks=ranks)
    sums_KE = torch.zeros(len(names_per_class), text_TE.shape[1])
    return F.normalize(sums_KE.index_add_(0, torch.tensor(rows), text_TE), dim=1)


def similarity_scale(model: ImageTextModel) -> float:
    """What cosines are multiplied by before the softmax.

    The model's own ``log_scale`` (at most ``max_scale``) where it has one; else 100, which CLIP's training ends at.
    """
    log_scale = getattr(model, "log_scale", None)
    if not isinstance(log_scale, Tensor):
        return 100.0
    return min(log_scale.detach().float().exp().item(), float(getattr(model, "max_scale", float("inf"))))


def check_batch_size(batch_size: int) -> None:
    """Refuses a batch size below one."""
    if batch_size < 1:
        raise VlkitError(f"batch_size = {batch_size}: must be at least 1")


def check_finite(block_BE: Tensor, names: Sequence[str]) -> None:
    """Refuses embeddings with NaN or infinity; ``names`` says what they are of."""
    bad_B = ~block_BE.isfinite().all(1)
    if bad_B.any():
        raise VlkitError(
            f"the model's embedding of {names[int(bad_B.nonzero()[0])]} is not finite (NaN or infinite); its weights "
            f"are broken, or overflow in half precision: load it with dtype=torch.float32"
        )
