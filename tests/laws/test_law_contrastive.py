"""R25: softmax, sigmoid, grouped and accumulated training reach the same retrieval within the noise of seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tests.helpers.ranks import on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.registry import build
from vlkit.objectives.context import Context
from vlkit.objectives.weighted_sum import build_objective
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.objectives import ContrastiveObjective, GroupedContrastiveObjective, SigmoidObjective
from vlkit.spec.parts import LinearHeadSpec, TinyImage, TinyText

WIDTH, HIDDEN, PAIRS, BATCH, STEPS, SEEDS = 32, 6, 512, 64, 60, 4
MODES: dict[str, tuple[Any, int | None]] = {
    "softmax": (ContrastiveObjective(), None),
    "ring": (ContrastiveObjective(exchange="ring"), None),
    "accumulated": (ContrastiveObjective(), 8),
    "sigmoid": (SigmoidObjective(), None),
    "grouped": (GroupedContrastiveObjective(group_size=1), None),
}


def features(count: int, draw: torch.Generator, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two noisy views of the same hidden things."""
    hidden = torch.randn(count, HIDDEN, generator=draw)
    image, text = (hidden @ m + 0.9 * torch.randn(count, WIDTH, generator=draw) for m in maps)
    return image, text


def retrieval(mode: str, seed: int) -> float:
    """R@1 of held-out texts by their images, after training on two processes."""
    ranks, (spec, micro_batch) = Ranks.world(), MODES[mode]
    draw = torch.Generator().manual_seed(seed)
    maps = (torch.randn(HIDDEN, WIDTH, generator=draw), torch.randn(HIDDEN, WIDTH, generator=draw))
    image, text = features(PAIRS, draw, maps)
    torch.manual_seed(seed)
    bias = -10.0 if mode == "sigmoid" else None
    model: Any = build(
        DualEncoderSpec(
            image=TinyImage(image_size=16, width=WIDTH),
            text=TinyText(width=WIDTH),
            embed_dim=8,
            image_head=LinearHeadSpec(),
            text_head=LinearHeadSpec(),
            init_scale=10.0,
            init_bias=bias,
        )
    )
    objective = build_objective([spec], model, context=Context(ranks), micro_batch=micro_batch)
    trains = [p for name, p in model.named_parameters() if not name.startswith(("image.", "text."))]
    optimizer = torch.optim.AdamW(trains, lr=2e-2)
    for _ in range(STEPS):
        rows = torch.randperm(PAIRS, generator=draw)[:BATCH].chunk(ranks.size)[ranks.rank]
        names = ("",) * len(rows)
        optimizer.zero_grad()
        objective(model, PairBatch(None, image[rows], None, text[rows], names, names)).total.backward()
        for p in trains:
            p.grad = ranks.all_reduce(p.grad) / ranks.size
        optimizer.step()
    image, text = features(200, draw, maps)
    with torch.no_grad():
        scores = model.project_image(image) @ model.project_text(text).T
    return float((scores.argmax(1) == torch.arange(200)).float().mean())


def every_run() -> dict[str, list[float]]:
    return {mode: [retrieval(mode, seed) for seed in range(SEEDS)] for mode in MODES}


@pytest.fixture(scope="module")
def reached() -> dict[str, np.ndarray]:
    one, two = on_ranks(2, every_run)
    assert one == two  # both processes have the same model
    return {mode: np.array(values) for mode, values in one.items()}


def test_r25_exact_ways_to_compute_one_loss_reach_the_same(reached: dict[str, np.ndarray]) -> None:
    assert 0.3 < reached["softmax"].mean() < 0.99  # neither nothing nor everything is learned
    for mode in ("ring", "accumulated"):
        assert np.abs(reached[mode] - reached["softmax"]).max() <= 0.01


@pytest.mark.parametrize("mode", ["sigmoid", "grouped"])
def test_r25_other_losses_reach_it_within_the_noise_of_seeds(mode: str, reached: dict[str, np.ndarray]) -> None:
    gaps = reached[mode] - reached["softmax"]  # same data and start for each seed
    noise = reached["softmax"].std(ddof=1)
    assert abs(gaps.mean()) <= max(2 * noise, 0.04), reached
    assert F.relu(torch.tensor(-gaps.min())) < 0.15
