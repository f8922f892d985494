"""Its loss: plain, cut into pieces of a batch where memory is short."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.helpers.regressor.batch import BrightnessBatch
from tests.helpers.regressor.model import Regressor
from tests.helpers.regressor.spec import BrightnessObjective
from vlkit.objectives.context import Context
from vlkit.types import Loss, Piece


class BrightnessLoss:
    needs = frozenset({"encoder"})

    def __init__(self, spec: BrightnessObjective) -> None:
        self.spec = spec

    @classmethod
    def build(cls, spec: BrightnessObjective, model: Regressor, context: Context) -> BrightnessLoss:
        return cls(spec)

    def __call__(self, model: Regressor, batch: BrightnessBatch) -> Loss:
        error_B: Tensor = model(batch.pixels_BCHW) - batch.target_B.to(model.line.weight.device)
        total = error_B.square().mean()
        return Loss(total, {"brightness": total.detach(), "error": error_B.detach().abs().mean()})

    def pieces(self, batch: BrightnessBatch, size: int) -> Sequence[Piece]:
        parts = torch.arange(len(batch)).split(size)
        return [Piece(batch.rows(rows), len(rows) / len(batch)) for rows in parts]
