"""Heads: small networks that map an encoder's features into the space that images and texts share.

Shapes: B batch, N samples, D encoder width, H hidden width, E embedding width.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import ShapeError, VlkitError
from vlkit.types import ClassRows

_RESIDUAL_STD = 0.1  # at init the perceptron adds about a tenth of what the linear map gives


class Head(nn.Module):
    """What all heads share: their widths and the optional centring.

    With ``center`` the features, whose mean may hide all differences (e5: every cosine is above 0.8), are moved to zero
    mean and scaled to length sqrt(D), so that their entries have unit variance whatever D is.
    """

    kind: ClassVar[str]
    spec: Any  # what builds it again; whoever builds from a spec sets it
    mean_D: Tensor | None

    def __init__(self, in_width: int, out_width: int, *, center: bool) -> None:
        super().__init__()
        self.in_width, self.out_width = in_width, out_width
        self.register_buffer("mean_D", torch.zeros(in_width) if center else None)

    @property
    def needs_mean(self) -> bool:
        """Whether ``fit_mean`` has to be called before training: it centres, and has no mean from a saved model."""
        return self.mean_D is not None and not bool(self.mean_D.any())

    @torch.no_grad()
    def fit_mean(self, features_ND: Tensor) -> None:
        """Measures the mean feature of the training data; it is saved with the model.

        Raises:
            VlkitError: The head does not centre, or the features are empty or not finite.
            ShapeError: The features have another width.
        """
        if self.mean_D is None:
            raise VlkitError(f"a {self.kind} head with center=false has no mean to fit; set center=true in its spec")
        if features_ND.ndim != 2 or features_ND.shape[1] != self.in_width:
            raise ShapeError(f"fit_mean takes features [N, {self.in_width}], got {list(features_ND.shape)}")
        mean_D = features_ND.float().mean(dim=0)
        if not bool(mean_D.isfinite().all()):
            raise VlkitError(
                f"the mean of {len(features_ND)} features is not finite; the encoder gives NaN or there are no features"
            )
        self.mean_D.copy_(mean_D)

    @property
    def linear(self) -> nn.Linear | None:
        """The linear map that a warm start may set; None where there is none."""
        return None

    @torch.no_grad()
    def set_linear(self, map_ED: Tensor) -> None:
        """Sets the linear map and silences what is added to it.

        Raises:
            ShapeError: The head has no linear map, or one of another shape.
        """
        shape = None if self.linear is None else list(self.linear.weight.shape)
        if self.linear is None or list(map_ED.shape) != shape:
            raise ShapeError(f"{self.kind} head: the linear map has shape {shape}, got {list(map_ED.shape)}")
        self.linear.weight.copy_(map_ED)
        if self.linear.bias is not None:
            self.linear.bias.zero_()

    def class_prototypes(self, rows: ClassRows) -> Tensor:
        """Where the head puts an image surely recognised as each of the classes, prototypes_KE, not normalised.

        Without better knowledge the classifier's row, moved to where the features are, stands for such an image.
        """
        rows_KD = rows.weight_KD - rows.weight_KD.mean(dim=0)
        for place in self.parameters():
            rows_KD = rows_KD.to(place)
        at_KD = rows_KD if self.mean_D is None else rows_KD + self.mean_D
        prototypes_KE: Tensor = self(at_KD)
        return prototypes_KE

    def centered(self, features_BD: Tensor) -> Tensor:
        """The features as the map takes them."""
        if self.mean_D is None:
            return features_BD
        return F.normalize(features_BD - self.mean_D.to(features_BD), dim=-1) * math.sqrt(self.in_width)


class IdentityHead(Head):
    """No map: the encoder already ends in the shared space."""

    kind = "identity"

    def __init__(self, in_width: int, out_width: int) -> None:
        if in_width != out_width:
            raise ShapeError(
                f"an identity head needs equal widths: the encoder gives {in_width}, the shared space has {out_width}; "
                f"set embed_dim={in_width} or take a linear or mlp head"
            )
        super().__init__(in_width, out_width, center=False)

    def forward(self, features_BD: Tensor) -> Tensor:
        """features_BD as they are."""
        return features_BD


class LinearHead(Head):
    """One linear map: y = A x (+ b)."""

    kind = "linear"

    def __init__(self, in_width: int, out_width: int, *, bias: bool, center: bool) -> None:
        super().__init__(in_width, out_width, center=center)
        self.map = nn.Linear(in_width, out_width, bias=bias)
        _init_shortcut(self.map)

    @property
    def linear(self) -> nn.Linear:
        """A and b."""
        return self.map

    def forward(self, features_BD: Tensor) -> Tensor:
        """features_BD to out_BE, not normalised."""
        out_BE: Tensor = self.map(self.centered(features_BD))
        return out_BE


class MlpHead(Head):
    """A linear map and a perceptron beside it: starts almost linear and bends as far as the data ask for.

    y = A x + W2 gelu(W1 x + b1) + b2; ``hidden`` is H, ``dropout`` the share of it silenced in training.
    """

    kind = "mlp"

    def __init__(self, in_width: int, out_width: int, *, hidden: int, dropout: float, center: bool) -> None:
        super().__init__(in_width, out_width, center=center)
        self.shortcut = nn.Linear(in_width, out_width, bias=False)
        self.up = nn.Linear(in_width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(hidden, out_width)
        _init_shortcut(self.shortcut)
        nn.init.normal_(self.up.weight, std=1 / math.sqrt(in_width))
        nn.init.normal_(self.down.weight, std=_RESIDUAL_STD / math.sqrt(hidden))
        nn.init.zeros_(self.up.bias)
        nn.init.zeros_(self.down.bias)

    @property
    def linear(self) -> nn.Linear:
        """A."""
        return self.shortcut

    @torch.no_grad()
    def set_linear(self, map_ED: Tensor) -> None:
        """Sets A; the perceptron starts at zero and adds only what training finds."""
        super().set_linear(map_ED)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, features_BD: Tensor) -> Tensor:
        """features_BD to out_BE, not normalised."""
        x_BD = self.centered(features_BD)
        hidden_BH = self.dropout(F.gelu(self.up(x_BD)))
        out_BE: Tensor = self.shortcut(x_BD) + self.down(hidden_BH)
        return out_BE


class PrototypeHead(MlpHead):
    """An ``MlpHead`` beside the classes that the image encoder's own classifier knows.

    y = [unit(A x + W2 gelu(W1 x + b1) + b2), gain * softmax((C x + c) / temperature) V], with C and c the classifier, V
    one embedding a class. The second part is a convex combination of class embeddings (Norouzi et al. 2014, arXiv
    1312.5650, section 3): long where the classifier is sure, short where it is not, so that it leads for images like
    those it was made for and stays out of the way of others.

    The classes take the last ``known_dim`` of the E values; ``gain`` is the length of the second part for a surely
    recognised class, where that of the first is 1. ``mlp``: ``hidden``, ``dropout`` and ``center`` of ``MlpHead``.
    """

    kind = "prototype"
    weight_KD: Tensor
    bias_K: Tensor

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        known_dim: int,
        num_classes: int,
        gain: float,
        temperature: float,
        **mlp: Any,
    ) -> None:
        if known_dim >= out_width:
            raise ShapeError(
                f"known_dim = {known_dim} leaves nothing of embed_dim = {out_width} to the pairs; make it smaller"
            )
        super().__init__(in_width, out_width - known_dim, **mlp)
        self.out_width = out_width
        self.gain, self.temperature = gain, temperature
        self.register_buffer("weight_KD", torch.zeros(num_classes, in_width))
        self.register_buffer("bias_K", torch.zeros(num_classes))
        self.class_KV = nn.Parameter(torch.zeros(num_classes, known_dim))

    @torch.no_grad()
    def set_classes(self, rows: ClassRows, class_KV: Tensor) -> None:
        """Takes over the encoder's classifier and where its classes lie, class_KV with rows of length 1.

        Raises:
            ShapeError: Another number of classes or other widths.
        """
        if rows.weight_KD.shape != self.weight_KD.shape or class_KV.shape != self.class_KV.shape:
            raise ShapeError(
                f"the prototype head takes rows {list(self.weight_KD.shape)} and embeddings "
                f"{list(self.class_KV.shape)}, got {list(rows.weight_KD.shape)} and {list(class_KV.shape)}; "
                f"see num_classes and known_dim"
            )
        # softmax does not change when all logits do: centring keeps them small whatever the features' mean
        self.weight_KD.copy_(rows.weight_KD - rows.weight_KD.mean(dim=0))
        self.bias_K.copy_(rows.bias_K - rows.bias_K.mean())
        self.class_KV.copy_(class_KV)

    def forward(self, features_BD: Tensor) -> Tensor:
        """features_BD to out_BE, not normalised."""
        own_BP = F.normalize(super().forward(features_BD), dim=-1)
        logits_BK = F.linear(features_BD, self.weight_KD, self.bias_K)
        known_BV = (logits_BK / self.temperature).softmax(dim=-1) @ self.class_KV
        return torch.cat([own_BP, self.gain * known_BV], dim=-1)

    def class_prototypes(self, rows: ClassRows) -> Tensor:
        """The class embeddings alone: what the pairs say of such an image is not known."""
        return F.pad(self.class_KV, (self.shortcut.out_features, 0))


def _init_shortcut(linear: nn.Linear) -> None:
    # Orthogonal rows keep angles as far as the width allows: the untrained model ranks as the bare features do.
    nn.init.orthogonal_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
