"""Packed samples come back as they were, in few rows."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from vlkit.models.vision_language.packing import pack, unpack


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=7).filter(any), min_size=1, max_size=8), st.integers(1, 12)
)
def test_what_is_packed_is_unpacked_to_itself(masks: list[list[bool]], length: int) -> None:
    longest = max(map(len, masks))
    mask_BL = torch.tensor([[*map(int, mask), *[0] * (longest - len(mask))] for mask in masks])
    embeddings_BLE = torch.randn(*mask_BL.shape, 3)
    packed = pack(embeddings_BLE, mask_BL, length=length)
    assert torch.equal(unpack(packed.embeddings, packed), embeddings_BLE * mask_BL[..., None])
    assert int(packed.mask.sum()) == int(mask_BL.sum())
    assert packed.mask.shape[1] <= max(length, int(mask_BL.sum(dim=1).max()))
    starts = ((packed.positions == 0) & (packed.mask > 0)).sum()
    assert int(starts) == len(masks)  # positions of each sample count from 0


def test_first_fit_fills_rows() -> None:
    mask_BL = torch.ones(4, 6, dtype=torch.long).tril(5)
    mask_BL[0, 3:], mask_BL[1, 2:], mask_BL[2, 5:], mask_BL[3, 1:] = 0, 0, 0, 0
    packed = pack(torch.randn(4, 6, 2), mask_BL, length=6)
    assert packed.mask.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 1, 0]]
