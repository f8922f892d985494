"""Codes of quantisers: their numbers by the formulas of the papers, there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vlkit.nn.code_quantizers import CodeQuantizer

LEVELS = (8, 5, 5, 5)


def fsq_by_hand(latents: np.ndarray, levels: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Appendix A.1 of arXiv 2309.15505 for [places, channels], and the digits' basis."""
    count = np.array(levels)
    half = (count - 1) * 1.001 / 2
    offset = np.where(count % 2 == 0, 0.5, 0.0)
    rounded = np.rint(np.tanh(latents + np.arctanh(offset / half)) * half - offset)
    digits = rounded + count // 2
    return rounded / (count // 2), (digits * np.cumprod([1, *levels[:-1]])).sum(1).astype(np.int64)


def test_fsq_is_that_of_its_paper() -> None:
    torch.manual_seed(0)
    latents = torch.randn(3, 4, 5, 6) * 2
    quantized, codes = CodeQuantizer("fsq", LEVELS)(latents)
    by_hand, numbers = fsq_by_hand(latents.permute(0, 2, 3, 1).reshape(-1, 4).double().numpy(), LEVELS)
    assert codes.dtype == torch.int64 and codes.shape == (3, 30)
    assert (codes.flatten().numpy() == numbers).all()
    assert np.allclose(quantized.permute(0, 2, 3, 1).reshape(-1, 4).numpy(), by_hand, atol=1e-6)


def test_all_8192_codes_of_lfq_are_their_bits_from_the_highest_on() -> None:
    quantizer = CodeQuantizer("lfq", (2,) * 13)
    codes = torch.arange(8192).view(2, 4096)
    signs = quantizer.quantized(codes, grid=(64, 64))
    bits = [[int(sign > 0) for sign in row] for row in signs.permute(0, 2, 3, 1).reshape(-1, 13)]
    assert all("".join(map(str, row)) == f"{number:013b}" for number, row in enumerate(bits))
    assert torch.equal(quantizer(signs)[1], codes)
    assert quantizer(torch.zeros(1, 13, 1, 1))[1].item() == 0  # a zero counts as -1


@pytest.mark.parametrize(("kind", "levels"), [("fsq", (8, 5, 5, 5)), ("fsq", (7, 3)), ("lfq", (2, 2, 2))])
def test_what_codes_stand_for_is_what_was_quantised(kind: str, levels: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    quantizer = CodeQuantizer(kind, levels)
    quantized, codes = quantizer(torch.randn(2, len(levels), 8, 8))
    assert quantizer.codebook_size == math.prod(levels) > codes.max()
    assert torch.allclose(quantizer.quantized(codes, grid=(8, 8)), quantized, atol=1e-6)
    assert not quantizer.state_dict()


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    torch.manual_seed(2)
    latents = torch.randn(1, 3, 4, 4, requires_grad=True)
    weights = torch.randn(1, 3, 4, 4)
    (CodeQuantizer("lfq", (2, 2, 2))(latents)[0] * weights).sum().backward()
    assert torch.allclose(latents.grad, weights)
    latents.grad = None
    (CodeQuantizer("fsq", (5, 5, 5))(latents)[0] * weights).sum().backward()
    assert torch.allclose(latents.grad, weights * (1 - latents.detach().tanh() ** 2) * 2 * 1.001 / 2, atol=1e-6)


def test_precision_of_a_run_changes_no_codes() -> None:
    torch.manual_seed(3)
    latents, quantizer = torch.randn(2, 4, 8, 8), CodeQuantizer("fsq", LEVELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantized, codes = quantizer(latents)
    assert quantized.dtype == torch.float32 and torch.equal(codes, quantizer(latents)[1])
