"""The divergence between two languages: by definition, 0 for equal prompts, and who learns of it."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import kl_div

from vlkit.errors import ShapeError
from vlkit.objectives.codes.language_consistency import code_divergence

DRAW = torch.Generator().manual_seed(0)
FIRST, SECOND = 3 * torch.randn(50, 11, generator=DRAW), 3 * torch.randn(50, 11, generator=DRAW)


def peer(of: torch.Tensor, against: torch.Tensor) -> torch.Tensor:
    """KL(of | against) by torch, in float64."""
    of, against = (logits.double().log_softmax(1) for logits in (of, against))
    return kl_div(against, of, reduction="none", log_target=True).sum(1)


def test_divergences_are_those_of_the_definition() -> None:
    teach, both = (code_divergence(FIRST, SECOND, direction=direction) for direction in ("teach", "both"))
    torch.testing.assert_close(teach, peer(FIRST, SECOND).float())
    torch.testing.assert_close(both, (peer(FIRST, SECOND) + peer(SECOND, FIRST)).float() / 2)
    assert bool((both > 0).all())
    torch.testing.assert_close(code_divergence(SECOND, FIRST, direction="both"), both)


@pytest.mark.parametrize("direction", ["both", "teach"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equal_prompts_have_none_and_teach_nothing(direction: str, dtype: torch.dtype) -> None:
    logits, same = (FIRST.to(dtype, copy=True).requires_grad_() for _ in range(2))
    loss = code_divergence(logits, same, direction=direction)
    assert loss.dtype == torch.float32 and torch.equal(loss, torch.zeros(50))
    loss.sum().backward()
    assert float(same.grad.abs().max()) < 1e-6


def test_a_shift_of_all_logits_is_no_difference() -> None:
    shifted = FIRST + torch.randn(50, 1, generator=DRAW)
    assert float(code_divergence(FIRST, shifted, direction="both").abs().max()) < 1e-5


def test_the_first_learns_only_where_both_do() -> None:
    for direction, learns in (("both", True), ("teach", False)):
        first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
        code_divergence(first, second, direction=direction).sum().backward()
        assert (first.grad is not None) == learns
        if not learns:  # the gradient of a cross entropy with the first as its target
            torch.testing.assert_close(second.grad, SECOND.softmax(1) - FIRST.softmax(1))


def test_other_places_are_told() -> None:
    with pytest.raises(
        ShapeError,
        match=r"^logits of two languages at the same places are \[R, K\] both, and these are \[50, 11\] and "
        r"\[40, 11\]$",
    ):
        code_divergence(FIRST, SECOND[:40], direction="both")
