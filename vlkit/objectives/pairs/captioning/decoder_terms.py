"""Losses of the decoders: captioning and masked text, given the image; hidden patches of an image, given the text.

Each pair counts the same, whatever the length of its text: a pair's loss is the mean over what is predicted of it, the
batch's the mean over pairs. CoCa's code averages over the tokens of a batch instead, so that languages which the
tokenizer cuts into more pieces weigh more; and micro-batches would need the number of tokens of the whole batch.

Shapes: B batch, L text length, N image tokens or patches, D width, T predicted tokens, C channels, H height, W width,
K hidden patches, P values of a patch, M image tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, TypeVar, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import SIDES, DualEncoder, Encoded, states_method
from vlkit.nn.decoders import Decoder, PatchDecoder, TextDecoder, normalized_patches, take
from vlkit.objectives.context import Context
from vlkit.objectives.pairs.captioning.masks import hide_patches, hide_words, on_grid, words
from vlkit.objectives.pairs.captioning.sliced import sliced_cross_entropy
from vlkit.objectives.pairs.pair_term import Term
from vlkit.parts.building import compact
from vlkit.spec.objectives import CaptioningObjective, MaskedImageObjective, MaskedTextObjective
from vlkit.types import Embeddings, KnowsVocabulary, Loss, Vocabulary

_Part = TypeVar("_Part", bound=nn.Module)
_TextSpec: TypeAlias = CaptioningObjective | MaskedTextObjective


class PairMean(Term):
    """A term that is the mean over pairs of one figure of each, which ``per_pair`` gives under the term's name."""

    states = True

    def loss(
        self, model: DualEncoder, batch: PairBatch, embeddings: Embeddings | None, per_pair: Mapping[str, Tensor]
    ) -> Loss:
        """See ``Term.loss``."""
        total = per_pair[self.name].mean()
        return Loss(total, {self.name: total.detach()})


def decoder_of(model: DualEncoder, part: str, kind: type[_Part], *, objective: str) -> _Part:
    """The decoder for texts (part ``text``) or patches (``image``).

    Raises:
        VlkitError: The model has none, or an encoder gives no states for it to look at.
    """
    for side in SIDES:
        states_method(model, side)
    found = getattr(model.decoder, part) if isinstance(model.decoder, Decoder) else None
    if not isinstance(found, kind):
        raise VlkitError(
            f"the {objective} objective needs a decoder and the model has none for it; "
            f"set model.decoder.{part}_layers=3, say, and let 'decoder' train"
        )
    return found


