"""Random numbers that are a pure function of seed, step, place and code: the same in any batch, on any device.

Each number is the output of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators",
figure 17) whose state is counted, not kept: what comes before it in the key decides where its stream begins. Two images
of one seed meet the same noise at the same place in the same step, whatever their prompts and languages are, and codes
are drawn by adding noise to logits (Gumbel-max), so that where two prompts give nearly the same distribution, nearly
always the same code is drawn; with one uniform number a place and cumulated probabilities that would not be so.

Shapes: B images, N codes of an image, R places that are looked at, K codes to choose from, X any.
"""

from __future__ import annotations

import torch
from torch import Tensor

CODES, CONFIDENCE, VARIATION = 0, 1, 2  # what noise is for; streams that must not meet

_GAMMA = 0x9E3779B97F4A7C15 - 2**64  # the golden ratio, as int64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def _shifted(x_X: Tensor, by: int) -> Tensor:
    """A logical shift to the right: int64's own one keeps the sign."""
    return (x_X >> by).bitwise_and_((1 << (64 - by)) - 1)


def mixed(state_X: Tensor) -> Tensor:
    """SplitMix64's output for states, int64 (the bits of the unsigned number); products wrap around."""
    x_X = _shifted(state_X, 30).bitwise_xor_(state_X).mul_(_FIRST)
    x_X = x_X.bitwise_xor_(_shifted(x_X, 27)).mul_(_SECOND)
    return x_X.bitwise_xor_(_shifted(x_X, 31))


def next_keys(keys_X: Tensor, index_X: Tensor) -> Tensor:
    """Keys one level down, int64: output number ``index + 1`` of the generators that start at ``keys``."""
    return mixed(keys_X + (index_X + 1) * _GAMMA)


def place_keys(seeds_B: Tensor, *, stream: int, window: int, step: int, num_codes: int) -> Tensor:
    """The keys of an image's places in a step, int64 [B, N].

    ``window`` numbers the pieces of an image that is made piece by piece.
    """
    keys_B = mixed(seeds_B + _GAMMA)
    for index in (stream, window, step):
        keys_B = next_keys(keys_B, torch.full_like(keys_B, index))
    return next_keys(keys_B.unsqueeze(1), torch.arange(num_codes, device=seeds_B.device))


def exponential(keys_X: Tensor) -> Tensor:
    """Numbers of the exponential distribution with mean 1, float32 and above 0, one a key.

    From 63 bits, so that small numbers, which decide who wins, are as fine as float32 is.
    """
    uniform_X = _shifted(keys_X, 1).float().mul_(2.0**-63).clamp_(2.0**-64, 1 - 2.0**-24)
    return uniform_X.neg_().log1p_().neg_()


def gumbel(keys_X: Tensor) -> Tensor:
    """Numbers of the standard Gumbel distribution, float32 within -2.9..44.4, one a key."""
    return exponential(keys_X).log_().neg_()


def code_gumbel(keys_R: Tensor, codebook_size: int) -> Tensor:
    """Gumbel noise of each code at each of some places, float32 [R, K]."""
    return gumbel(next_keys(keys_R.unsqueeze(1), torch.arange(codebook_size, device=keys_R.device)))
