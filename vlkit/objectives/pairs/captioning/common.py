"""What the losses of decoders share: the mean over pairs, and what they need of a model.

Each pair counts the same, whatever the length of its text: a pair's loss is the mean over what is predicted of it, the
batch's the mean over pairs. CoCa's code averages over the tokens of a batch instead, so that languages which the
tokenizer cuts into more pieces weigh more; and micro-batches would need the number of tokens of the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import SIDES, DualEncoder, states_method
from vlkit.nn.decoders import Decoder
from vlkit.objectives.pairs.pair_term import Term
from vlkit.types import Embeddings, KnowsVocabulary, Loss, Vocabulary

_Part = TypeVar("_Part", bound=nn.Module)


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


def vocabulary_of(model: DualEncoder, objective: str) -> Vocabulary:
    """What the text encoder's ids mean.

    Raises:
        VlkitError: It does not tell.
    """
    if not isinstance(model.text, KnowsVocabulary):
        raise VlkitError(
            f"the {objective} objective needs to know words from marks, and the text encoder "
            f"{type(model.text).__name__} has no vocabulary(); choose another one, or leave the objective out"
        )
    return model.text.vocabulary()