class _TextTerm(PairMean):
    def __init__(self, spec: _TextSpec, vocabulary: Vocabulary) -> None:
        self.spec, self.vocabulary = spec, vocabulary

    @classmethod
    def build(cls, spec: _TextSpec, model: DualEncoder, context: Context) -> _TextTerm:
        """See ``Term.build``."""
        decoder_of(model, "text", TextDecoder, objective=cls.name)
        if not isinstance(model.text, KnowsVocabulary):
            raise VlkitError(
                f"the {cls.name} objective needs to know words from marks, and the text encoder "
                f"{type(model.text).__name__} has no vocabulary(); choose another one, or leave the objective out"
            )
        return cls(spec, model.text.vocabulary())

    def _loss_of(self, decoder: TextDecoder, states_BLD: Tensor, ids_BL: Tensor, *, chosen_BL: Tensor) -> Tensor:
        """Each pair's mean cross entropy over its chosen tokens, [B]; 0 for a pair without any."""
        places_T = chosen_BL.flatten().nonzero().squeeze(1)
        losses_T = sliced_cross_entropy(
            states_BLD.flatten(0, 1)[places_T],
            decoder.output_map,
            ids_BL.flatten()[places_T],
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
        ids_BL, mask_BL, image_BND = _given(self.name, chunk, encoded)
        shifted_BL = F.pad(ids_BL[:, :-1], (1, 0), value=decoder.start)
        states_BLD = decoder(shifted_BL, mask_BL, image_BND, causal=True)
        special_BL = self.vocabulary.special_V.to(ids_BL.device)[ids_BL]
        places_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        last_BL = places_L == mask_BL.sum(dim=1, keepdim=True) - 1
        chosen_BL = (mask_BL > 0) & (last_BL | ~special_BL)
        return {self.name: self._loss_of(decoder, states_BLD, ids_BL, chosen_BL=chosen_BL)}


class MaskedText(_TextTerm):
    """Hidden words of a text from the other words and the image (M2-Encoder's CMLM, arXiv 2401.15896).

    The image encoder sees all of the image, the text encoder is not asked: what it made of the whole text would give
    the hidden words away.
    """

    name = "masked_text"

    def per_pair(self, model: DualEncoder, chunk: PairBatch, encoded: Encoded) -> Mapping[str, Tensor]:
        """Each pair's loss."""
        decoder = decoder_of(model, "text", TextDecoder, objective=self.name)
        ids_BL, mask_BL, image_BND = _given(self.name, chunk, encoded)
        vocabulary = Vocabulary(*(fact_V.to(ids_BL.device) for fact_V in self.vocabulary))
        words_BL = words(ids_BL, mask_BL, vocabulary)
        hidden_BL = hide_words(words_BL, cast("MaskedTextObjective", self.spec).mask_share)
        masked_BL = ids_BL.masked_fill(hidden_BL, decoder.mask)
        states_BLD = decoder(masked_BL, mask_BL, image_BND, causal=False)
        return {self.name: self._loss_of(decoder, states_BLD, ids_BL, chosen_BL=hidden_BL)}


def _given(name: str, chunk: PairBatch, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
    """ids_BL, mask_BL and image_BND."""
    if chunk.tokens is None or encoded.image_BND is None:
        raise VlkitError(f"the {name} objective needs tokens and image states, not cached features")
    device = encoded.image_BND.device
    ids_BL, mask_BL = compact(*(part.to(device) for part in chunk.tokens))
    return ids_BL, mask_BL, encoded.image_BND


class MaskedImage(PairMean):
    """Hidden patches of an image from the other patches and the text (M2-Encoder's CMIM, arXiv 2401.15896).

    The target is the patch's pixels, each patch with mean 0 and variance 1 (MAE, arXiv 2111.06377, section 4.1), and
    the loss the mean squared error. M2-Encoder predicts the codes of BEiT-2's image tokenizer instead.
    """

    name = "masked_image"

    def __init__(self, spec: MaskedImageObjective) -> None:
        self.spec = spec

    @classmethod
    def build(cls, spec: MaskedImageObjective, model: DualEncoder, context: Context) -> MaskedImage:
        """See ``Term.build``."""
        decoder_of(model, "image", PatchDecoder, objective=cls.name)
        return cls(spec)

    def per_pair(self, model: DualEncoder, chunk: PairBatch, encoded: Encoded) -> Mapping[str, Tensor]:
        """Each pair's loss."""
        if chunk.pixels_BCHW is None or chunk.tokens is None or encoded.text_BLD is None:
            raise VlkitError(f"the {self.name} objective needs pixels and text states, not cached features")
        decoder = decoder_of(model, "image", PatchDecoder, objective=self.name)
        text_BLD = encoded.text_BLD
        pixels_BCHW = chunk.pixels_BCHW.to(text_BLD.device)
        rows, columns = (side // decoder.patch_size for side in pixels_BCHW.shape[-2:])
        patches_BNP = decoder.patches(pixels_BCHW)
        hidden_BK = hide_patches(
            len(patches_BNP),
            patches_BNP.shape[1],
            share=self.spec.mask_share,
            likeness_BN=self._likeness(model, encoded, rows, columns),
            device=text_BLD.device,
        )
        keep_BL = compact(*chunk.tokens)[1].to(text_BLD.device) > 0
        predicted_BKP = decoder(patches_BNP.to(text_BLD.dtype), hidden_BK, text_BLD, keep_BL, columns=columns)
        error_BKP = predicted_BKP.float() - normalized_patches(take(patches_BNP, hidden_BK))
        return {self.name: error_BKP.square().mean(dim=(1, 2))}

    @torch.no_grad()
    def _likeness(self, model: DualEncoder, encoded: Encoded, rows: int, columns: int) -> Tensor | None:
        """Cosine of each patch's place in the shared space and the text's; None where patches are drawn at random."""
        if self.spec.masking == "random" or encoded.image_BND is None or encoded.text_BE is None:
            return None
        place_BME = model.project_image(encoded.image_BND)
        return on_grid((place_BME @ encoded.text_BE[..., None]).squeeze(-1), rows, columns)
