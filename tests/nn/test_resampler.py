"""The perceiver resampler: against plain attention, and what its queries see."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vlkit.errors import ShapeError
from vlkit.nn.resampler import Resampler

SIZES = {"num_queries": 5, "layers": 2, "heads": 4, "ffn_factor": 2}


def tokens(count: int = 7) -> torch.Tensor:
    return torch.randn(2, count, 12, generator=torch.Generator().manual_seed(3))


def test_keys_are_the_image_and_the_queries() -> None:
    bridge = Resampler(12, 16, width=None, **{**SIZES, "layers": 1})
    layer = bridge.layers[0]
    image = layer.image_norm(bridge.entry(tokens()))
    queries = bridge.queries_MW.expand(2, -1, -1)
    normed = layer.query_norm(queries)
    key, value = layer.key_value(torch.cat([image, normed], dim=1)).chunk(2, dim=-1)
    heads = []
    for place in range(4):
        part = slice(4 * place, 4 * place + 4)
        weights = (layer.query(normed)[..., part] @ key[..., part].transpose(1, 2) / 2).softmax(dim=-1)
        heads.append(weights @ value[..., part])
    x = queries + layer.out(torch.cat(heads, dim=-1))
    x = x + layer.down(functional.gelu(layer.up(layer.norm(x))))
    torch.testing.assert_close(bridge(tokens()), bridge.norm(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("width", "inside"), [(None, 16), (8, 8)])
def test_any_number_of_image_tokens_gives_as_many_as_there_are_queries(width: int | None, inside: int) -> None:
    bridge = Resampler(12, 16, width=width, **SIZES)
    assert bridge.queries_MW.shape == (5, inside)
    for count in (3, 7):
        assert bridge(tokens(count)).shape == (2, bridge.num_tokens(count), 16)


def test_the_order_of_image_tokens_does_not_matter_and_queries_start_apart() -> None:
    bridge = Resampler(12, 16, width=None, **SIZES)
    out = bridge(tokens())
    torch.testing.assert_close(bridge(tokens().flip(1)), out, atol=1e-5, rtol=1e-5)
    assert (torch.cdist(out[0], out[0]) + torch.eye(5) * 9).min() > 1e-3


def test_recomputing_changes_no_gradient() -> None:
    bridge = Resampler(12, 16, width=8, **SIZES)
    grads = []
    for on in (False, True):
        bridge.set_grad_checkpointing(on)
        bridge.zero_grad()
        bridge(tokens()).square().mean().backward()
        grads.append([weight.grad.clone() for weight in bridge.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_heads_that_divide_no_width_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"^width = 16 is no multiple of heads = 3; change one of them$"):
        Resampler(12, 16, width=None, **{**SIZES, "heads": 3})
