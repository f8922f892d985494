"""Heads: what they compute, how they start, how they centre."""

from __future__ import annotations

import math

import pytest
import torch

from vlkit.errors import ShapeError, VlkitError
from vlkit.nn.heads import PrototypeHead
from vlkit.parts.bridges import build_head
from vlkit.spec.parts import IdentityHeadSpec, LinearHeadSpec, MlpHeadSpec, PrototypeHeadSpec
from vlkit.types import ClassRows

SPECS = [
    LinearHeadSpec(),
    LinearHeadSpec(bias=True, center=True),
    MlpHeadSpec(hidden=24),
    MlpHeadSpec(hidden=24, center=True),
]


def features(count: int = 50, width: int = 16) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1)) + 3.0


@pytest.mark.parametrize("spec", SPECS)
def test_every_head_carries_its_spec_and_maps_rows_one_by_one(spec) -> None:
    head = build_head(spec, 16, 8).eval()
    assert head.spec == spec
    x = features()
    many, one = head(x), torch.cat([head(row[None]) for row in x])
    assert many.shape == (50, 8)
    torch.testing.assert_close(many, one, atol=1e-5, rtol=1e-5)


def test_identity_gives_its_input_back() -> None:
    x = features()
    assert build_head(IdentityHeadSpec(), 16, 16)(x) is x


def test_identity_refuses_unequal_widths() -> None:
    with pytest.raises(ShapeError) as error:
        build_head(IdentityHeadSpec(), 16, 8)
    assert str(error.value) == (
        "an identity head needs equal widths: the encoder gives 16, the shared space has 8; "
        "set embed_dim=16 or take a linear or mlp head"
    )


def test_mlp_is_the_formula() -> None:
    head = build_head(MlpHeadSpec(hidden=24), 16, 8)
    x = features()
    inner = x @ head.up.weight.T + head.up.bias
    gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    expected = x @ head.shortcut.weight.T + gelu @ head.down.weight.T + head.down.bias
    torch.testing.assert_close(head(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", [LinearHeadSpec(), MlpHeadSpec(hidden=64)])
def test_a_fresh_head_keeps_angles_when_the_width_allows(spec) -> None:
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(20, 16), dim=-1) * 4
    y = torch.nn.functional.normalize(build_head(spec, 16, 32)(x), dim=-1)
    assert (y @ y.T - x @ x.T / 16).abs().max() < 0.15


def test_centring_removes_the_fitted_mean_and_any_scale() -> None:
    head = build_head(LinearHeadSpec(center=True), 16, 8)
    x = features()
    head.fit_mean(x)
    torch.testing.assert_close(head.mean_D, x.mean(0))
    inner = head.centered(x)
    torch.testing.assert_close(inner.norm(dim=-1), torch.full((50,), 4.0))
    expected = torch.nn.functional.normalize(x - x.mean(0), dim=-1) * 4
    torch.testing.assert_close(head(x), expected @ head.map.weight.T)


def test_the_mean_is_saved_and_only_where_there_is_one() -> None:
    head = build_head(MlpHeadSpec(hidden=4, center=True), 16, 8)
    assert head.needs_mean
    head.fit_mean(features())
    assert not head.needs_mean and "mean_D" in head.state_dict()
    assert "mean_D" not in dict(head.named_parameters())
    other = build_head(MlpHeadSpec(hidden=4, center=True), 16, 8)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(features()), head(features()))
    assert "mean_D" not in build_head(MlpHeadSpec(hidden=4), 16, 8).state_dict()


def test_dropout_works_on_the_hidden_layer_in_training_only() -> None:
    head = build_head(MlpHeadSpec(hidden=64, dropout=0.5), 16, 8)
    x = features()
    assert not torch.equal(head.train()(x), head.train()(x))
    assert torch.equal(head.eval()(x), head.eval()(x))


def test_fit_mean_refuses_what_it_cannot_use() -> None:
    with pytest.raises(VlkitError, match=r"a linear head with center=false has no mean to fit; set center=true"):
        build_head(LinearHeadSpec(), 16, 8).fit_mean(features())
    head = build_head(LinearHeadSpec(center=True), 16, 8)
    with pytest.raises(ShapeError, match=r"fit_mean takes features \[N, 16\], got \[50, 4\]"):
        head.fit_mean(features(width=4))
    for bad in (features() * math.nan, features()[:0]):
        with pytest.raises(VlkitError, match=r"the mean of \d+ features is not finite"):
            head.fit_mean(bad)
    assert not head.mean_D.any()


def rows(width: int = 16) -> ClassRows:
    draw = torch.Generator().manual_seed(4)
    return ClassRows(torch.randn(5, width, generator=draw) + 1, torch.randn(5, generator=draw), (("a",),) * 5)


