"""Heads: from an encoder's features into the shared space.

Shapes: B batch, N samples, D encoder width, H hidden width, E embedding width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import ShapeError, UnknownName, VlkitError
from vlkit.spec import parts as specs
from vlkit.types import ClassRows

_RESIDUAL_STD = 0.1  # at init the perceptron adds about a tenth of what the linear map gives


class Head(nn.Module):
    """What all heads share: their widths, their spec and the optional centring.

    With ``center`` the features, whose mean may hide all differences (e5: every cosine is above 0.8), are moved to zero
    mean and scaled to length sqrt(D), so that their entries have unit variance whatever D is.
    """

    mean_D: Tensor | None

    def __init__(self, spec: specs.HeadSpec, in_width: int, out_width: int, *, center: bool) -> None:
        super().__init__()
        self.spec, self.in_width, self.out_width = spec, in_width, out_width
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
            raise VlkitError(
                f"a {self.spec.kind} head with center=false has no mean to fit; set center=true in its spec"
            )
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
            raise ShapeError(f"{self.spec.kind} head: the linear map has shape {shape}, got {list(map_ED.shape)}")
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

    def __init__(self, spec: specs.IdentityHead, in_width: int, out_width: int) -> None:
        if in_width != out_width:
            raise ShapeError(
                f"an identity head needs equal widths: the encoder gives {in_width}, the shared space has {out_width}; "
                f"set embed_dim={in_width} or take a linear or mlp head"
            )
        super().__init__(spec, in_width, out_width, center=False)

    def forward(self, features_BD: Tensor) -> Tensor:
        """features_BD as they are."""
        return features_BD


class LinearHead(Head):
    """y = A x (+ b)."""

    def __init__(self, spec: specs.LinearHead, in_width: int, out_width: int) -> None:
        super().__init__(spec, in_width, out_width, center=spec.center)
        self.map = nn.Linear(in_width, out_width, bias=spec.bias)
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
    """y = A x + W2 gelu(W1 x + b1) + b2: starts almost linear and bends as far as the data ask for."""

    def __init__(self, spec: specs.MlpHead | specs.PrototypeHead, in_width: int, out_width: int) -> None:
        super().__init__(spec, in_width, out_width, center=spec.center)
        self.shortcut = nn.Linear(in_width, out_width, bias=False)
        self.up = nn.Linear(in_width, spec.hidden)
        self.dropout = nn.Dropout(spec.dropout)
        self.down = nn.Linear(spec.hidden, out_width)
        _init_shortcut(self.shortcut)
        nn.init.normal_(self.up.weight, std=1 / math.sqrt(in_width))
        nn.init.normal_(self.down.weight, std=_RESIDUAL_STD / math.sqrt(spec.hidden))
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
    """y = [unit(A x + W2 gelu(W1 x + b1) + b2), gain * softmax(C x + c) V].

    C and c are the image encoder's own classifier, V one embedding a class. The second part is a convex combination of
    class embeddings (Norouzi et al. 2014, arXiv 1312.5650, section 3): long where the classifier is sure, short where
    it is not, so that it leads for images like those it was made for and stays out of the way of others.
    """

    weight_KD: Tensor
    bias_K: Tensor

    def __init__(self, spec: specs.PrototypeHead, in_width: int, out_width: int) -> None:
        if spec.known_dim >= out_width:
            raise ShapeError(
                f"known_dim = {spec.known_dim} leaves nothing of embed_dim = {out_width} to the pairs; make it smaller"
            )
        super().__init__(spec, in_width, out_width - spec.known_dim)
        self.out_width = out_width
        self.gain, self.temperature = spec.gain, spec.temperature
        self.register_buffer("weight_KD", torch.zeros(spec.num_classes, in_width))
        self.register_buffer("bias_K", torch.zeros(spec.num_classes))
        self.class_KV = nn.Parameter(torch.zeros(spec.num_classes, spec.known_dim))

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


def build_head(spec: specs.HeadSpec, in_width: int, out_width: int) -> Head:
    """The head that ``spec`` describes, with fresh weights.

    Raises:
        ShapeError: An identity head between unequal widths.
    """
    match spec:
        case specs.IdentityHead():
            return IdentityHead(spec, in_width, out_width)
        case specs.LinearHead():
            return LinearHead(spec, in_width, out_width)
        case specs.MlpHead():
            return MlpHead(spec, in_width, out_width)
        case specs.PrototypeHead():
            return PrototypeHead(spec, in_width, out_width)
        case _:
            raise UnknownName("head", type(spec).__name__, allowed=("identity", "linear", "mlp", "prototype"))


def _init_shortcut(linear: nn.Linear) -> None:
    # Orthogonal rows keep angles as far as the width allows: the untrained model ranks as the bare features do.
    nn.init.orthogonal_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
