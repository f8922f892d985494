"""How many of an image's codes are hidden, and which: schedules, the masks of training, the steps of a sampler.

Sources: MaskGIT (arXiv 2202.04200, sections 3.1 and 3.2), Muse (2301.00704, section 2.5: a least share), the sigmoid
and arccos forms as in MAGVIT (2212.05199) and TiTok (2406.07550).

Shapes: B images, N codes of an image, X any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vlkit.errors import ShapeError, UnknownName, VlkitError

_WHOLE = 1e-6  # a count that lies less than this below a whole number is that number: cos(pi / 3) * 10 is 5
_FROM, _TO = -3.0, 3.0  # the part of the sigmoid that is used


def _sigmoid(progress_X: Tensor, power: float) -> Tensor:
    first, last = (1 / (1 + math.exp(-edge)) for edge in (_FROM, _TO))
    return (last - torch.sigmoid(_FROM + progress_X * (_TO - _FROM))) / (last - first)


SCHEDULES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "cosine": lambda progress_X, power: torch.cos(progress_X * (math.pi / 2)),
    "linear": lambda progress_X, power: 1 - progress_X,
    "pow": lambda progress_X, power: 1 - progress_X**power,
    "sigmoid": _sigmoid,
    "arccos": lambda progress_X, power: torch.arccos(progress_X) / (math.pi / 2),
}


def masked_share(progress_X: Tensor, schedule: str, *, power: float) -> Tensor:
    """The share of codes that is hidden, float64, from 1 at progress 0 down to 0 at progress 1.

    Args:
        progress_X: Numbers in 0..1; uniform ones give the shares of training.
        schedule: A name of ``SCHEDULES``.
        power: The exponent of ``pow``, above 0; the others do not look at it.

    Raises:
        UnknownName: No such schedule.
        VlkitError: A progress outside of 0..1, or a power of 0 or less.
    """
    if schedule not in SCHEDULES:
        raise UnknownName("schedule", schedule, allowed=SCHEDULES)
    if not power > 0:
        raise VlkitError(f"power = {power:g} is not above 0; take 2 for a parabola, 1 for a line")
    progress_X = progress_X.double()
    if progress_X.numel() and not bool(((progress_X >= 0) & (progress_X <= 1)).all()):
        raise VlkitError(
            f"the progress of a schedule lies in 0..1, and here it goes from {float(progress_X.min()):g} to "
            f"{float(progress_X.max()):g}"
        )
    return SCHEDULES[schedule](progress_X, power).clamp(0.0, 1.0)


class MaskDraws(NamedTuple):
    """The random numbers of training masks, uniform in 0..1: ``share_B`` of how many, ``order_BN`` of which."""

    share_B: Tensor
    order_BN: Tensor


def draw_masks(batch: int, num_codes: int, *, generator: torch.Generator) -> MaskDraws:
    """Draws for ``batch`` images of ``num_codes`` codes, float32 on the generator's device."""
    device = generator.device
    share_B = torch.rand(batch, generator=generator, device=device)
    return MaskDraws(share_B, torch.rand((batch, num_codes), generator=generator, device=device))


def masked_codes(draws: MaskDraws, *, schedule: str, power: float, least_share: float) -> Tensor:
    """Which codes are hidden in training, bool [B, N]: of each image a share of its own, and at least one code.

    The share is that of the schedule at ``share_B``, raised to ``least_share``; the number of codes is rounded to the
    nearest whole one. It is met exactly: those with the smallest ``order_BN`` are hidden, the first ones where two are
    equal.

    Raises:
        ShapeError: Draws for different numbers of images.
        VlkitError: ``least_share`` is outside of 0..1; or as ``masked_share``.
    """
    if not 0 <= least_share <= 1:
        raise VlkitError(f"least_share = {least_share:g} is no share; give a number in 0..1")
    share_B, order_BN = draws
    if order_BN.ndim != 2 or share_B.shape != order_BN.shape[:1]:
        raise ShapeError(
            f"draws of masks are [B] for the shares and [B, N] for the order, and these are {list(share_B.shape)} and "
            f"{list(order_BN.shape)}"
        )
    share_B = masked_share(share_B, schedule, power=power).clamp(min=least_share)
    count_B = (share_B * order_BN.shape[1]).round().clamp(min=1)
    return first_of(order_BN, count_B)


def first_of(order_BN: Tensor, count_B: Tensor) -> Tensor:
    """Where the ``count_B`` smallest numbers of each row stand, bool [B, N]; exactly as many, also where some equal."""
    rank_BN = order_BN.argsort(dim=1, stable=True).argsort(dim=1)
    return rank_BN < count_B.to(rank_BN.device).unsqueeze(1)


def commit_counts(unknown: int, steps: int, *, schedule: str, power: float) -> list[int]:
    """How many codes a sampler makes known in each step; they add up to ``unknown``, and none is 0.

    After step s of T there are floor(unknown * share((s + 1) / T)) left (MaskGIT's rule: the base are the codes that
    were unknown at the start, not all of the image). No more steps are made than there are codes, and each makes at
    least one code known and leaves one for each step to come, where the schedule would not.

    Args:
        unknown: Codes to be found, 0 or more; 0 gives no step.
        steps: Steps wanted, 1 or more.
        schedule: See ``masked_share``.
        power: See ``masked_share``.

    Raises:
        VlkitError: Fewer than 1 step or 0 codes; or as ``masked_share``.
    """
    if steps < 1:
        raise VlkitError(f"steps = {steps} makes no code known; give 1 or more")
    if unknown < 0:
        raise VlkitError(f"unknown = {unknown} is no number of codes; give 0 or more")
    steps = min(steps, unknown)
    progress_T = torch.arange(1, steps + 1, dtype=torch.float64) / max(steps, 1)
    shares = masked_share(progress_T, schedule, power=power).tolist()
    left, counts = unknown, []
    for step, share in enumerate(shares):
        planned = math.floor(unknown * share + _WHOLE)
        rest = min(max(planned, steps - step - 1), left - 1)
        counts.append(left - rest)
        left = rest
    return counts