def prototype_head(**more: float) -> PrototypeHead:
    torch.manual_seed(0)
    spec = PrototypeHeadSpec(hidden=24, known_dim=3, num_classes=5, center=False, **more)
    head = build_head(spec, 16, 8)
    assert isinstance(head, PrototypeHead)
    return head.eval()


def test_a_prototype_head_is_the_formula() -> None:
    head, given = prototype_head(gain=1.5, temperature=2.0), rows()
    class_KV = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    head.set_classes(given, class_KV)
    x = features()
    plain = build_head(MlpHeadSpec(hidden=24), 16, 5)
    plain.load_state_dict({name: head.state_dict()[name] for name in plain.state_dict()})
    logits = (x @ given.weight_KD.T + given.bias_K) / 2.0
    known = logits.exp() / logits.exp().sum(dim=1, keepdim=True) @ class_KV
    expected = torch.cat([torch.nn.functional.normalize(plain(x), dim=-1), 1.5 * known], dim=1)
    torch.testing.assert_close(head(x), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head(x)[:, :5].norm(dim=1), torch.ones(50))
    assert (head.in_width, head.out_width, head.linear.weight.shape) == (16, 8, (5, 16))


def test_a_surely_known_class_lies_where_its_embedding_does() -> None:
    head, given = prototype_head(gain=1.2), rows()
    class_KV = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    head.set_classes(given, class_KV)
    sure = 50 * torch.linalg.pinv(head.weight_KD)  # one image a class that its logit alone is high for
    torch.testing.assert_close(head(sure.T)[:, 5:], 1.2 * class_KV, atol=1e-3, rtol=1e-3)
    prototypes = head.class_prototypes(given)
    assert prototypes.shape == (5, 8) and not prototypes[:, :5].any()
    torch.testing.assert_close(prototypes[:, 5:], class_KV)
    assert head.class_prototypes(given).requires_grad


def test_a_prototype_head_keeps_its_classes() -> None:
    head, other = prototype_head(), prototype_head()
    head.set_classes(rows(), torch.randn(5, 3))
    assert not torch.equal(head(features()), other(features()))
    other.load_state_dict(head.state_dict())
    assert torch.equal(head(features()), other(features()))
    trains = {name for name, _ in head.named_parameters()}
    assert "class_KV" in trains and not trains & {"weight_KD", "bias_K"}


def test_a_prototype_head_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError) as error:
        build_head(PrototypeHeadSpec(known_dim=8), 16, 8)
    assert str(error.value) == "known_dim = 8 leaves nothing of embed_dim = 8 to the pairs; make it smaller"
    for given, class_KV in ((rows(8), torch.zeros(5, 3)), (rows(), torch.zeros(5, 4)), (rows(), torch.zeros(4, 3))):
        with pytest.raises(
            ShapeError, match=r"^the prototype head takes rows \[5, 16\] and embeddings \[5, 3\], got \["
        ):
            prototype_head().set_classes(given, class_KV)


@pytest.mark.parametrize("spec", [*SPECS, PrototypeHeadSpec(hidden=8, known_dim=3, num_classes=5)])
def test_a_warm_start_is_the_linear_map_alone(spec) -> None:
    head = build_head(spec, 16, 8).eval()
    width = head.linear.weight.shape[0]
    map_ED = torch.randn(width, 16)
    head.set_linear(map_ED)
    x = features()
    expected = head.centered(x) @ map_ED.T
    if isinstance(head, PrototypeHead):
        expected = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(head(x)[:, :width], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(
        ShapeError, match=rf"^{spec.kind} head: the linear map has shape \[{width}, 16\], got \[2, 16\]$"
    ):
        head.set_linear(map_ED[:2])


def test_a_head_without_a_linear_map_takes_none() -> None:
    with pytest.raises(ShapeError, match=r"^identity head: the linear map has shape None, got \[8, 16\]$"):
        build_head(IdentityHeadSpec(), 16, 16).set_linear(torch.zeros(8, 16))


@pytest.mark.parametrize("spec", [LinearHeadSpec(), MlpHeadSpec(hidden=8, center=True)])
def test_the_rows_of_a_classifier_stand_for_its_classes(spec) -> None:
    head, given = build_head(spec, 16, 8).eval(), rows()
    if head.needs_mean:
        head.fit_mean(features())
    centred = given.weight_KD - given.weight_KD.mean(0)
    expected = head(centred + (0 if head.mean_D is None else head.mean_D))
    torch.testing.assert_close(head.class_prototypes(given), expected)
    half = head.double().class_prototypes(given)  # where the head is, whatever the rows are in
    torch.testing.assert_close(half.float(), expected, atol=1e-5, rtol=1e-4)
