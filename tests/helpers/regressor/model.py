"""The model itself."""

from __future__ import annotations

from collections.abc import Callable

from PIL.Image import Image
from torch import Tensor, nn

from tests.helpers.regressor.batch import BrightnessPreparer
from tests.helpers.regressor.spec import RegressorSpec
from vlkit.models.trainable import adapter_specs, hold_frozen_in_eval
from vlkit.spec.dataset import DataSpec


class Regressor(nn.Module):
    """Pixels to one number each."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.line = nn.Linear(encoder.width, 1)
        self.loaded_from: str | None = None

    @property
    def spec(self) -> RegressorSpec:
        return RegressorSpec(encoder=self.encoder.spec, adapters=adapter_specs(self))

    @property
    def transform(self) -> Callable[[Image], Tensor]:
        return self.encoder.transform

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "line": self.line}

    def preparer(self, data: DataSpec, **more: object) -> BrightnessPreparer:
        return BrightnessPreparer(self.encoder.transform)

    def figures(self) -> dict[str, float]:
        return {"slope": self.line.weight.detach().norm().item()}

    def train(self, mode: bool = True) -> Regressor:
        super().train(mode)
        hold_frozen_in_eval(self)
        return self

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        place = self.line.weight
        return self.line(self.encoder(pixels_BCHW.to(place.device))).squeeze(1)
