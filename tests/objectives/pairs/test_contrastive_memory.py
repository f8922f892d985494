"""What the contrastive losses keep and take at most (R11-R13 of the requirements)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from tests.helpers import contrastive_peers as peers
from tests.helpers.ranks import on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.objectives.pairs.contrastive.sigmoid import sigmoid_contrastive
from vlkit.objectives.pairs.contrastive.softmax import softmax_contrastive
from vlkit.types import Embeddings


def given(batch: int, width: int) -> Embeddings:
    draw = torch.Generator().manual_seed(batch)
    image, text = (normalize(torch.randn(batch, width, generator=draw), dim=1).requires_grad_() for _ in range(2))
    return Embeddings(image, text, torch.tensor(9.0, requires_grad=True), torch.tensor(-9.0, requires_grad=True))


@pytest.mark.parametrize(("batch", "width"), [(1024, 16), (512, 32), (64, 256)])
def test_r11_softmax_keeps_features_and_sums_only(batch: int, width: int) -> None:
    kept = peers.saved_bytes(lambda: softmax_contrastive(given(batch, width), tile=64).loss)
    assert kept <= 8 * batch * width + 16 * batch + 4096
    assert peers.saved_bytes(lambda: sigmoid_contrastive(given(batch, width), tile=64).loss) == kept - 16 * batch + 4


def saved_here(batch: int, width: int) -> int:
    return peers.saved_bytes(lambda: softmax_contrastive(given(batch, width), ranks=Ranks.world(), tile=64).loss)


def test_r11_softmax_keeps_the_texts_of_all_processes() -> None:
    batch, width = 256, 32
    for kept in on_ranks(2, saved_here, batch, width):
        assert kept <= 8 * 2 * batch * width + 16 * 2 * batch + 4096


def step(function: Any, batch: int, width: int, **options: Any) -> int:
    embeddings = given(batch, width)
    return peers.peak_bytes(lambda: function(embeddings, **options).loss.backward())


@pytest.mark.parametrize("function", [softmax_contrastive, sigmoid_contrastive])
def test_r11_peak_grows_with_the_features_and_not_with_the_pairs(function: Any) -> None:
    wide, tall = (step(function, batch, width, tile=128) for batch, width in ((256, 64), (512, 32)))
    assert tall < 1.2 * wide  # four times the pairs
    assert tall < 512 * 512 * 4  # which in float32 would not even fit once
    assert step(function, 512, 32, tile=256) > tall + 128 * 128 * 4  # the edge of a tile is the knob


def test_r12_logits_that_are_kept_are_kept_once() -> None:
    batch, width = 512, 32
    peak = step(softmax_contrastive, batch, width, tile=128, recompute=False)
    assert 4 * batch * batch < peak <= 4 * batch * batch + 3 * 128 * 128 * 4 + 16 * batch * width * 2
    assert peak <= 12 * batch * batch


def peak_here(kind: str, batch: int, width: int) -> int:
    function = softmax_contrastive if kind == "softmax" else sigmoid_contrastive
    return step(function, batch, width, ranks=Ranks.world(), exchange="ring", tile=64)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_r13_a_ring_needs_no_more_memory_for_more_processes(kind: str) -> None:
    # Of two, none holds a block of a third while the next one comes in; from three on nothing may grow.
    three, four = (max(on_ranks(size, peak_here, kind, 128, 64)) for size in (3, 4))
    assert four < 1.05 * three
