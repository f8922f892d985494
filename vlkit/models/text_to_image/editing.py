"""Images that are known in part: a part made anew, variations, images that grow.

Shapes: B images, N codes of an image, C channels, H rows and W columns of pixels, or of codes where said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.image_input import read_given
from vlkit.models.text_to_image.painting import (
    AT_ONCE,
    check_prompts,
    image_of,
    images_of,
    paint,
    painted,
    seed_of,
    settings,
)
from vlkit.models.trainable import in_eval
from vlkit.nn.code_edits import Margins, filled, hidden, touched_codes, varied, widened
from vlkit.parts.code_images import square_transform

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlkit.models.text_to_image.model import TextToImageModel


def repaint(
    model: TextToImageModel,
    image: Any,
    mask: Any,
    prompt: str | None,
    *,
    area: float | None,
    options: Mapping[str, Any],
) -> list[Image]:
    """See ``TextToImageModel.repaint``."""
    codes_1N = _codes(model, image)
    rows, columns = model.head.grid
    side = model.transform(read_given(image)).shape[-1]
    white_HW = square_transform(side, low=0.0)(read_given(mask)).mean(dim=0) > 0.5
    masked_1N = touched_codes(white_HW.unsqueeze(0), (rows, columns), area=area).to(codes_1N.device)
    if not bool(masked_1N.any()):
        raise VlkitError("nothing of the mask is white, so there is nothing to make anew; white marks what changes")
    return _edited(model, hidden(codes_1N, masked_1N, codebook_size=model.codebook_size)[0], prompt, options)


def vary(
    model: TextToImageModel, image: Any, prompt: str | None, *, strength: float, options: Mapping[str, Any]
) -> list[Image]:
    """See ``TextToImageModel.vary``."""
    given = _Options(model, prompt, options)
    codes_1N, found = _codes(model, image), []
    for number in range(given.num_images):
        seed = seed_of(given.spec.seed, number)
        known = varied(codes_1N, strength=strength, seeds=[seed], codebook_size=model.codebook_size)
        codes_BN = painted(model, [prompt], [seed], given.spec, **given.rest, known=known)
        found += images_of(model, codes_BN)
    return found


def widen(
    model: TextToImageModel, image: Any, margins: Margins, prompt: str | None, *, options: Mapping[str, Any]
) -> list[Image]:
    """See ``TextToImageModel.widen``."""
    given = _Options(model, prompt, options)
    codes_1HW = _codes(model, image).reshape(1, *model.head.grid)
    canvas_1HW = widened(codes_1HW, margins, codebook_size=model.codebook_size)
    offset = (max(1, model.head.grid[0] // 2), max(1, model.head.grid[1] // 2))
    found = []
    for number in range(given.num_images):
        seed = seed_of(given.spec.seed, number)

        def window(known_BN: Tensor, place: int, *, seed: int = seed) -> Tensor:
            return painted(model, [prompt], [seed], given.spec, **given.rest, known=known_BN, window=place)

        whole_1HW = filled(window, canvas_1HW, grid=model.head.grid, offset=offset, codebook_size=model.codebook_size)
        found.append(image_of(_decoded_canvas(model, whole_1HW[0], offset)))
    return found


class _Options:
    """What ``generate`` takes, for an edit of one image."""

    def __init__(self, model: TextToImageModel, prompt: str | None, options: Mapping[str, Any]) -> None:
        given = dict(options)
        self.num_images: int = given.pop("num_images", 1)
        if self.num_images < 1:
            raise VlkitError(f"num_images = {self.num_images} makes no image; give 1 or more")
        given.pop("batch_size", None)
        self.rest: dict[str, Any] = {name: given.pop(name, None) for name in ("language", "negative", "watch")}
        self.spec = settings(model, seed=given.pop("seed", None), sampling=given)
        check_prompts(model, (prompt, self.rest["negative"]), self.rest["language"])


def _edited(model: TextToImageModel, known_N: Tensor, prompt: str | None, options: Mapping[str, Any]) -> list[Image]:
    given = _Options(model, prompt, options)
    return paint(
        model, [prompt], given.spec, num_images=given.num_images, batch_size=AT_ONCE, known_N=known_N, **given.rest
    )


@torch.no_grad()
def _codes(model: TextToImageModel, image: Any) -> Tensor:
    with in_eval(model):
        codes_1N = model.codes_of(model.transform(read_given(image)).unsqueeze(0))
    return codes_1N.to(model.head.marks_MW.device)


@torch.no_grad()
def _decoded_canvas(model: TextToImageModel, codes_HW: Tensor, offset: tuple[int, int]) -> Tensor:
    """pixels_CHW of codes that are more than a tokenizer decodes at a time: windows that fade into each other."""
    (rows, columns), device = model.head.grid, codes_HW.device
    with in_eval(model):
        sample_CHW = model.tokenizer.decode(codes_HW[:rows, :columns].reshape(1, -1))[0]
    high, wide = sample_CHW.shape[1] // rows, sample_CHW.shape[2] // columns
    total = torch.zeros(3, codes_HW.shape[0] * high, codes_HW.shape[1] * wide, device=device)
    share = torch.zeros_like(total[:1])
    weight = (_hill(rows * high, device).unsqueeze(1) * _hill(columns * wide, device)).unsqueeze(0)
    for top in _starts(codes_HW.shape[0], rows, offset[0]):
        for left in _starts(codes_HW.shape[1], columns, offset[1]):
            with in_eval(model):
                part = model.tokenizer.decode(codes_HW[top : top + rows, left : left + columns].reshape(1, -1))[0]
            place = (
                slice(None),
                slice(top * high, top * high + part.shape[1]),
                slice(left * wide, left * wide + part.shape[2]),
            )
            total[place] += part * weight
            share[place] += weight
    return total / share


def _hill(length: int, device: torch.device) -> Tensor:
    ramp = torch.arange(1, length + 1, device=device, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0))


def _starts(length: int, window: int, offset: int) -> list[int]:
    return [*range(0, length - window, offset), length - window]
