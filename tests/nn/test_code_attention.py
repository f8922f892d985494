"""Text looks back, an image's block looks at all real text, padding changes nothing: in every form of the mask."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.nn.functional import max_pool2d, scaled_dot_product_attention

from vlkit.errors import ShapeError, VlkitError
from vlkit.nn.code_attention import CodeLayout, MaskMod, added, block_mask, mask_mod, sees, text_then_image

BLOCK = 5


def ragged(seed: int) -> torch.Tensor:
    """Masks of prompts of 1 to 7 of 7 places, padded on the left, on the right, or on both sides."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.zeros(6, 7, dtype=torch.int64)
    for row in mask:
        length = int(torch.randint(1, 8, (), generator=draw))
        start = int(torch.randint(0, 8 - length, (), generator=draw))
        row[start : start + length] = 1
    mask[0], mask[1], mask[2] = 1, torch.tensor([0, 0, 0, 0, 0, 1, 1]), torch.tensor([1, 1, 1, 0, 0, 0, 0])
    return mask


def by_hand(mask_BT: torch.Tensor, block: int) -> torch.Tensor:
    """The rule, place by place."""
    batch, text = mask_BT.shape
    length = text + block
    allowed = torch.zeros(batch, length, length, dtype=torch.bool)
    for b in range(batch):
        real = [bool(one) for one in mask_BT[b]] + [True] * block
        for q in range(length):
            for k in range(length):
                if not real[q]:
                    allowed[b, q, k] = q == k
                elif q < text:
                    allowed[b, q, k] = real[k] and k <= q
                else:
                    allowed[b, q, k] = real[k]
    return allowed.unsqueeze(1)


def asked(mod: MaskMod, batch: int, rows: int, places: int) -> torch.Tensor:
    """A mask, asked place by place as flex attention does."""
    b, h, q, k = (torch.arange(size) for size in (batch, 1, rows, places))
    return mod(b[:, None, None, None], h[:, None, None], q[:, None], k)


def attended(mask_B1LL: torch.Tensor, x_BLE: torch.Tensor) -> torch.Tensor:
    x = x_BLE.unsqueeze(1)
    return scaled_dot_product_attention(x, x, x, attn_mask=mask_B1LL).squeeze(1)


@pytest.mark.parametrize("seed", range(4))
def test_all_forms_are_the_rule(seed: int) -> None:
    mask = ragged(seed)
    layout, wanted = text_then_image(mask, BLOCK), by_hand(mask, BLOCK)
    length = wanted.shape[-1]
    assert torch.equal(sees(layout), wanted)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        numbers = added(layout, dtype)
        assert numbers.dtype == dtype and torch.equal(numbers == 0, wanted)
        assert bool(numbers.isfinite().all()) and bool((numbers[~wanted] == torch.finfo(dtype).min).all())
    assert torch.equal(asked(mask_mod(layout), len(mask), length, length), wanted)


@pytest.mark.parametrize("rows", [1, BLOCK, BLOCK + 3])
def test_rows_behind_a_kept_prefix_are_the_last_rows_of_the_whole(rows: int) -> None:
    mask = ragged(9)
    layout, wanted = text_then_image(mask, BLOCK), by_hand(mask, BLOCK)[:, :, -rows:]
    assert torch.equal(sees(layout, rows=rows), wanted)
    assert torch.equal(added(layout, torch.float32, rows=rows) == 0, wanted)
    assert torch.equal(asked(mask_mod(layout, rows=rows), len(mask), rows, 12), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_softmax_has_no_nan_in_any_row_and_nothing_leaks(dtype: torch.dtype) -> None:
    layout = text_then_image(torch.cat([ragged(2), torch.zeros(1, 7, dtype=torch.int64)]), BLOCK)
    scores = torch.randn(7, 3, 12, 12, generator=torch.Generator().manual_seed(0)).mul(50).to(dtype)
    shares = (scores + added(layout, dtype)).softmax(dim=-1)
    assert not bool(shares.isnan().any())
    assert bool((shares.masked_select(~sees(layout).expand_as(shares)) == 0).all())


def test_text_does_not_see_the_image_and_padding_is_seen_by_nobody() -> None:
    mask = ragged(5)
    layout = text_then_image(mask, BLOCK)
    states = torch.randn(6, 12, 8, generator=torch.Generator().manual_seed(1))
    before = attended(sees(layout), states)
    drawn = states.clone()
    drawn[:, 7:] = torch.randn(6, BLOCK, 8)
    assert torch.equal(attended(sees(layout), drawn)[:, :7], before[:, :7])
    padded = torch.where(layout.real_BL.unsqueeze(-1), states, torch.full_like(states, 1e4))
    after = attended(sees(layout), padded)
    assert torch.equal(after[layout.real_BL], before[layout.real_BL])
    torch.testing.assert_close(attended(added(layout, torch.float32), states), before)


@pytest.mark.parametrize("rows", [None, 256])
def test_flex_attention_skips_the_blocks_that_nobody_sees(rows: int | None) -> None:
    """Blocks are 128 places wide; the first prompt's first one is padding."""
    pytest.importorskip("torch.nn.attention.flex_attention")
    mask = torch.ones(2, 384, dtype=torch.int64)
    mask[0, :128], mask[1, 200:] = 0, 0
    layout = text_then_image(mask, 256)
    blocks = block_mask(layout, rows=rows)
    pooled = max_pool2d(sees(layout, rows=rows).float(), 128)
    assert torch.equal(blocks.to_dense().float(), pooled) and not bool(pooled[0, 0, -1, 0])


def test_positions_do_not_depend_on_padding() -> None:
    left, right = torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[1, 1, 1, 0, 0]])
    bare = text_then_image(torch.ones(1, 3), 2).positions()
    assert bare.tolist() == [[0, 1, 2, 3, 4]]
    for mask in (left, right):
        layout = text_then_image(mask, 2)
        assert layout.positions()[layout.real_BL].tolist() == [0, 1, 2, 3, 4]
    assert text_then_image(left, 2).positions().tolist() == [[0, 0, 0, 1, 2, 3, 4]]


def test_a_prompt_without_text_leaves_the_image_to_itself() -> None:
    layout = text_then_image(torch.zeros(1, 0), 3)
    assert bool(sees(layout).all()) and sees(layout).shape == (1, 1, 3, 3)


def test_what_makes_no_sense_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ShapeError, match=r"^the mask of prompts is \[B, T\], and this one is \[3\]$"):
        text_then_image(torch.ones(3), 2)
    with pytest.raises(ShapeError, match=r"^block = 0: an image has 1 place or more$"):
        text_then_image(torch.ones(1, 3), 0)
    layout = text_then_image(torch.ones(1, 3), 2)
    for rows in (0, 6):
        with pytest.raises(ShapeError, match=rf"^rows = {rows}: of 5 places 1 to 5 can look$"):
            sees(layout, rows=rows)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.flex_attention", None)
    with pytest.raises(VlkitError, match=r"^flex attention came with torch 2.5, and this is torch .*; update torch"):
        block_mask(CodeLayout(*layout))
