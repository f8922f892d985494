"""What recipes and suites say of it."""

from __future__ import annotations

from typing import Literal

from vlkit.spec.model import BaseModelSpec
from vlkit.spec.objectives import LossSpec
from vlkit.spec.parts import ImageEncoderSpec, TinyImage


class RegressorSpec(BaseModelSpec):
    """An image encoder and a linear map to one number."""

    kind: Literal["regressor"] = "regressor"
    encoder: ImageEncoderSpec = TinyImage()
    """The image side."""


class BrightnessObjective(LossSpec):
    """Squared error of the predicted brightness of an image."""

    kind: Literal["brightness"] = "brightness"
