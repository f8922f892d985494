"""A small real model and inputs for it."""

from __future__ import annotations

import pytest
import torch

from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.registry import build
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import LinearHeadSpec, MlpHeadSpec, TinyImage, TinyText


@pytest.fixture
def spec() -> DualEncoderSpec:
    return DualEncoderSpec(
        image=TinyImage(image_size=16, width=16),
        text=TinyText(width=24),
        embed_dim=12,
        image_head=MlpHeadSpec(hidden=20, center=True),
        text_head=LinearHeadSpec(bias=True),
        init_scale=12.5,
        max_scale=50.0,
        init_bias=-10.0,
    )


@pytest.fixture
def model(spec: DualEncoderSpec) -> DualEncoder:
    torch.manual_seed(0)
    built = build(spec).eval()
    built.image_head.fit_mean(torch.randn(30, 16))
    return built


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(2))
