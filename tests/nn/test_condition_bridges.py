"""Bridges to a denoiser's text input: as many states as it reads, whatever a text's length, padding and neighbours."""

from __future__ import annotations

import pytest
import torch

from vlkit.errors import ShapeError
from vlkit.nn.condition_bridges import ConditionBridge, MulanBridge, PeaBridge

MADE = {
    "pea": lambda: PeaBridge(6, 8, count=5, hidden=12),
    "mulan": lambda: MulanBridge(6, 8, count=5, layers=2, heads=2, ratio=2),
}


@pytest.fixture(params=list(MADE))
def bridge(request: pytest.FixtureRequest) -> ConditionBridge:
    torch.manual_seed(0)
    return MADE[request.param]().eval()


def states(*lengths: int, width: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return torch.randn(len(lengths), width, 6, generator=torch.Generator().manual_seed(1)), mask


def test_padding_and_neighbours_make_no_difference(bridge: ConditionBridge) -> None:
    states_BLT, mask_BL = states(9, 3, 1)
    out = bridge(states_BLT, mask_BL)
    assert out.shape == (3, 5, 8) and out.isfinite().all()
    other = torch.where(mask_BL[..., None] > 0, states_BLT, torch.full_like(states_BLT, 7.0))
    assert torch.allclose(bridge(other, mask_BL), out, atol=1e-6)
    assert torch.allclose(bridge(states_BLT[1:2, :3], mask_BL[1:2, :3]), out[1:2], atol=1e-6)


def test_what_a_text_says_makes_one(bridge: ConditionBridge) -> None:
    states_BLT, mask_BL = states(4, 4)
    out = bridge(states_BLT, mask_BL)
    assert not torch.allclose(out[0], out[1], atol=1e-3)
    assert not torch.allclose(out[:, 0], out[:, 4], atol=1e-3)  # nor are all states of a text the same


def test_all_weights_learn(bridge: ConditionBridge) -> None:
    states_BLT, mask_BL = states(9, 2)
    bridge(states_BLT, mask_BL).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in bridge.parameters())


def test_heads_divide_the_width() -> None:
    with pytest.raises(ShapeError, match=r"bridge.heads = 3 does not divide 8, the width of the denoiser's text input"):
        MulanBridge(6, 8, count=5, layers=1, heads=3, ratio=2)
