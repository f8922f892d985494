"""How well a text-to-image model foretells hidden codes of given images, for validation.

Shapes: N images, C codes of an image, K codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from vlkit.models.image_input import read_given
from vlkit.models.trainable import in_eval
from vlkit.nn.code_masks import first_of

if TYPE_CHECKING:
    from vlkit.models.text_to_image.model import TextToImageModel

_SEED = 0  # of the masks: the same in each validation


@torch.no_grad()
def code_losses(
    model: TextToImageModel,
    images: Sequence[Any],
    prompts: Sequence[str],
    *,
    language: str,
    share: float,
    batch_size: int,
) -> Tensor:
    """See ``types.ForetellsCodes``."""
    layout, count = model.layout, max(1, round(share * model.num_codes))
    order_NC = torch.rand((len(images), model.num_codes), generator=torch.Generator().manual_seed(_SEED))
    masked_NC = first_of(order_NC, torch.full((len(images),), count))
    found = []
    with in_eval(model):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            pixels = torch.stack([model.transform(read_given(image)) for image in images[rows]])
            codes_NC = model.codes_of(pixels).to(model.head.marks_MW.device)
            masked = masked_NC[rows].to(codes_NC.device)
            read = layout.batch([layout.laid(text, language=language).ids for text in prompts[rows]])
            states = model(read, codes_NC.masked_fill(masked, model.codebook_size))[masked]
            logits_RK, codes_R = model.logits(states).float(), codes_NC[masked]
            losses_R = functional.cross_entropy(logits_RK, codes_R, reduction="none")
            right_R = (logits_RK.argmax(dim=1) == codes_R).float()
            found.append(torch.stack([losses_R, right_R], dim=1).view(-1, count, 2).mean(dim=1).cpu())
    return torch.cat(found)
