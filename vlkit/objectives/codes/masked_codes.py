"""The loss of an image's hidden codes, with logits only where codes are hidden.

Each hidden code's loss is divided by how many are hidden of a batch on average, not by how many are in this one: so
loss and gradient are the same however a batch is cut into pieces or spread over processes.

Shapes: B images, N codes of an image, T tokens, R hidden places, W width, K codebook size.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vlkit.errors import VlkitError
from vlkit.models.text_to_image.batch import CodeBatch
from vlkit.models.text_to_image.model import TextToImageModel
from vlkit.nn.code_masks import masked_codes, masked_share
from vlkit.objectives.codes.language_consistency import code_divergence
from vlkit.objectives.context import Context
from vlkit.spec.objectives import MaskedCodesObjective
from vlkit.types import Loss, Piece, TextBatch

log = logging.getLogger(__name__)
_CUT, _SEEN = 0.01, 200  # share of prompts that may be too long before it is told, once so many were seen
_POINTS = 4096  # of the integral


class _Foretold(NamedTuple):
    """At each hidden place: the loss, and whether the likeliest code is the right one."""

    losses_R: Tensor
    right_R: Tensor


class MaskedCodes:
    """Cross entropy of hidden codes; see ``MaskedCodesObjective``."""

    needs = frozenset(("tokenizer", "language_model"))

    def __init__(self, spec: MaskedCodesObjective) -> None:
        self.spec = spec
        self._share = mean_share(spec.schedule, spec.power, spec.least_share)
        self._prompts: dict[str, list[int]] = {}  # language -> seen, too long

    @classmethod
    def build(cls, spec: MaskedCodesObjective, model: Any, context: Context) -> MaskedCodes:
        """The objective of a model that makes images of codes.

        Raises:
            VlkitError: The model is of another kind.
        """
        if not isinstance(model, TextToImageModel):
            raise VlkitError(
                f"the masked_codes objective needs a model of kind text_to_image, and this one is of kind "
                f"{model.spec.kind}"
            )
        return cls(spec)

    def __call__(self, model: TextToImageModel, batch: CodeBatch) -> Loss:
        """See ``types.Objective``."""
        self._tell_of_cut(batch)
        device = model.head.marks_MW.device
        codes_BN = (batch.codes_BN if batch.codes_BN is not None else model.codes_of(_given(batch))).to(device)
        masked_BN = masked_codes(
            batch.draws.masks, schedule=self.spec.schedule, power=self.spec.power, least_share=self.spec.least_share
        ).to(device)
        shown_BN = codes_BN.masked_fill(masked_BN, model.codebook_size)
        drop_B = batch.draws.drop_B < self.spec.prompt_dropout
        states_RW = model(without_prompt(model, batch.prompts, drop_B), shown_BN)[masked_BN]
        found = self._foretold(model, states_RW, codes_BN[masked_BN])
        weight_R = self._weights(masked_BN)
        total = (found.losses_R * weight_R).sum()
        parts = {"codes": found.losses_R.detach().mean(), "accuracy": found.right_R.float().mean()}
        if self.spec.consistency:
            apart = self._apart(model, batch, shown_BN, masked_BN, states_RW, drop_B)
            total = total + self.spec.consistency * (apart * weight_R).sum()
            parts["consistency"] = apart.detach().mean()
        return Loss(total, parts)

    def pieces(self, batch: CodeBatch, size: int) -> Sequence[Piece]:
        """See ``types.Objective``."""
        cuts = [torch.arange(start, min(start + size, len(batch))) for start in range(0, len(batch), size)]
        return [Piece(batch.rows(index), len(index) / len(batch)) for index in cuts]

    def _weights(self, masked_BN: Tensor) -> Tensor:
        """What each hidden place counts in the loss of the batch."""
        images, codes = masked_BN.shape
        if self.spec.counts == "codes":
            return torch.full_like(masked_BN[masked_BN], 1 / (images * codes * self._share), dtype=torch.float32)
        count_BN = masked_BN.sum(dim=1, keepdim=True).expand_as(masked_BN)
        return 1 / (images * count_BN[masked_BN].float())

    def _foretold(self, model: TextToImageModel, states_RW: Tensor, codes_R: Tensor) -> _Foretold:
        smooth, size = self.spec.label_smoothing, self.spec.slice_size
        if len(codes_R) <= size:
            return _Foretold(*_losses(model, states_RW, codes_R, smooth))
        parts = [
            checkpoint(_losses, model, states, codes, smooth, use_reentrant=False)
            for states, codes in zip(torch.split(states_RW, size), torch.split(codes_R, size), strict=True)
        ]
        return _Foretold(*(torch.cat(side) for side in zip(*parts, strict=True)))

    def _apart(
        self,
        model: TextToImageModel,
        batch: CodeBatch,
        shown_BN: Tensor,
        masked_BN: Tensor,
        states_RW: Tensor,
        drop_B: Tensor,
    ) -> Tensor:
        """How far what is foretold in the other language is from what is in the prompt's, at each hidden place."""
        other_RW = model(without_prompt(model, batch.others, drop_B), shown_BN)[masked_BN]
        direction: Any = {"both": "both", "prompt": "teach"}[self.spec.consistency_from]
        parts = [
            checkpoint(_divergence, model, first, second, direction, use_reentrant=False)
            for first, second in zip(
                *(torch.split(x, self.spec.slice_size) for x in (states_RW, other_RW)), strict=True
            )
        ]
        return torch.cat(parts)

    def _tell_of_cut(self, batch: CodeBatch) -> None:
        """Warns once of each language whose prompts are too long too often."""
        for language, cut in zip(batch.languages, batch.cut_B.tolist(), strict=False):
            seen = self._prompts.setdefault(language, [0, 0])
            seen[0] += 1
            seen[1] += cut
            if seen[0] == _SEEN and seen[1] > _CUT * _SEEN:
                log.warning(
                    "%.0f %% of the prompts in %s are longer than model.prompt.max_length, and their ends are not "
                    "read; raise it", 100 * seen[1] / seen[0], language,
                )  # fmt: skip


