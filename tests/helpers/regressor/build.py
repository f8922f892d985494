"""From its spec to the model."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.regressor.model import Regressor
from tests.helpers.regressor.spec import RegressorSpec
from vlkit.parts.encoders import build_image_encoder


def build(spec: RegressorSpec, *, saved: Path | None, empty: bool) -> Regressor:
    return Regressor(build_image_encoder(spec.encoder, saved=saved and saved / "encoder", empty=empty))
