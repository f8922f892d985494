"""Bridges of linear maps: what they compute, how squares of tokens are joined, how many tokens come out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from vlkit.errors import ShapeError
from vlkit.nn.projections import LinearBridge, MlpBridge, PixelShuffleBridge


def tokens(count: int = 9, width: int = 6) -> torch.Tensor:
    return torch.randn(2, count, width, generator=torch.Generator().manual_seed(3))


def test_linear_is_the_formula() -> None:
    bridge = LinearBridge(6, 4, bias=True)
    torch.testing.assert_close(bridge(tokens()), tokens() @ bridge.map.weight.T + bridge.map.bias)
    assert LinearBridge(6, 4, bias=False).map.bias is None


def test_two_layers_are_llava_s_projector() -> None:
    bridge = MlpBridge(6, 4, layers=2, norm=False)
    first, second = bridge.maps
    inner = tokens() @ first.weight.T + first.bias
    gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    torch.testing.assert_close(bridge(tokens()), gelu @ second.weight.T + second.bias)


def test_norms_follow_each_linear_map_and_come_before_the_gelu_as_in_yi() -> None:
    bridge = MlpBridge(6, 4, layers=2, norm=True)
    peer = torch.nn.Sequential(
        bridge.maps[0], torch.nn.LayerNorm(4), torch.nn.GELU(), bridge.maps[1], torch.nn.LayerNorm(4)
    )
    torch.testing.assert_close(bridge(tokens()), peer(tokens()))


@pytest.mark.parametrize("bridge", [MlpBridge(6, 4, layers=3, norm=True), LinearBridge(6, 4, bias=True)])
def test_each_token_is_mapped_alone(bridge: torch.nn.Module) -> None:
    assert bridge.num_tokens(9) == 9
    alone = torch.cat([bridge(tokens()[:, [place]]) for place in range(9)], dim=1)
    torch.testing.assert_close(bridge(tokens()), alone)


def test_pixel_shuffle_joins_squares_row_by_row() -> None:
    bridge = PixelShuffleBridge(1, 4, factor=2, bias=False)
    torch.nn.init.eye_(bridge.map.weight)
    grid = torch.arange(16.0).view(1, 16, 1)
    expected = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert bridge(grid)[0].tolist() == expected
    assert bridge.num_tokens(16) == 4


def test_pixel_shuffle_is_torch_s_of_a_channels_first_grid() -> None:
    bridge = PixelShuffleBridge(5, 7, factor=3, bias=True)
    grid = torch.randn(2, 36, 5)
    peer = functional.pixel_unshuffle(
        grid.transpose(1, 2).unflatten(2, (6, 6)), 3
    )  # channels of one token stand together
    peer = peer.flatten(2).transpose(1, 2).unflatten(2, (5, 9)).transpose(2, 3).flatten(2)
    torch.testing.assert_close(bridge(grid), bridge.map(peer))


def test_a_side_that_is_no_multiple_is_padded_at_the_bottom_and_on_the_right() -> None:
    bridge = PixelShuffleBridge(1, 4, factor=2, bias=False)
    torch.nn.init.eye_(bridge.map.weight)
    assert bridge(torch.arange(1.0, 10.0).view(1, 9, 1))[0].tolist() == [
        [1, 2, 4, 5], [3, 0, 6, 0], [7, 8, 0, 0], [9, 0, 0, 0],
    ]  # fmt: skip
    assert bridge.num_tokens(9) == 4 and PixelShuffleBridge(1, 1, factor=4, bias=False).num_tokens(729) == 49


@pytest.mark.parametrize("given", [lambda bridge: bridge.num_tokens(45), lambda bridge: bridge(tokens(45))])
def test_tokens_that_form_no_square_are_refused(given) -> None:
    with pytest.raises(ShapeError) as error:
        given(PixelShuffleBridge(6, 4, factor=2, bias=False))
    assert str(error.value) == (
        "a pixel_shuffle bridge joins neighbours of a square grid, and 45 image tokens form none; take another bridge, "
        "or an encoder that gives a grid (of a tiled one, merge: channels)"
    )
