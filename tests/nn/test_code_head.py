"""Heads of codes: what levels share, that codes stay apart, and larger grids."""

from __future__ import annotations

import pytest
import torch

from vlkit.errors import ShapeError
from vlkit.nn.code_head import CodeHead
from vlkit.nn.code_quantizers import CodeQuantizer
from vlkit.parts.image_tokenizers import build_image_tokenizer
from vlkit.spec.image_tokenizers import ConvTokenizerSpec

LEVELS = (5, 3, 4)


def head(*, tied: bool = False, levels: tuple[int, ...] = LEVELS) -> CodeHead:
    torch.manual_seed(0)
    made = CodeHead(60, (2, 3), 8, scale=1.0, places=False, tied=tied, cap=None, levels=levels)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return made


def parts(code: int) -> list[int]:
    """The rows of the shared table that a code is made of, worked out by hand."""
    return [code % 5, 5 + code // 5 % 3, 8 + code // 15]


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_a_codes_own_and_those_of_its_levels(tied: bool) -> None:
    made, states = head(tied=tied), torch.randn(4, 8)
    own = made.codes.weight[:-1] if made.out is None else made.out.weight
    shared = made.shared if made.shared_out is None else made.shared_out
    assert shared is not None
    table = torch.stack([own[code] + shared.weight[parts(code)].sum(dim=0) for code in range(60)])
    factor = made.gain if made.gain is not None else 1.0
    torch.testing.assert_close(made(states), states @ table.T * factor)


def test_what_is_read_is_a_codes_own_and_that_of_its_levels() -> None:
    made = head()
    codes = torch.tensor([[0, 17, 59, 60, 31, 4]])  # 60 is hidden
    block = made.block(codes)[0, 1:-1]
    assert made.shared is not None
    for place, code in enumerate(codes[0].tolist()):
        expected = made.codes.weight[code]
        if code < 60:
            expected = expected + made.shared.weight[parts(code)].sum(dim=0)
        torch.testing.assert_close(block[place], expected)


@pytest.mark.parametrize(("quantizer", "levels"), [("fsq", (5, 3, 4)), ("lfq", (2, 2, 2, 2))])
def test_codes_that_share_a_level_are_alike_in_one_channel(quantizer: str, levels: tuple[int, ...]) -> None:
    spec = ConvTokenizerSpec(image_size=16, widths=(8,), blocks=1, quantizer=quantizer, levels=levels)
    told = build_image_tokenizer(spec).code_levels  # type: ignore[attr-defined]
    count = spec.codebook_size
    made = CodeHead(count, (1, count), 8, scale=1.0, places=False, tied=False, cap=None, levels=told)
    rows = made._levels_of(torch.arange(count))
    values = CodeQuantizer(quantizer, levels).quantized(torch.arange(count).unsqueeze(0), grid=(1, count))[0, :, 0].T
    values = values if quantizer == "fsq" else values.flip(1)
    for channel in range(len(told)):
        same_row = rows[:, None, channel] == rows[None, :, channel]
        assert torch.equal(same_row, (values[:, None, channel] - values[None, :, channel]).abs() < 1e-6)


def test_levels_that_make_another_number_of_codes_are_refused() -> None:
    with pytest.raises(ShapeError, match="make 15 codes, not 60"):
        head(levels=(5, 3))


def test_places_go_on_in_a_larger_grid() -> None:
    made = CodeHead(4, (2, 2), 8, scale=1.0, places=True, tied=False, cap=None)
    assert made.rows is not None
    with torch.no_grad():
        made.rows.weight.copy_(torch.tensor([0.0, 1.0]).unsqueeze(1).expand(2, 8))
    made.at_grid((4, 3))
    torch.testing.assert_close(made.rows.weight[:, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))
    assert made.block(torch.zeros(1, 12, dtype=torch.int64)).shape == (1, 14, 8)
