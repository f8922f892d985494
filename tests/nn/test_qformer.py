"""The Q-Former: equal to transformers' own, queries that start apart, and masks shown by what a change reaches."""

from __future__ import annotations

import pytest
import torch

from vlkit.errors import ShapeError
from vlkit.nn.qformer import QueryText, QueryTransformer, WordPrediction

SIZES = {
    "num_queries": 6, "width": 16, "layers": 3, "heads": 4, "ffn": 24, "cross_every": 2, "dropout": 0.1,
    "norm_image": False,
}  # fmt: skip


def qformer(**changed) -> QueryTransformer:
    torch.manual_seed(1)
    return QueryTransformer(12, 20, **{**SIZES, **changed}).eval()


def text_side() -> QueryText:
    torch.manual_seed(2)
    return QueryText(16, 30, max_length=9, layers=3, hidden=24, dropout=0.1).eval()


def image(count: int = 7) -> torch.Tensor:
    return torch.randn(2, count, 12, generator=torch.Generator().manual_seed(3))


IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def test_queries_start_normal_with_deviation_of_a_fiftieth_and_stay_apart() -> None:
    bridge = qformer(num_queries=64, width=256, heads=8)
    assert abs(float(bridge.queries_MW.detach().std()) - 0.02) < 1e-3
    out = bridge(image())[0]
    assert out.shape == (64, 20) and (torch.cdist(out, out) + torch.eye(64) * 9).min() > 1e-3


@pytest.mark.parametrize("norm_image", [False, True])
def test_queries_are_those_of_transformers(norm_image: bool) -> None:
    from transformers import Blip2QFormerConfig, Blip2QFormerModel

    bridge = qformer(norm_image=norm_image)
    with torch.no_grad():
        for weight in bridge.parameters():  # far from the first weights, and norms that do something
            weight.add_(torch.randn(weight.shape) * 0.3)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24}
    peer = Blip2QFormerModel(Blip2QFormerConfig(**sizes, encoder_hidden_size=12)).eval()
    names = {
        "norm": "layernorm", "attention.query": "attention.attention.query", "attention.key": "attention.attention.key",
        "attention.value": "attention.attention.value", "attention.out": "attention.output.dense",
        "attention.norm": "attention.output.LayerNorm", "cross.query": "crossattention.attention.query",
        "cross.key": "crossattention.attention.key", "cross.value": "crossattention.attention.value",
        "cross.out": "crossattention.output.dense", "cross.norm": "crossattention.output.LayerNorm",
        "ffn.up": "intermediate_query.dense", "ffn.down": "output_query.dense", "ffn.norm": "output_query.LayerNorm",
    }  # fmt: skip
    state = {}
    for name, value in bridge.state_dict().items():
        *place, last = name.split(".")
        if place[:1] == ["layers"]:
            state[f"encoder.layer.{place[1]}.{names['.'.join(place[2:])]}.{last}"] = value
        elif place == ["norm"]:
            state[f"layernorm.{last}"] = value
    peer.load_state_dict(state)
    seen = image() if bridge.image_norm is None else bridge.image_norm(image())
    found = peer(query_embeds=bridge.queries_MW.expand(2, -1, -1), encoder_hidden_states=seen).last_hidden_state
    torch.testing.assert_close(bridge.query_states(image()).last_BMW, found, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(bridge(image()), bridge.projection(found), atol=1e-5, rtol=1e-5)


def test_the_image_is_seen_in_every_second_layer_from_the_first() -> None:
    assert [layer.cross is not None for layer in qformer(layers=5).layers] == [True, False, True, False, True]
    assert qformer().num_tokens(7) == qformer().num_tokens(700) == 6


def test_the_order_of_image_tokens_does_not_matter() -> None:
    torch.testing.assert_close(qformer()(image().flip(1)), qformer()(image()), atol=1e-5, rtol=1e-5)


def test_a_norm_of_the_image_makes_its_scale_no_matter() -> None:
    bridge = qformer(norm_image=True)
    torch.testing.assert_close(bridge(image() * 9 + 5), bridge(image()), atol=1e-4, rtol=1e-4)


def test_text_alone_sees_all_of_itself_and_no_padding() -> None:
    bridge, text = qformer(), text_side()
    states = bridge.text_states(text, IDS, MASK)
    later, padding = IDS.clone(), IDS.clone()
    later[0, 4], padding[1, 4] = 3, 3
    assert not torch.allclose(bridge.text_states(text, later, MASK)[0, 0], states[0, 0], atol=1e-5)
    assert torch.equal(bridge.text_states(text, padding, MASK)[1, :3], states[1, :3])


def test_text_beside_queries_sees_them_and_what_stands_before() -> None:
    bridge, text = qformer(), text_side()
    states = bridge.text_states(text, IDS, MASK, beside=bridge.query_states(image()))
    for place in range(5):
        changed = IDS.clone()
        changed[0, place] = 3
        found = bridge.text_states(text, changed, MASK, beside=bridge.query_states(image()))[0]
        assert torch.equal(found[:place], states[0, :place])
        assert not torch.allclose(found[place:], states[0, place:], atol=1e-5)
    other = bridge.text_states(text, IDS, MASK, beside=bridge.query_states(image() + 1))
    assert not torch.allclose(other[0, 0], states[0, 0], atol=1e-5)


def test_queries_beside_text_are_those_without_it_but_for_the_joint_pass() -> None:
    bridge, text = qformer(), text_side()
    changed, padding = IDS.clone(), IDS.clone()
    changed[0, 4], padding[1, 4] = 3, 3
    joint = bridge.joint_states(text, image(), ids_BL=IDS, mask_BL=MASK)
    assert joint.shape == (2, 6, 16)
    assert not torch.allclose(bridge.query_states(image()).last_BMW, joint, atol=1e-5)
    moved = bridge.joint_states(text, image(), ids_BL=changed, mask_BL=MASK)
    assert not torch.allclose(moved[0], joint[0], atol=1e-5) and torch.equal(moved[1], joint[1])
    assert torch.equal(bridge.joint_states(text, image(), ids_BL=padding, mask_BL=MASK), joint)


def test_words_are_foretold_by_their_own_embedding() -> None:
    text, foretell = text_side(), WordPrediction(16, 30)
    states = torch.randn(4, 16)
    inner = torch.nn.functional.layer_norm(torch.nn.functional.gelu(foretell.map(states)), (16,), eps=1e-12)
    expected = inner @ text.words.weight.T
    torch.testing.assert_close(foretell(states, text.words.weight), expected)


def test_dropout_is_of_training_alone() -> None:
    bridge = qformer()
    assert torch.equal(bridge(image()), bridge(image()))
    bridge.train()
    assert not torch.equal(bridge(image()), bridge(image()))


def test_heads_that_divide_no_width_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"^width = 16 is no multiple of heads = 3; change one of them$"):
        qformer(heads=3)


def test_recomputing_changes_no_gradient() -> None:
    bridge, text, grads = qformer(), text_side(), []
    for on in (False, True):
        bridge.set_grad_checkpointing(on)
        for part in (bridge, text):
            part.zero_grad()
        states = bridge.query_states(image())
        written = bridge.text_states(text, IDS, MASK, beside=states)
        joint = bridge.joint_states(text, image(), ids_BL=IDS, mask_BL=MASK)
        (bridge(image()).square().mean() + written.square().mean() + joint.square().mean()).backward()
        grads.append([weight.grad.clone() for weight in (*bridge.parameters(), *text.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
