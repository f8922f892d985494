"""Losses of the text decoder: captioning and masked text, given the image.

Shapes: B batch, L text length, N image tokens, D width, T predicted tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder, Encoded
from vlkit.nn.decoders import TextDecoder
from vlkit.objectives.context import Context
from vlkit.objectives.pairs.captioning.common import PairMean, decoder_of, vocabulary_of
from vlkit.objectives.pairs.captioning.masks import hide_words, words
from vlkit.objectives.pairs.captioning.sliced import sliced_cross_entropy
from vlkit.parts.building import compact
from vlkit.spec.captioning import CaptioningObjective, MaskedTextObjective
from vlkit.spec.training import ObjectiveSpec
from vlkit.types import Vocabulary


class _TextTerm(PairMean):
    def __init__(self, spec: CaptioningObjective | MaskedTextObjective, vocabulary: Vocabulary) -> None:
        self.spec, self.vocabulary = spec, vocabulary

    @classmethod
    def build(cls, spec: ObjectiveSpec, model: DualEncoder, context: Context) -> _TextTerm:
        """See ``Term.build``."""
        decoder_of(model, "text", TextDecoder, objective=cls.name)
        return cls(cast("CaptioningObjective | MaskedTextObjective", spec), vocabulary_of(model, cls.name))

    def _loss_of(self, decoder: TextDecoder, states_BLD: Tensor, given: _Given, *, chosen_BL: Tensor) -> Tensor:
        """Each pair's mean cross entropy over its chosen tokens, [B]; 0 for a pair without any."""
        places_T = chosen_BL.flatten().nonzero().squeeze(1)
        losses_T = sliced_cross_entropy(
            states_BLD.flatten(0, 1)[places_T],
            decoder.output_map,
            given.ids_BL.flatten()[places_T],
            slice_size=self.spec.slice_size,
        )
        losses_BL = losses_T.new_zeros(chosen_BL.numel()).index_copy(0, places_T, losses_T).view(chosen_BL.shape)
        return losses_BL.sum(dim=1) / chosen_BL.sum(dim=1).clamp(min=1)


class Captioning(_TextTerm):
    """Each token of a text from those before it and the image (CoCa, arXiv 2205.01917, section 3.2).

    Predicted are the tokens of the text and the one that ends it, not the marks that its tokenizer puts before it.
    """

    name = "captioning"

    def per_pair(self, model: DualEncoder, chunk: PairBatch, encoded: Encoded) -> Mapping[str, Tensor]:
        """Each pair's loss."""
        decoder = decoder_of(model, "text", TextDecoder, objective=self.name)
        given = _given(self.name, chunk, encoded)
        shifted_BL = F.pad(given.ids_BL[:, :-1], (1, 0), value=decoder.start)
        states_BLD = decoder(shifted_BL, given.mask_BL, given.image_BND, causal=True)
        special_BL = self.vocabulary.special_V.to(given.ids_BL.device)[given.ids_BL]
        places_L = torch.arange(given.ids_BL.shape[1], device=given.ids_BL.device)
        last_BL = places_L == given.mask_BL.sum(dim=1, keepdim=True) - 1
        chosen_BL = (given.mask_BL > 0) & (last_BL | ~special_BL)
        return {self.name: self._loss_of(decoder, states_BLD, given, chosen_BL=chosen_BL)}


class MaskedText(_TextTerm):
    """Hidden words of a text from the other words and the image (M2-Encoder's CMLM, arXiv 2401.15896).

    The image encoder sees all of the image, the text encoder is not asked: what it made of the whole text would give
    the hidden words away.
    """

    name = "masked_text"

    def per_pair(self, model: DualEncoder, chunk: PairBatch, encoded: Encoded) -> Mapping[str, Tensor]:
        """Each pair's loss."""
        decoder = decoder_of(model, "text", TextDecoder, objective=self.name)
        given = _given(self.name, chunk, encoded)
        vocabulary = Vocabulary(*(fact_V.to(given.ids_BL.device) for fact_V in self.vocabulary))
        words_BL = words(given.ids_BL, given.mask_BL, vocabulary)
        hidden_BL = hide_words(words_BL, cast("MaskedTextObjective", self.spec).mask_share)
        masked_BL = given.ids_BL.masked_fill(hidden_BL, decoder.mask)
        states_BLD = decoder(masked_BL, given.mask_BL, given.image_BND, causal=False)
        return {self.name: self._loss_of(decoder, states_BLD, given, chosen_BL=hidden_BL)}


class _Given(NamedTuple):
    ids_BL: Tensor
    mask_BL: Tensor
    image_BND: Tensor


def _given(name: str, chunk: PairBatch, encoded: Encoded) -> _Given:
    if chunk.tokens is None or encoded.image_BND is None:
        raise VlkitError(f"the {name} objective needs tokens and image states, not cached features")
    device = encoded.image_BND.device
    ids_BL, mask_BL = compact(*(part.to(device) for part in chunk.tokens))
    return _Given(ids_BL, mask_BL, encoded.image_BND)
