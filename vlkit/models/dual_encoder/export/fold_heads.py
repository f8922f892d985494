"""Heads as one affine map, the form in which other libraries' models can hold them.

Shapes: D width that goes in, E width that comes out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.nn.heads import Head, IdentityHead, LinearHead
from vlkit.obstacles import Obstacles

_EXACT = 1e-6  # of the bias's length: what absorbing it may leave over


class Affine(NamedTuple):
    """y = A x + b."""

    weight_ED: Tensor
    bias_E: Tensor | None

    def after(self, inner: Affine) -> Affine:
        """This map of what another one gives."""
        weight_ED = self.weight_ED @ inner.weight_ED
        if inner.bias_E is None:
            return Affine(weight_ED, self.bias_E)
        bias_E = self.weight_ED @ inner.bias_E
        return Affine(weight_ED, bias_E if self.bias_E is None else bias_E + self.bias_E)

    @classmethod
    def of(cls, linear: nn.Linear) -> Affine:
        """A torch layer's."""
        return cls(_plain(linear.weight), None if linear.bias is None else _plain(linear.bias))

    def put(self, state: dict[str, Tensor], name: str) -> bool:
        """Writes it into a state dict as a linear layer; True where it has a bias."""
        state[f"{name}.weight"] = self.weight_ED
        if self.bias_E is not None:
            state[f"{name}.bias"] = self.bias_E
        return self.bias_E is not None


def affine(head: nn.Module, *, side: str) -> Affine | None:
    """What a head does, up to a positive factor a sample, which the L2 normalisation after it takes away.

    So the centring of a linear head without bias, A (x - m) / |x - m|, is A x - A m. None is the identity.

    Raises:
        VlkitError: The head is no affine map.
    """
    if isinstance(head, IdentityHead):
        return None
    if not isinstance(head, LinearHead):
        kind = head.kind if isinstance(head, Head) else type(head).__name__
        raise VlkitError(
            f"{side}_head is a {kind} head, and the other library's models end in a linear map; keep vlkit's own "
            f"format, or train with model.{side}_head.kind=linear"
        )
    weight_ED, bias_E = Affine.of(head.map)
    if head.mean_D is None:
        return Affine(weight_ED, bias_E)
    if bias_E is not None:
        raise VlkitError(
            f"{side}_head is linear with center = true and bias = true: its centring scales every sample by another "
            f"factor, which no affine map does; keep vlkit's own format, or train with bias = false"
        )
    return Affine(weight_ED, -weight_ED @ _plain(head.mean_D))


def affine_or_zero(model: DualEncoder, side: str, obstacles: Obstacles) -> Affine | None:
    """The head of a side; a map of zeros where it is none, which ``obstacles`` then know, to look at the rest with."""
    with obstacles.met():
        return affine(model.get_submodule(f"{side}_head"), side=side)
    width = model.image.width if side == "image" else model.text.width
    return Affine(torch.zeros(model.embed_dim, width), None)


def absorb(head: Affine, *, what: str) -> Tensor:
    """The shift_D of the features x with A (x + shift) = A x + b, for maps that hold no bias of their own.

    Raises:
        VlkitError: There is none: A does not reach b.
    """
    if head.bias_E is None:
        return head.weight_ED.new_zeros(head.weight_ED.shape[1])
    matrix_ED, target_E1 = head.weight_ED.double(), head.bias_E.double().unsqueeze(1)
    shift_D1 = torch.linalg.lstsq(matrix_ED, target_E1, driver="gelsd").solution
    if float((matrix_ED @ shift_D1 - target_E1).norm()) > _EXACT * float(target_E1.norm()):
        raise VlkitError(
            f"{what} has a bias that the other library's model has no place for; train with bias = false, or keep "
            f"vlkit's own format"
        )
    shift_D: Tensor = shift_D1.squeeze(1).float()
    return shift_D


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu()
