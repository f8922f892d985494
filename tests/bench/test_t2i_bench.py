"""The benchmark of sampling: both ways find the same codes, and what is told of them is there."""

from __future__ import annotations

import pytest
import torch

from vlkit.bench.t2i import bench_t2i
from vlkit.bench.t2i_sides import T2iSetting, T2iSides

SMALL = T2iSetting(text_rows=300, codes=256, width=64, layers=2, side=4, padded=90, batch=2)


@pytest.mark.parametrize("name", ["vlkit", "prefix"])
def test_both_ways_find_the_same_codes(name: str) -> None:
    sides = T2iSides(SMALL)
    codes = sides.sampled("naive", 4)
    assert torch.equal(sides.sampled(name, 4), codes)
    assert codes.shape == (2, 16) and len(codes.unique()) > 4
    assert not torch.equal(codes[0], codes[1])


def test_the_usual_setting_is_one_that_can_be_built() -> None:
    sides = T2iSides(T2iSetting(layers=1, batch=3))
    assert len(sides.ids) == 3 and max(max(ids) for ids in sides.ids) > 260  # words of the whole vocabulary


def test_figures_are_named_as_documented() -> None:
    found = bench_t2i(SMALL, steps=2, naive_steps=3, repeats=1)
    assert found.tokens_equal == 1.0 and found.prefix_cache_speedup > 0 and found.fast_path_speedup > 0
    assert 0 < found.ours_mb < found.peer_mb  # no logits of words, no padding
