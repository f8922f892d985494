"""Images to embeddings, and what images and texts share: L2-normalised, float32, on the CPU.

N images, T texts, B of them in one batch, E embedding width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.evaluation.embed.callables import TwoCallables
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.progress import bar
from vlkit.types import ImageTextModel

if TYPE_CHECKING:
    from PIL.Image import Image

Embedder: TypeAlias = ImageTextModel | TwoCallables
"""What can be evaluated."""
T = TypeVar("T")
_AHEAD = 2  # batches that are read while one is encoded


@contextmanager
def evaluating(model: object) -> Iterator[torch.device]:
    """Evaluation mode without gradients; yields the device of the parameters and puts every submodule's mode back."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        if isinstance(model, nn.Module):
            model.eval()
        with torch.inference_mode():
            yield device_of(model)
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def device_of(model: object) -> torch.device:
    """Where the parameters are; the CPU for a model without any."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def marks_language(model: Embedder) -> bool:
    """Whether one text may have other embeddings in other languages; True where the model does not say."""
    return bool(getattr(model, "marks_language", True))


def prepare(model: Embedder, image: Image) -> Any:
    """An image as ``encode_prepared`` takes it: pixels_CHW, or the image itself for a pair of functions."""
    return image.convert("RGB") if isinstance(model, TwoCallables) else model.transform(image)


def encode_prepared(model: Embedder, prepared: Sequence[Any], *, names: Sequence[str]) -> Tensor:
    """image_BE of one batch as the model gives it, float32 on the CPU.

    Raises:
        VlkitError: An embedding that is not finite; ``names`` says which.
    """
    with evaluating(model) as device:
        if isinstance(model, TwoCallables):
            image_BE = model.embed_images(prepared)
        else:
            image_BE = model.encode_image(torch.stack(list(prepared)).to(device)).float().cpu()
    check_finite(image_BE, [f"image {name}" for name in names])
    return image_BE


def encode_texts(model: Embedder, texts: Sequence[str], *, language: str | None) -> Tensor:
    """text_BE of one batch as the model gives it, float32 on the CPU.

    Raises:
        VlkitError: An embedding that is not finite; the message names the text.
    """
    with evaluating(model) as device:
        if isinstance(model, TwoCallables):
            text_BE = model.embed_texts(texts, language=language)
        else:
            tokens = model.tokenize(texts, language=language)
            tokens = tokens._replace(ids_BL=tokens.ids_BL.to(device), mask_BL=tokens.mask_BL.to(device))
            text_BE = model.encode_text(tokens).float().cpu()
    check_finite(text_BE, [f"text {text!r}" for text in texts])
    return text_BE


def embed_images(
    model: Embedder,
    images: Iterable[Image],
    *,
    names: Sequence[str] | None = None,
    total: int | None = None,
    encoding: Encoding | None = None,
) -> Tensor:
    """L2-normalised image_NE of RGB images, in their order.

    They are read one batch at a time, so that a generator of any length fits into memory; ``total`` is then their
    number for the progress bar. ``names`` is what error messages call them, in place of their numbers.

    Raises:
        VlkitError: No image, or an embedding that is not finite (the message names the image).
    """
    encoding = Encoding() if encoding is None else encoding
    if total is None and isinstance(images, Sequence):
        total = len(images)
    blocks: list[Tensor] = []
    stream, done = iter(images), 0
    with bar("images", total=total, unit="images", quiet=encoding.quiet) as shown:
        while prepared := [prepare(model, image) for image in islice(stream, encoding.batch_size)]:
            count = len(prepared)
            called = range(done + 1, done + 1 + count) if names is None else names[done : done + count]
            blocks.append(encode_prepared(model, prepared, names=[str(name) for name in called]))
            done += count
            shown.advance(count)
    if not blocks:
        raise VlkitError("no images to encode; give at least one")
    return F.normalize(torch.cat(blocks), dim=1)


def read_ahead(batches: Iterable[Sequence[T]], read: Callable[[T], Any], *, workers: int) -> Iterator[list[Any]]:
    """What ``read`` makes of each item, batch by batch in their order, while threads already read the next ones.

    An error is raised where its batch is due, when those before it have been handed out.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="vlkit-read")
    waiting: deque[list[Future[Any]]] = deque()
    try:
        for batch in batches:
            waiting.append([pool.submit(read, item) for item in batch])
            if len(waiting) > _AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def similarity_scale(model: Embedder) -> float:
    """What cosines are multiplied by before the softmax.

    The model's own ``log_scale`` (at most ``max_scale``) where it has one; else 100, which CLIP's training ends at.
    """
    if isinstance(model, TwoCallables):
        return model.scale
    log_scale = getattr(model, "log_scale", None)
    if not isinstance(log_scale, Tensor):
        return 100.0
    return min(log_scale.detach().float().exp().item(), float(getattr(model, "max_scale", float("inf"))))


def check_finite(block_BE: Tensor, names: Sequence[str]) -> None:
    """Refuses embeddings with NaN or infinity; ``names`` says what they are of."""
    bad_B = ~block_BE.isfinite().all(1)
    if bad_B.any():
        raise VlkitError(
            f"the model's embedding of {names[int(bad_B.nonzero()[0])]} is not finite (NaN or infinite); its weights "
            f"are broken, or overflow in half precision: load it with dtype=torch.float32"
        )
