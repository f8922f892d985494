"""A text-to-image model in use: images of prompts.

Shapes: B images, N codes of an image, C channels, H height, W width, K codebook size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.text_to_image.prompts import LaidPrompt
from vlkit.models.trainable import in_eval
from vlkit.nn.code_sampler import SampledStep, sampling_steps, started
from vlkit.spec.options import checked_options
from vlkit.spec.text_to_image import SamplingSpec
from vlkit.types import Prefix

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlkit.models.text_to_image.model import TextToImageModel

log = logging.getLogger(__name__)
Watch = Callable[[SampledStep], None]
AT_ONCE = 16  # images that are made at a time, unless asked for otherwise
_DECODED = 64  # images of a pass through the tokenizer


def settings(model: TextToImageModel, *, seed: int | None, sampling: Mapping[str, Any]) -> SamplingSpec:
    """The model's own settings with what is given in their place.

    Raises:
        VlkitError: A setting is none, or has a value that cannot be.
    """
    given = {**model.sampling.model_dump(), **sampling, **({} if seed is None else {"seed": seed})}
    return checked_options(SamplingSpec, given, what="sampling")


def listed_prompts(prompts: str | Sequence[str | None] | None) -> list[str | None]:
    """One or several prompts as a list.

    Raises:
        VlkitError: There is none.
    """
    found = [prompts] if prompts is None or isinstance(prompts, str) else list(prompts)
    if not found:
        raise VlkitError("there is no prompt; give one or more, or None for an image of anything")
    return found


class Prompted:
    """A model with the prompts of a batch, which were read once: what the sampler asks for logits.

    Args:
        model: In eval mode.
        prompts: Ids of different prompts.
        rows: Which prompt each image has, [B].
        nulls: Which prompt stands where there would be none, [B].
    """

    def __init__(
        self, model: TextToImageModel, prompts: Sequence[Sequence[int]], rows: Sequence[int], nulls: Sequence[int]
    ) -> None:
        self.model = model
        prefix = model.read(model.layout.batch(prompts))
        device = prefix.mask_BT.device
        self._asked = prefix.rows(torch.tensor(rows, device=device))
        self._both = partial(prefix.rows, torch.tensor([*rows, *nulls], device=device))
        self._doubled: Prefix | None = None

    def __call__(self, codes_BN: Tensor, step: int, *, null: bool) -> tuple[Tensor, Tensor | None]:
        """See ``nn.code_sampler.CodeLogits``: both branches in one pass."""
        if not null:
            return self.model.logits(self.model.behind(codes_BN, self._asked)), None
        self._doubled = self._doubled or self._both()
        logits = self.model.logits(self.model.behind(codes_BN.repeat(2, 1), self._doubled))
        asked_BNK, null_BNK = logits.chunk(2)
        return asked_BNK, null_BNK


def _laid(model: TextToImageModel, prompt: str | None, language: str | None) -> LaidPrompt:
    layout = model.layout
    return LaidPrompt(layout.null, 0) if prompt is None else layout.laid(prompt, language=language)


def check_prompts(model: TextToImageModel, prompts: Sequence[str | None], language: str | None) -> None:
    """Refuses what cannot be read before work is done, and tells of what is cut."""
    for prompt in dict.fromkeys(prompts):
        if cut := _laid(model, prompt, language).cut:
            log.warning(
                "the prompt %.40r... is %d tokens too long: its end is not read (prompt.max_length = %d)",
                prompt, cut, model.layout.max_length,
            )  # fmt: skip


@torch.no_grad()
def painted(
    model: TextToImageModel,
    prompts: Sequence[str | None],
    seeds: Sequence[int],
    spec: SamplingSpec,
    *,
    language: str | None,
    negative: str | None,
    known: Tensor | None = None,
    window: int = 0,
    watch: Watch | None = None,
) -> Tensor:
    """codes_BN of one image a prompt and seed; ``known`` are codes that stay, K where one is to be found."""
    different = list(dict.fromkeys((*prompts, negative)))
    with in_eval(model):
        asked = Prompted(
            model,
            [_laid(model, prompt, language).ids for prompt in different],
            [different.index(prompt) for prompt in prompts],
            [different.index(negative)] * len(prompts),
        )
        sizes: Any = {"num_codes": model.num_codes, "codebook_size": model.codebook_size}
        device = model.head.marks_MW.device
        codes_BN = started(known, seeds, **sizes, device=device)
        for done in sampling_steps(asked, spec=spec, seeds=seeds, **sizes, known=codes_BN, window=window):
            codes_BN = done.codes_BN
            if watch is not None:
                watch(done)
    return codes_BN


def paint(
    model: TextToImageModel,
    prompts: Sequence[str | None],
    spec: SamplingSpec,
    *,
    language: str | None,
    num_images: int,
    negative: str | None,
    batch_size: int,
    watch: Watch | None,
    known_N: Tensor | None = None,
) -> list[Image]:
    """See ``TextToImageModel.generate``; ``known_N`` are codes that all images begin with."""
    for name, number in (("num_images", num_images), ("batch_size", batch_size)):
        if number < 1:
            raise VlkitError(f"{name} = {number} makes no image; give 1 or more")
    check_prompts(model, (*prompts, negative), language)
    jobs = [(prompt, seed_of(spec.seed, number)) for prompt in prompts for number in range(num_images)]
    found: list[Image] = []
    for start in range(0, len(jobs), batch_size):
        chosen, seeds = zip(*jobs[start : start + batch_size], strict=True)
        known = None if known_N is None else known_N.expand(len(seeds), -1)
        codes_BN = painted(model, chosen, seeds, spec, language=language, negative=negative, known=known, watch=watch)
        found += images_of(model, codes_BN)
    return found


@torch.no_grad()
def images_of(model: TextToImageModel, codes_BN: Tensor) -> list[Image]:
    """RGB images of codes."""
    found: list[Image] = []
    with in_eval(model):
        for part_BN in torch.split(codes_BN, _DECODED):
            found += [image_of(pixels_CHW) for pixels_CHW in model.tokenizer.decode(part_BN)]
    return found


def seed_of(first: int, number: int) -> int:
    """The seed of a prompt's image of this number."""
    return (first + number) % 2**63


def image_of(pixels_CHW: Tensor) -> Image:
    """An RGB image of pixels in 0..1."""
    bytes_HWC = (pixels_CHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu()
    return PIL.Image.fromarray(bytes_HWC.numpy(), "RGB")
