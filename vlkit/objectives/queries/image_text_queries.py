"""The three losses of a Q-Former over pairs of images and texts: contrast, matching, captions.

Source: BLIP-2 (arXiv 2301.12597, section 3.2). As there, negatives come from all processes. Different from its code:
pairs of one concept are not negatives of each other (the same image with captions in several languages is common here),
and each caption counts the same, whatever its length in tokens.

Shapes: b pairs of this process, B of all, N image tokens, T their width, M queries, E shared width, L text length, V
vocabulary, R places with a next token, W inner width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.models.query_former.batch import QueryBatch
from vlkit.models.query_former.model import QueryFormer
from vlkit.nn.qformer import QueryStates
from vlkit.objectives.context import Context
from vlkit.objectives.gather import gathered
from vlkit.objectives.name_ids import ids_of
from vlkit.objectives.tokens.answer_loss import mean_by_row
from vlkit.spec.objectives import ImageTextQueriesObjective
from vlkit.types import Loss, Piece, TextBatch

_NEVER = -1e4  # the similarity of what is not to be drawn
_IGNORED = -100


class ImageTextQueries:
    """Pulls the query nearest to a text towards it, tells true pairs from likely wrong ones, and foretells texts.

    The loss sees all pairs of a batch at once, so ``loop.micro_batch`` does not cut it.
    """

    needs = frozenset(("encoder",))

    def __init__(self, spec: ImageTextQueriesObjective, *, ranks: Ranks) -> None:
        self.spec, self.ranks = spec, ranks

    @classmethod
    def build(cls, spec: ImageTextQueriesObjective, model: Any, context: Context) -> ImageTextQueries:
        """The objective of a Q-Former that has its text side.

        Raises:
            VlkitError: The model is of another kind.
        """
        if not isinstance(model, QueryFormer):
            raise VlkitError(
                f"the image_text_queries objective needs a model of kind query_former, and this one is of kind "
                f"{model.spec.kind}"
            )
        return cls(spec, ranks=context.ranks)

    def __call__(self, model: QueryFormer, batch: QueryBatch) -> Loss:
        """See ``types.Objective``."""
        image_bNT = model.image_tokens(batch)
        device = image_bNT.device
        tokens = TextBatch(*(side.to(device) for side in batch.tokens))
        ids_b = ids_of(batch.concepts, rank=self.ranks.rank).to(device)
        states = model.bridge.query_states(image_bNT)
        i2t_bB, t2i_bB = self._similarities(model, states, tokens)
        total, parts = i2t_bB.new_zeros(()), dict[str, Tensor]()
        if self.spec.contrast:
            own_b = torch.arange(len(batch), device=device) + self.ranks.rank * len(batch)
            smooth = self.spec.label_smoothing
            loss = (
                functional.cross_entropy(i2t_bB, own_b, label_smoothing=smooth)
                + functional.cross_entropy(t2i_bB, own_b, label_smoothing=smooth)
            ) / 2
            total = total + self.spec.contrast * loss
            parts |= {"contrast": loss.detach(), "batch_acc1": (i2t_bB.argmax(1) == own_b).float().mean()}
        if self.spec.match:
            logits_P2, target_P = self._pairs(model, image_bNT, tokens, ids_b, i2t_bB.detach(), t2i_bB.detach())
            losses_P = functional.cross_entropy(logits_P2, target_P, reduction="none", ignore_index=_IGNORED)
            loss, judged_P = losses_P.mean(), target_P != _IGNORED
            total = total + self.spec.match * loss
            right_P = (logits_P2.argmax(1) == target_P)[judged_P]
            parts |= {"match": loss.detach(), "match_acc1": right_P.float().mean()}
        if self.spec.caption:
            loss = self._caption(model, tokens, states)
            total = total + self.spec.caption * loss
            parts["caption"] = loss.detach()
        return Loss(total, parts)

    def pieces(self, batch: QueryBatch, size: int) -> Sequence[Piece]:
        """See ``types.Objective``."""
        return [Piece(batch)]

    def _similarities(self, model: QueryFormer, states: QueryStates, tokens: TextBatch) -> tuple[Tensor, Tensor]:
        """Scaled similarities of own images to all texts and of own texts to all images: that of the nearest query."""
        queries_bME, text_bE = model.embedded_queries(states), model.embedded_texts(tokens)
        queries_BME, text_BE = gathered(queries_bME, self.ranks), gathered(text_bE, self.ranks)
        i2t_bB = torch.einsum("ame,be->abm", queries_bME, text_BE).amax(dim=-1)
        t2i_bB = torch.einsum("ae,bme->abm", text_bE, queries_BME).amax(dim=-1)
        return model.scale * i2t_bB, model.scale * t2i_bB

    def _pairs(
        self, model: QueryFormer, image_bNT: Tensor, tokens: TextBatch, ids_b: Tensor, i2t_bB: Tensor, t2i_bB: Tensor
    ) -> tuple[Tensor, Tensor]:
        """logits_P2 and targets of 3 b pairs: the true ones, the texts with wrong images, the images with wrong texts.

        Wrong ones are drawn as often as they seem right. A pair whose concept is that of all others has no wrong ones
        and is not judged.
        """
        all_tokens = _gathered_tokens(tokens, self.ranks)
        same_bB = ids_b[:, None] == self.ranks.all_gather(ids_b)[None, :]
        wrong_image_b, wrong_text_b = (
            torch.multinomial(scores.masked_fill(same_bB, _NEVER).softmax(dim=1), 1).squeeze(1)
            for scores in (t2i_bB, i2t_bB)
        )
        image_BNT = gathered(image_bNT, self.ranks)
        texts = [_padded(side, all_tokens.ids_BL.shape[1]) for side in tokens]
        wrong = [side[wrong_text_b] for side in all_tokens]
        pairs = TextBatch(*(torch.cat([own, own, other]) for own, other in zip(texts, wrong, strict=True)))
        logits_P2 = model.match_logits(torch.cat([image_bNT, image_BNT[wrong_image_b], image_bNT]), pairs)
        wrong_b = torch.where(same_bB.all(dim=1), _IGNORED, 0)
        return logits_P2, torch.cat([torch.ones_like(wrong_b), wrong_b, wrong_b])

    def _caption(self, model: QueryFormer, tokens: TextBatch, states: QueryStates) -> Tensor:
        """The mean over texts of the mean over their tokens."""
        states_bLW = model.writing_states(tokens, states)[:, :-1]
        real_bL = tokens.mask_BL[:, 1:] > 0
        states_RW, next_R = states_bLW[real_bL], tokens.ids_BL[:, 1:][real_bL]
        slices = zip(*(torch.split(x, self.spec.slice_size) for x in (states_RW, next_R)), strict=True)
        again = torch.is_grad_enabled() and len(next_R) > self.spec.slice_size
        run = partial(checkpoint, self._losses, use_reentrant=False) if again else self._losses
        losses_R = torch.cat([run(model, part_RW, part_R) for part_RW, part_R in slices])
        return mean_by_row(losses_R, real_bL.nonzero()[:, 0], rows=len(real_bL))

    def _losses(self, model: QueryFormer, states_RW: Tensor, next_R: Tensor) -> Tensor:
        logits_RV = model.text.logits(states_RW).float()
        return functional.cross_entropy(logits_RV, next_R, reduction="none", label_smoothing=self.spec.label_smoothing)


def _padded(side_BL: Tensor, length: int) -> Tensor:
    return functional.pad(side_BL, (0, length - side_BL.shape[1]))


def _gathered_tokens(tokens: TextBatch, ranks: Ranks) -> TextBatch:
    """Those of all processes, padded to the longest; no gradient passes through ids."""
    longest = ranks.all_reduce(torch.tensor([tokens.ids_BL.shape[1]], device=tokens.ids_BL.device), "max")
    return TextBatch(*(ranks.all_gather(_padded(side, int(longest))) for side in tokens))
