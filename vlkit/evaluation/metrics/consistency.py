"""How alike the images of one prompt are in several languages, and how well they fit a text; from their embeddings.

Cross-lingual consistency (CLC) and code-switching similarity (CSS) are named after NeoBabel (arXiv 2507.06137), whose
equations are not published: what is computed here is vlkit's own reading of them. A raw cosine says little, since
encoders differ in what they give to unrelated images, so that each figure has a floor (images of other prompts) and a
ceiling (the same prompt in one language, other seeds).

Shapes: P prompts, S seeds, E embedding width. All embeddings are L2-normalised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vlkit.errors import ShapeError

_CLIP_SCALE = 2.5


class Agreement(NamedTuple):
    """One number a prompt (float64 [P], cosines): how alike its images are, and between what that lies.

    ``floor_P`` is NaN where there is one prompt alone, ``ceiling_P`` where there is one seed.
    """

    value_P: Tensor
    floor_P: Tensor
    ceiling_P: Tensor


def cross_lingual(image_PSE: Tensor, others: Sequence[Tensor]) -> Agreement:
    """CLC of one language with the others: mean cosine of images of one prompt and seed, over languages and seeds.

    The mean over languages is the mean over all their pairs.

    Args:
        image_PSE: Images in the language.
        others: Those in each other language, of the same prompts and seeds in the same order.

    Raises:
        ShapeError: Not the same prompts and seeds, or no other language.
    """
    if not others:
        raise ShapeError("consistency across languages needs images in two languages or more")
    pairs = [_pair(image_PSE, other) for other in others]
    value_P, floor_P = (torch.stack(parts).mean(dim=0) for parts in zip(*pairs, strict=True))
    return Agreement(value_P, floor_P, across_seeds(image_PSE))


def code_switching(mixed_PSE: Tensor, english_PSE: Tensor) -> Agreement:
    """CSS: mean cosine of images of prompts that mix two languages with those of the English prompts, seed by seed.

    Raises:
        ShapeError: Not the same prompts and seeds.
    """
    return Agreement(*_pair(mixed_PSE, english_PSE), across_seeds(english_PSE))


def across_seeds(image_PSE: Tensor) -> Tensor:
    """Mean cosine of the images of a prompt with those of its other seeds, float64 [P]; NaN for a single seed."""
    prompts, seeds, _ = image_PSE.shape
    if seeds < 2:
        return torch.full((prompts,), math.nan, dtype=torch.float64)
    one_PSE = image_PSE.double()
    all_P = one_PSE.sum(dim=1).square().sum(dim=1)
    own_P = one_PSE.square().sum(dim=(1, 2))
    return (all_P - own_P) / (seeds * (seeds - 1))


def _pair(one_PSE: Tensor, other_PSE: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine over seeds of images of the same prompt, and of those of other prompts and the same seed, [P]."""
    if one_PSE.shape != other_PSE.shape or one_PSE.ndim != 3:
        raise ShapeError(
            f"images {list(one_PSE.shape)} and {list(other_PSE.shape)} must be of the same prompts and seeds [P, S, E]"
        )
    one, other, prompts = one_PSE.double(), other_PSE.double(), len(one_PSE)
    same_P = (one * other).sum(dim=2).mean(dim=1)
    if prompts < 2:
        return same_P, torch.full_like(same_P, math.nan)
    # both ways round, so that the floor of two languages is the same whichever is looked at
    sums_P = (one * other.sum(dim=0)).sum(dim=2).mean(dim=1) + (other * one.sum(dim=0)).sum(dim=2).mean(dim=1)
    return same_P, (sums_P / 2 - same_P) / (prompts - 1)


def clip_scores(image_PSE: Tensor, text_PE: Tensor) -> Tensor:
    """CLIPScore of the images of each prompt, 2.5 * max(cosine, 0) (arXiv 2104.08718, section 3), float64 [P].

    The text encoder has to know the language of the texts: an English one gives no meaning to others.
    """
    cosine_PS = torch.einsum("pse,pe->ps", image_PSE.double(), text_PE.double())
    return _CLIP_SCALE * cosine_PS.clamp(min=0).mean(dim=1)


def shuffled_clip_scores(image_PSE: Tensor, text_PE: Tensor) -> Tensor:
    """The floor of ``clip_scores``: the same with the texts of all other prompts, float64 [P]; NaN for one prompt."""
    prompts = len(image_PSE)
    if prompts < 2:
        return torch.full((prompts,), math.nan, dtype=torch.float64)
    cosine_PSQ = torch.einsum("pse,qe->psq", image_PSE.double(), text_PE.double()).clamp(min=0)
    own_P = torch.einsum("psp->p", cosine_PSQ)
    return _CLIP_SCALE * (cosine_PSQ.sum(dim=(1, 2)) - own_P) / (image_PSE.shape[1] * (prompts - 1))