def without_prompt(model: TextToImageModel, prompts: TextBatch, drop_B: Tensor) -> TextBatch:
    """Prompts, but for the rows of ``drop_B`` what is read where there is none."""
    if not bool(drop_B.any()):
        return prompts
    null = model.layout.null
    length = max(prompts.ids_BL.shape[1], len(null))
    missing = length - prompts.ids_BL.shape[1]
    ids_BT, mask_BT = (functional.pad(side, (0, missing)) for side in prompts)
    drop_B = drop_B.to(ids_BT.device)
    ids_BT[drop_B], mask_BT[drop_B] = 0, 0
    ids_BT[drop_B, : len(null)] = torch.tensor(null, device=ids_BT.device)
    mask_BT[drop_B, : len(null)] = 1
    return TextBatch(ids_BT, mask_BT)


@lru_cache
def mean_share(schedule: str, power: float, least_share: float) -> float:
    """The share of codes that is hidden on average: 2 / pi for a cosine."""
    middles_X = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
    return float(masked_share(middles_X, schedule, power=power).clamp(min=least_share).mean())


def _losses(model: Any, states_RW: Tensor, codes_R: Tensor, smooth: float) -> tuple[Tensor, Tensor]:
    logits_RK = model.logits(states_RW).float()
    losses_R = functional.cross_entropy(logits_RK, codes_R, reduction="none", label_smoothing=smooth)
    return losses_R, logits_RK.detach().argmax(dim=1) == codes_R


def _divergence(model: Any, first_RW: Tensor, second_RW: Tensor, direction: Any) -> Tensor:
    return code_divergence(model.logits(first_RW), model.logits(second_RW), direction=direction)


def _given(batch: CodeBatch) -> Tensor:
    if batch.pixels_BCHW is None:
        raise VlkitError("the batch has neither codes_BN nor pixels_BCHW; one of them is needed")
    return batch.pixels_BCHW
