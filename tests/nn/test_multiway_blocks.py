"""Laws of the sub-LN blocks and the decoders built of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vlkit.errors import ShapeError
from vlkit.nn.decoders import PatchDecoder, TextDecoder, normalized_patches, sinusoids
from vlkit.nn.multiway import Attention, BlockStack, SubLayerNormBlock

SIZE = {"width": 16, "heads": 2, "hidden": 32, "layers": 2, "source_width": 8}


def stack(count: int = 3, *, drop_path: float = 0.0) -> BlockStack:
    return BlockStack(16, 2, hidden=32, depths=range(1, count + 1), total=count, drop_path=drop_path)


def test_attention_is_that_of_torch_with_a_norm_before_the_output_map() -> None:
    own, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    x_BND, keep_BN = torch.randn(2, 5, 16), torch.tensor([[True] * 5, [True, True, False, True, False]])
    with torch.no_grad():
        own.query.weight.copy_(theirs.in_proj_weight[:16])
        own.key_value.weight.copy_(theirs.in_proj_weight[16:])
        own.query.bias.zero_()
        own.key_value.bias.zero_()
        theirs.out_proj.weight.copy_(torch.eye(16))
        mixed_BND = theirs(x_BND, x_BND, x_BND, key_padding_mask=~keep_BN)[0]
        torch.testing.assert_close(own(x_BND, x_BND, keep_BM=keep_BN), own.out(own.norm(mixed_BND)))


def test_a_block_has_the_two_inner_norms_and_smaller_last_maps_the_deeper_it_is() -> None:
    norms = [name for name, part in SubLayerNormBlock(16, 2, hidden=32, depth=1, drop_path=0.0).named_modules()
             if isinstance(part, nn.LayerNorm)]  # fmt: skip
    assert norms == ["norm_1", "attention.norm", "norm_2", "mlp.norm"]
    for depth in (1, 8):
        block = SubLayerNormBlock(256, 2, hidden=256, depth=depth, drop_path=0.0)
        for last in (block.attention.out, block.mlp.down):
            assert last.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * depth), rel=0.05)
        assert block.mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert block.mlp.up.weight.abs().max() < 2 and not block.mlp.up.bias.any()


def test_drop_path_grows_over_the_layers_and_keeps_the_mean() -> None:
    shares = [block.drop_path.drop_prob for block in stack(3, drop_path=0.4).blocks]
    assert shares == pytest.approx([0.0, 0.2, 0.4])
    drop, ones = SubLayerNormBlock(16, 2, hidden=8, depth=1, drop_path=0.25).drop_path, torch.ones(20_000, 1, 1)
    dropped = drop.train()(ones)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(ones), ones)


def test_recomputed_blocks_give_the_same_gradients_also_where_rows_are_dropped() -> None:
    layers, x_BND = stack(drop_path=0.5).train(), torch.randn(6, 4, 16)
    found, saved = [], []
    for recompute in (False, True):
        layers.set_grad_checkpointing(recompute)
        layers.zero_grad()
        torch.manual_seed(3)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            out = layers(x_BND)
        saved.append(sum(sizes))
        out.square().sum().backward()
        found.append([parameter.grad.clone() for parameter in layers.parameters()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)
    assert saved[1] < saved[0] / 5


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ShapeError, match="width = 16 is no multiple of heads = 3"):
        SubLayerNormBlock(16, 3, hidden=8, depth=1, drop_path=0.0)


def test_the_causal_text_decoder_sees_no_later_token_and_the_other_sees_all() -> None:
    decoder = TextDecoder(**SIZE, vocab_size=20).eval()
    ids_BL, mask_BL, image = torch.randint(20, (1, 6)), torch.ones(1, 6, dtype=torch.long), torch.randn(1, 3, 8)
    changed_BL = ids_BL.clone()
    changed_BL[0, 4] = (ids_BL[0, 4] + 1) % 20
    for causal in (True, False):
        one, other = (decoder(ids, mask_BL, image, causal=causal) for ids in (ids_BL, changed_BL))
        same_L = (one == other).all(dim=-1)[0].tolist()
        assert same_L == ([True] * 4 + [False] * 2 if causal else [False] * 6)
    assert not torch.allclose(decoder(ids_BL, mask_BL, image + torch.randn(8), causal=True), one)


def test_the_text_decoder_does_not_look_at_padding() -> None:
    decoder = TextDecoder(**SIZE, vocab_size=20).eval()
    ids_BL, image = torch.randint(20, (1, 6)), torch.randn(1, 3, 8)
    mask_BL = torch.tensor([[1, 1, 1, 1, 0, 0]])
    whole = decoder(ids_BL, mask_BL, image, causal=False)[:, :4]
    torch.testing.assert_close(whole, decoder(ids_BL[:, :4], mask_BL[:, :4], image, causal=False))


def test_the_patch_decoder_does_not_look_at_hidden_patches_or_padding_and_does_at_the_others() -> None:
    decoder = PatchDecoder(**SIZE, patch_size=4).eval()
    patches_BNP, hidden_BK = decoder.patches(torch.randn(2, 3, 16, 16)), torch.tensor([[1, 6], [0, 15]])
    text, keep = torch.randn(2, 5, 8), torch.tensor([[True, True, True, False, False]] * 2)

    def predicted(patches: torch.Tensor = patches_BNP, text: torch.Tensor = text) -> torch.Tensor:
        return decoder(patches, hidden_BK, text, keep, columns=4)

    assert predicted().shape == (2, 2, 48)
    other = patches_BNP.clone()
    other[0, 6], other[1, 15] = 9.0, 9.0
    assert torch.equal(predicted(other), predicted())
    other[0, 7] = 9.0
    assert not torch.allclose(predicted(other)[0], predicted()[0])
    padded, said = text.clone(), text.clone()
    padded[:, 3:], said[:, 0] = 9.0, torch.randn(8)
    assert torch.equal(predicted(text=padded), predicted())
    assert not torch.allclose(predicted(text=said), predicted())


def test_patches_lie_row_by_row_and_are_normalized_one_by_one() -> None:
    decoder = PatchDecoder(**SIZE, patch_size=4)
    image = torch.arange(3 * 8 * 12, dtype=torch.float32).view(1, 3, 8, 12)
    patches_BNP = decoder.patches(image)
    assert torch.equal(patches_BNP[0, 4].view(3, 4, 4), image[0, :, 4:8, 4:8])  # second row of three
    normal = normalized_patches(patches_BNP)
    torch.testing.assert_close(normal.mean(dim=-1), torch.zeros(1, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.var(dim=-1), torch.ones(1, 6))
    assert not normalized_patches(torch.full((1, 1, 48), 3.0)).any()
    with pytest.raises(ShapeError, match=r"8x10 pixels have no whole number .* model.decoder.patch_size = 4"):
        decoder.patches(torch.zeros(1, 3, 8, 10))


def test_positions_differ_and_any_width_will_do() -> None:
    for width in (1, 7, 16):
        assert sinusoids(torch.arange(9), width).shape == (9, width)
    assert len(torch.unique(sinusoids(torch.arange(500), 16), dim=0)) == 500


@pytest.mark.parametrize("causal", [False, True])
def test_recomputed_decoder_blocks_give_the_same_gradients(causal: bool) -> None:
    decoder = TextDecoder(16, 2, vocab_size=10, hidden=32, layers=2, source_width=8).train()
    ids_BL, mask_BL = torch.randint(0, 10, (3, 5)), torch.tensor([[1] * 5, [1, 1, 1, 0, 0], [1] * 5])
    image_BME = torch.randn(3, 4, 8)
    found, kept = [], []
    for recompute in (False, True):
        decoder.stack.set_grad_checkpointing(recompute)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.nbytes) or x, lambda x: x):
            loss = decoder(ids_BL, mask_BL, image_BME, causal=causal).square().sum()
        decoder.zero_grad()
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in decoder.parameters() if p.grad is not None)])
        kept.append(sum(sizes))
    assert len(found[0]) > 20
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)
    assert kept[1] < kept[0] / 2
