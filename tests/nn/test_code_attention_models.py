"""The mask in whole language models of transformers: what must not be seen changes nothing, layer after layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache, Gemma2Config, Gemma2Model, LlamaConfig, LlamaModel

from vlkit.nn.code_attention import CodeLayout, added, text_then_image

BLOCK, WIDTH = 5, 16
SIZES = {
    "vocab_size": 20, "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "attn_implementation": "eager", "use_cache": False,
}  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def model(request: pytest.FixtureRequest) -> Any:
    """Three layers with rotary positions; gemma2 caps scores and looks through a window in every second one."""
    torch.manual_seed(0)
    made = {"llama": lambda: LlamaModel(LlamaConfig(**SIZES)), "gemma2": lambda: Gemma2Model(Gemma2Config(**SIZES))}
    return made[request.param]().eval()


@torch.no_grad()
def states(model: Any, embeds_BLE: torch.Tensor, layout: CodeLayout, **more: Any) -> torch.Tensor:
    """Last states; the mask is given for each kind of layer, so that no model builds its own."""
    rows = embeds_BLE.shape[1]
    mask = added(layout, torch.float32, rows=rows)
    if isinstance(model, Gemma2Model):
        mask = {"full_attention": mask, "sliding_attention": mask}
    found: torch.Tensor = model(
        inputs_embeds=embeds_BLE, attention_mask=mask, position_ids=layout.positions()[:, -rows:], **more
    ).last_hidden_state
    return found


def laid(text_TE: torch.Tensor, image_ME: torch.Tensor, *, left: int, right: int) -> tuple[torch.Tensor, CodeLayout]:
    """A text with padding of noise on both sides, and the image behind it."""
    padded = [torch.randn(left, WIDTH), text_TE, torch.randn(right, WIDTH)]
    mask = torch.tensor([[0] * left + [1] * len(text_TE) + [0] * right])
    return torch.cat([*padded, image_ME])[None], text_then_image(mask, len(image_ME))


def test_neither_padding_nor_the_image_reaches_what_must_not_see_it(model: Any) -> None:
    text, image = torch.randn(4, WIDTH), torch.randn(BLOCK, WIDTH)
    bare = states(model, *laid(text, image, left=0, right=0))[0]
    for left, right in ((3, 0), (0, 3), (2, 1), (40, 0)):
        embeds, layout = laid(text, image, left=left, right=right)
        found = states(model, embeds, layout)[0]
        assert not bool(found.isnan().any())
        torch.testing.assert_close(found[layout.real_BL[0]], bare, atol=1e-5, rtol=1e-5)
    other = states(model, *laid(text, torch.randn(BLOCK, WIDTH), left=0, right=0))[0]
    torch.testing.assert_close(other[:4], bare[:4], atol=1e-6, rtol=0)
    changed = states(model, *laid(text, torch.cat([image[:-1], torch.randn(1, WIDTH)]), left=0, right=0))[0]
    assert bool((changed[4:] - bare[4:]).abs().amax(dim=1).gt(1e-4).all())  # the first place of the block sees the last


def test_rows_of_the_block_behind_kept_keys_give_what_the_whole_gives(model: Any) -> None:
    embeds, layout = laid(torch.randn(4, WIDTH), torch.randn(BLOCK, WIDTH), left=2, right=1)
    whole = states(model, embeds, layout)[:, -BLOCK:]
    prefix = CodeLayout(layout.real_BL[:, :-BLOCK], layout.image_BL[:, :-BLOCK])
    kept = DynamicCache()
    states(model, embeds[:, :-BLOCK], prefix, past_key_values=kept, use_cache=True)
    for _ in range(2):  # a step leaves nothing behind for the next
        behind = states(model, embeds[:, -BLOCK:], layout, past_key_values=kept, use_cache=True)
        torch.testing.assert_close(behind, whole, atol=1e-5, rtol=1e-5)
        kept.crop(-BLOCK)
