"""An image encoder and a Q-Former that learns which parts of an image texts speak of.

Source: BLIP-2 (arXiv 2301.12597, section 3.2).

Shapes: B pairs, C channels, H height, W width, N image tokens, T their width, M queries, L text length, E width of the
shared space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import ShapeError, VlkitError
from vlkit.models.assembly import checked_part, place_of, spec_of, trains
from vlkit.models.model_html import model_html
from vlkit.models.query_former.batch import LookedUpQueries, QueryBatch, QueryPreparer
from vlkit.models.trainable import adapter_specs, hold_frozen_in_eval
from vlkit.nn.qformer import QueryStates, QueryTransformer
from vlkit.parts.query_reader import QueryReader, written
from vlkit.spec.dataset import DataSpec
from vlkit.spec.model import QueryFormerSpec
from vlkit.types import ImageEncoder, Preparer, TextBatch

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Self


class QueryFormer(nn.Module):
    """A Q-Former between an image encoder and texts: it is trained here, and used as the bridge of another model.

    Inputs are moved to the device and precision of the part that takes them. A part whose parameters are all frozen
    stays in eval mode, and a frozen encoder builds no graph.

    Args:
        encoder: A ``types.ImageEncoder`` that is an ``nn.Module``.
        bridge: The Q-Former, from the encoder's ``token_width`` to the space in which queries and texts are compared.
        text: What it reads and writes texts with.
        init_scale: First value of the learned scale of similarities (1 / temperature).

    Raises:
        ShapeError: Widths do not fit.
        VlkitError: A part is of another kind.
    """

    encoder: Any
    bridge: QueryTransformer
    text: QueryReader

    def __init__(
        self, encoder: ImageEncoder | nn.Module, bridge: nn.Module, text: nn.Module, *, init_scale: float
    ) -> None:
        super().__init__()
        self.encoder = checked_part("image encoder", encoder, ImageEncoder, owner=type(self).__name__)
        for name, part, kind in (("bridge", bridge, QueryTransformer), ("text", text, QueryReader)):
            if not isinstance(part, kind):
                raise VlkitError(f"{name} is a {type(part).__name__}; a {type(self).__name__} takes a {kind.__name__}")
            setattr(self, name, part)
        if self.bridge.in_width != self.encoder.token_width:
            raise ShapeError(
                f"the Q-Former takes tokens {self.bridge.in_width} wide, the image encoder gives "
                f"{self.encoder.token_width}; build it with in_width={self.encoder.token_width} (encoder.token_width)"
            )
        self._init_scale = init_scale
        self.log_scale = nn.Parameter(torch.tensor(math.log(init_scale)))
        self.loaded_from: str | None = None  # what vlkit.load was given

    def parts(self) -> dict[str, nn.Module]:
        """See ``types.Model``."""
        return dict(self.named_children())

    @property
    def spec(self) -> QueryFormerSpec:
        """The spec that builds this model again, read off its parts.

        Raises:
            VlkitError: A part carries no spec of vlkit's.
        """
        return QueryFormerSpec(
            **{name: spec_of(self, name) for name in self.parts()},
            embed_dim=self.bridge.out_width,
            adapters=adapter_specs(self),
            init_scale=self._init_scale,
        )

    @property
    def transform(self) -> Callable[[Image], Tensor]:
        """Turns an RGB image into pixels_CHW as the image encoder wants them."""
        transform: Callable[[Image], Tensor] = self.encoder.transform
        return transform

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied with, a scalar."""
        return self.log_scale.exp()

    def preparer(
        self, data: DataSpec, *, needs: Collection[str] | None = None, tables: Mapping[str, Any] | None = None
    ) -> Preparer:
        """See ``types.Model``; with a table of the encoder's tokens no image is read."""
        if tables and "encoder" in tables:
            return LookedUpQueries(self.text.tokenize, tables["encoder"])
        return QueryPreparer.of(self, data)

    def _repr_html_(self) -> str:
        return model_html(self)

    def figures(self) -> dict[str, float]:
        """See ``types.Model``: the scale of similarities."""
        return {"scale": self.scale.item()}

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, but for the frozen parts: their dropout and batch statistics must not move."""
        super().train(mode)
        hold_frozen_in_eval(self)
        return self

    def image_tokens(self, batch: QueryBatch) -> Tensor:
        """image_BNT as the Q-Former takes them, from looked-up tokens where the batch holds them."""
        if batch.image_BNT is not None:
            return _moved(batch.image_BNT, self.bridge)
        if batch.pixels_BCHW is None:
            raise VlkitError("the batch has neither pixels_BCHW nor image_BNT; one of them is needed")
        with nullcontext() if trains(self.encoder) else torch.no_grad():
            return _moved(self.encoder.tokens(_moved(batch.pixels_BCHW, self.encoder)), self.bridge)

    def embedded_queries(self, states: QueryStates) -> Tensor:
        """queries_BME in the space that they share with texts, L2-normalised; texts had no part in them."""
        return F.normalize(self.bridge.projection(states.last_BMW).float(), dim=-1)

    def embedded_texts(self, tokens: TextBatch) -> Tensor:
        """text_BE, L2-normalised; images had no part in them."""
        return self.text.embedded(self.bridge.text_states(self.text.text, *tokens))

    def match_logits(self, image_BNT: Tensor, tokens: TextBatch) -> Tensor:
        """logits_B2 that each image and text do not and do belong together; queries and text see each other."""
        ids_BL, mask_BL = tokens
        return self.text.match_logits(
            self.bridge.joint_states(self.text.text, image_BNT, ids_BL=ids_BL, mask_BL=mask_BL)
        )

    def writing_states(self, tokens: TextBatch, states: QueryStates) -> Tensor:
        """states_BLW of texts that are written to images: state l foretells token l + 1 (``text.logits``)."""
        ids_BL = written(tokens.ids_BL, start=self.text.start)
        return self.bridge.text_states(self.text.text, ids_BL, tokens.mask_BL, beside=states)


def _moved(x: Tensor, module: nn.Module) -> Tensor:
    place = place_of(module)
    return x if place is None else x.to(*place)
