"""How far the codes that a model expects of one image differ between two languages that describe it.

Shapes: B images, R hidden places of all images, K codebook size.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from vlkit.errors import ShapeError


def code_divergence(first_RK: Tensor, second_RK: Tensor, *, direction: Literal["both", "teach"]) -> Tensor:
    """The divergence of the distributions over codes at each place, float32 [R], in nats; 0 where they are equal.

    Both languages are shown the same image with the same codes hidden, else their distributions differ for other
    reasons than the language.

    Args:
        first_RK: Logits with the prompt in one language, any float dtype.
        second_RK: Those of the same places with the prompt in the other.
        direction: both: half of KL(first | second) + KL(second | first), each learns of the other (as R-Drop, arXiv
            2106.14448, equation 2, does of two passes). teach: KL(first | second), and nothing is learned by the first.

    Raises:
        ShapeError: Logits of different places or codebooks.
    """
    if first_RK.shape != second_RK.shape or first_RK.ndim != 2:
        raise ShapeError(
            f"logits of two languages at the same places are [R, K] both, and these are {list(first_RK.shape)} and "
            f"{list(second_RK.shape)}"
        )
    first_log, second_log = (logits_RK.float().log_softmax(dim=1) for logits_RK in (first_RK, second_RK))
    if direction == "teach":
        first_log = first_log.detach()
        return (first_log.exp() * (first_log - second_log)).sum(dim=1)
    return ((first_log.exp() - second_log.exp()) * (first_log - second_log)).sum(dim=1) / 2
