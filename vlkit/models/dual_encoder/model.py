"""An image and a text encoder with heads into one shared space.

Sources: CLIP (arXiv 2103.00020), LiT (2111.07991), SigLIP (2303.15343).

Shapes: B batch, C channels, H height, W width, L text length, D encoder width, E embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from pydantic import ValidationError
from torch import Tensor, nn

from vlkit.errors import ShapeError, VlkitError
from vlkit.models.assembly import checked_part, place_of, spec_of
from vlkit.models.dual_encoder.batch import LookedUpPairs, PairBatch, PairPreparer
from vlkit.models.dual_encoder.direct import Embedded, embed, refuse_pixels, refuse_tokens, summary
from vlkit.models.image_input import AnImage
from vlkit.models.model_html import model_html
from vlkit.models.trainable import adapter_specs, hold_frozen_in_eval
from vlkit.parts.bridges import build_head
from vlkit.spec.dataset import DataSpec
from vlkit.spec.model import DualEncoderSpec
from vlkit.types import Embeddings, GivesStates, ImageEncoder, Preparer, TextBatch, TextEncoder, lacking

Side = Literal["image", "text"]
SIDES: frozenset[Side] = frozenset(("image", "text"))

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Self


def _default(field: str) -> Any:
    return DualEncoderSpec.model_fields[field].default


class Encoded(NamedTuple):
    """Embeddings of the sides that were asked for, L2-normalised, and where asked for the states before pooling.

    ``image_BND`` N image tokens (spatial ones alone), ``text_BLD`` one state a text token (those of real tokens first);
    D is the encoder's own width. ``raw_text_BE`` is what the text head gave, before it was normalised.
    """

    image_BE: Tensor | None
    text_BE: Tensor | None
    image_BND: Tensor | None = None
    text_BLD: Tensor | None = None
    raw_text_BE: Tensor | None = None


class DualEncoder(nn.Module):
    """Images and texts embedded into one space; their cosine says how well they fit.

    Inputs are moved to the device and precision of the part that takes them; embeddings are float32. A part whose
    parameters are all frozen stays in eval mode whatever mode the model is in.

    Args:
        image: A ``types.ImageEncoder`` that is an ``nn.Module``.
        text: A ``types.TextEncoder`` that is an ``nn.Module``.
        embed_dim: Width E of the shared space.
        image_head: Maps image features [B, D] to [B, E]; None takes the spec's default head. Any module will do.
        text_head: Likewise for texts.
        init_scale: First value of the learned scale of similarities (1 / temperature).
        max_scale: The scale is never above it.
        init_bias: First value of the learned bias of similarities; None for no bias.
        decoder: An ``nn.decoders.Decoder``, for objectives that need one; embedding never runs it.

    Raises:
        ShapeError: A head's widths do not fit its encoder or the shared space.
        VlkitError: A part does not offer what its place needs.
    """

    image: ImageEncoder
    text: TextEncoder
    log_scale: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        image: ImageEncoder | nn.Module,
        text: TextEncoder | nn.Module,
        *,
        embed_dim: int = _default("embed_dim"),
        image_head: nn.Module | None = None,
        text_head: nn.Module | None = None,
        init_scale: float = _default("init_scale"),
        max_scale: float = _default("max_scale"),
        init_bias: float | None = _default("init_bias"),
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not 0 < init_scale <= max_scale:
            raise VlkitError(f"init_scale is {init_scale:g}; it must be above 0 and at most max_scale ({max_scale:g})")
        self.embed_dim, self.max_scale = embed_dim, max_scale
        self.image = checked_part("image encoder", image, ImageEncoder, owner="DualEncoder")
        self.text = checked_part("text encoder", text, TextEncoder, owner="DualEncoder")
        self.image_head = _own_head("image", self.image.width, image_head, embed_dim)
        self.text_head = _own_head("text", self.text.width, text_head, embed_dim)
        self.decoder = decoder
        self._init_scale, self._init_bias = init_scale, init_bias
        self.loaded_from: str | None = None  # what vlkit.load was given
        self.log_scale = nn.Parameter(torch.tensor(math.log(init_scale)))
        self.bias = None if init_bias is None else nn.Parameter(torch.tensor(float(init_bias)))

    def parts(self) -> dict[str, nn.Module]:
        """See ``types.Model``: both encoders, both heads, and the decoder where there is one."""
        return dict(self.named_children())

    def preparer(
        self, data: DataSpec, *, needs: Collection[str] | None = None, tables: Mapping[str, Any] | None = None
    ) -> Preparer:
        """See ``types.Model``; without need for ``image`` no image is read, with a table of images none at all."""
        if tables and "image" in tables:
            return LookedUpPairs(self.tokenize, tables["image"], tables.get("text"))
        return PairPreparer.of(self, data, images=needs is None or "image" in needs)

    def figures(self) -> dict[str, float]:
        """See ``types.Model``: the scale of similarities."""
        return {"scale": self.scale.item()}

    @property
    def transform(self) -> Callable[[Image], Tensor]:
        """Turns an RGB image into pixels_CHW as the image encoder wants them."""
        return self.image.transform

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied with, a scalar in (0, max_scale]."""
        log_scale: Tensor = _Ceiling.apply(self.log_scale, math.log(self.max_scale))
        return log_scale.exp()

    @property
    def spec(self) -> DualEncoderSpec:
        """The spec that builds this model again, read off its parts.

        Raises:
            VlkitError: A part carries no spec of vlkit's.
        """
        parts = {name: spec_of(self, name) for name in ("image", "text", "image_head", "text_head")}
        try:
            return DualEncoderSpec(
                **parts,
                embed_dim=self.embed_dim,
                adapters=adapter_specs(self),
                decoder=None if self.decoder is None else spec_of(self, "decoder"),
                init_scale=self._init_scale,
                max_scale=self.max_scale,
                init_bias=self._init_bias,
            )
        except ValidationError as error:
            names = ", ".join(sorted({str(problem["loc"][0]) for problem in error.errors()}))
            raise VlkitError(
                f"the .spec of {names} is none of vlkit.spec's; save the model's state_dict() yourself"
            ) from error

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, but for the frozen parts: their dropout and batch statistics must not move."""
        super().train(mode)
        hold_frozen_in_eval(self)
        return self

    @property
    def marks_language(self) -> bool:
        """Whether tokens of one text depend on its language."""
        return self.text.marks_language

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Tokens as the text encoder wants them; ``language`` is BCP 47."""
        return self.text.tokenize(texts, language=language)

    def embed(
        self,
        *,
        images: AnImage | Sequence[AnImage] | None = None,
        texts: str | Sequence[str] | None = None,
        language: str | None = None,
    ) -> Embedded:
        """Images and texts as they are to ``image_NE`` and ``text_TE``, without gradient; None for what is not given.

        Args:
            images: Paths, PIL images, encoded bytes or arrays; one or several.
            texts: One or several.
            language: BCP 47 tag of the texts, for text encoders that mark it.

        Raises:
            DataError: An image cannot be read.
            VlkitError: Neither images nor texts, or texts that are none.
        """
        return embed(self, images=images, texts=texts, language=language)

    def __repr__(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str:
        return model_html(self)

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        """Pixels as ``transform`` makes them to image_BE, L2-normalised; see ``embed`` for paths and PIL images."""
        if not isinstance(pixels_BCHW, Tensor) or pixels_BCHW.ndim == 3:
            refuse_pixels(pixels_BCHW)
        return self.project_image(self.image(pixels_BCHW.to(*_place(self, "image"))))

    def encode_text(self, tokens: TextBatch) -> Tensor:
        """Tokens as ``tokenize`` makes them to text_BE, L2-normalised; see ``embed`` for texts."""
        if not isinstance(tokens, tuple) or len(tokens) != 2 or not isinstance(tokens[0], Tensor):
            refuse_tokens(tokens)
        return _unit(self.raw_text(tokens))

    def raw_text(self, tokens: TextBatch) -> Tensor:
        """Tokens as ``tokenize`` makes them to raw_text_BE, what the text head gives before it is normalised."""
        return self._head("text", self.text(self._here(tokens)), self.text.width)

    def project_image(self, features_BD: Tensor) -> Tensor:
        """The image encoder's features to image_BE, L2-normalised."""
        return _unit(self._head("image", features_BD, self.image.width))

    def project_text(self, features_BD: Tensor) -> Tensor:
        """The text encoder's features to text_BE, L2-normalised."""
        return _unit(self._head("text", features_BD, self.text.width))

    def encode(self, batch: PairBatch, *, states: bool = False, sides: Collection[Side] = SIDES) -> Encoded:
        """A batch, from cached features where it holds them.

        Args:
            batch: Pairs.
            states: Also give the encoders' states before pooling; the batch must then hold raw input.
            sides: What to encode; the other side is left out and need not be in the batch.

        Raises:
            VlkitError: A side has neither features nor raw input, or an encoder gives no states.
        """
        image_BE = image_BND = raw_BE = text_BLD = None
        if "image" in sides:
            image_BE, image_BND = self._image(batch, states=states)
        if "text" in sides:
            raw_BE, text_BLD = self._raw_text(batch, states=states)
        return Encoded(image_BE, None if raw_BE is None else _unit(raw_BE), image_BND, text_BLD, raw_BE)

    def _image(self, batch: PairBatch, *, states: bool) -> tuple[Tensor, Tensor | None]:
        if states:
            if batch.pixels_BCHW is None:
                raise VlkitError(_NO_STATES.format(side="image", raw="pixels_BCHW"))
            features_BD, image_BND = states_method(self, "image")(batch.pixels_BCHW.to(*_place(self, "image")))
            return self.project_image(features_BD), image_BND
        if batch.image_BD is not None:
            return self.project_image(batch.image_BD), None
        if batch.pixels_BCHW is not None:
            return self.encode_image(batch.pixels_BCHW), None
        raise VlkitError("the batch has neither pixels_BCHW nor image_BD; one of them is needed")

    def _raw_text(self, batch: PairBatch, *, states: bool) -> tuple[Tensor, Tensor | None]:
        if states:
            if batch.tokens is None:
                raise VlkitError(_NO_STATES.format(side="text", raw="tokens"))
            features_BD, text_BLD = states_method(self, "text")(self._here(batch.tokens))
            return self._head("text", features_BD, self.text.width), text_BLD
        if batch.text_BD is not None:
            return self._head("text", batch.text_BD, self.text.width), None
        if batch.tokens is not None:
            return self.raw_text(batch.tokens), None
        raise VlkitError("the batch has neither tokens nor text_BD; one of them is needed")

    def _here(self, tokens: TextBatch) -> TextBatch:
        device, _ = _place(self, "text")
        return TextBatch(*(side.to(device) for side in tokens))

    def forward(self, batch: PairBatch) -> Embeddings:
        """The embeddings of both sides of a batch; see ``encode``."""
        (image_BE, _), (raw_BE, _) = self._image(batch, states=False), self._raw_text(batch, states=False)
        return Embeddings(image_BE, _unit(raw_BE), self.scale, self.bias)

    def _head(self, side: str, features_BD: Tensor, width: int) -> Tensor:
        if features_BD.shape[-1] != width:
            raise ShapeError(f"{side} features are {features_BD.shape[-1]} wide, the {side} encoder says {width}")
        out_BE: Tensor = self.get_submodule(f"{side}_head")(features_BD.to(*_place(self, f"{side}_head")))
        if out_BE.shape[-1] != self.embed_dim:
            raise ShapeError(
                f"{side}_head gives {out_BE.shape[-1]} values, the shared space has embed_dim={self.embed_dim}"
            )
        return out_BE.float()


_NO_STATES = (
    "states of the {side} tokens are wanted and the batch has no {raw}: features of a frozen encoder were cached; "
    "set loop.cache_features=false"
)


def states_method(model: DualEncoder, side: Side) -> Callable[[Any], tuple[Tensor, Tensor]]:
    """An encoder's optional method that gives the pooled features and the states before pooling in one pass.

    Raises:
        VlkitError: The encoder has none.
    """
    encoder = model.get_submodule(side)
    if not isinstance(encoder, GivesStates):
        raise VlkitError(
            f"the {side} encoder {type(encoder).__name__} gives no states before pooling (it has no "
            f"{lacking(encoder, GivesStates)[-1]}); choose another one, or leave out the objectives that need a decoder"
        )
    return encoder.pooled_and_states


def _unit(raw_BE: Tensor) -> Tensor:
    return F.normalize(raw_BE, dim=-1)


class _Ceiling(torch.autograd.Function):
    """min(x, ceiling) whose gradient passes above the ceiling where it leads back down; clamp would be stuck there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ceiling: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.ceiling = ceiling
        return x.clamp(max=ceiling)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,), (grad,) = ctx.saved_tensors, grads
        return torch.where((x < ctx.ceiling) | (grad > 0), grad, 0.0), None


def _own_head(side: str, width: int, head: nn.Module | None, embed_dim: int) -> nn.Module:
    if head is None:
        return build_head(_default(f"{side}_head"), width, embed_dim)
    # Only heads that tell their widths can be checked here; the others are checked at their first output.
    takes, gives = getattr(head, "in_width", width), getattr(head, "out_width", embed_dim)
    if takes != width:
        raise ShapeError(f"{side}_head takes {takes} values, the {side} encoder gives {width}")
    if gives != embed_dim:
        raise ShapeError(f"{side}_head gives {gives} values, the shared space has embed_dim={embed_dim}")
    return head


def _place(model: DualEncoder, part: str) -> tuple[torch.device, torch.dtype]:
    return place_of(model.get_submodule(part)) or (model.log_scale.device, torch.float32)
