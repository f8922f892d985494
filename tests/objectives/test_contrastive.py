"""The contrastive loss against float64 brute force and against open_clip's."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from vlkit.models.build import build
from vlkit.models.dual_encoder import DualEncoder
from vlkit.objectives.build import WeightedSum, build_objective
from vlkit.objectives.contrastive.softmax import Contrastive, softmax_contrastive
from vlkit.objectives.terms import Term
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.objectives import ContrastiveObjective
from vlkit.spec.parts import LinearHead, TinyImage, TinyText
from vlkit.types import Batch, Embeddings, ImageTextModel, Loss


def embeddings(size: int = 7, width: int = 5, *, scale: float = 14.3, bias: float | None = None) -> Embeddings:
    draw = torch.Generator().manual_seed(size)
    image, text = (normalize(torch.randn(size, width, generator=draw), dim=-1).requires_grad_() for _ in range(2))
    scale_ = torch.tensor(scale, requires_grad=True)
    return Embeddings(image, text, scale_, None if bias is None else torch.tensor(bias, requires_grad=True))


def by_hand(given: Embeddings) -> float:
    image, text, scale = given.image_BE.tolist(), given.text_BE.tolist(), given.scale.item()
    size, total = len(image), 0.0
    score = [[scale * math.fsum(a * b for a, b in zip(x, y, strict=True)) for y in text] for x in image]
    for row in range(size):
        total += math.log(math.fsum(math.exp(score[row][other]) for other in range(size))) - score[row][row]
        total += math.log(math.fsum(math.exp(score[other][row]) for other in range(size))) - score[row][row]
    return total / (2 * size)


@pytest.mark.parametrize(("size", "scale"), [(2, 1.0), (7, 14.3), (16, 100.0)])
def test_it_is_the_formula(size: int, scale: float) -> None:
    given = embeddings(size, scale=scale)
    assert softmax_contrastive(given).item() == pytest.approx(by_hand(given), rel=1e-5)


def test_a_bias_cancels_out() -> None:
    assert softmax_contrastive(embeddings(bias=-10.0)).item() == softmax_contrastive(embeddings()).item()


def test_it_is_that_of_open_clip_with_its_gradients() -> None:
    from open_clip.loss import ClipLoss

    ours, theirs = embeddings(9), embeddings(9)
    mine = softmax_contrastive(ours)
    other = ClipLoss()(theirs.image_BE, theirs.text_BE, theirs.scale)
    mine.backward()
    other.backward()
    torch.testing.assert_close(mine, other)
    for one, two in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def model_and_batch() -> tuple[ImageTextModel, Batch]:
    torch.manual_seed(0)
    spec = DualEncoderSpec(
        image=TinyImage(image_size=16, width=16),
        text=TinyText(width=16),
        embed_dim=8,
        image_head=LinearHead(),
        text_head=LinearHead(),
    )
    batch = Batch(None, torch.randn(6, 16), None, torch.randn(6, 16), ("en",) * 6, tuple("abcdef"))
    return build(spec), batch


def test_what_it_reports() -> None:
    model, batch = model_and_batch()
    loss = WeightedSum([(1.0, Contrastive())])(model, batch)
    out = model(batch)
    assert loss.total.requires_grad and not any(value.requires_grad for value in loss.parts.values())
    assert loss.parts["contrastive"].item() == loss.total.item() == softmax_contrastive(out).item()
    best = [max(range(6), key=row.__getitem__) for row in (out.image_BE @ out.text_BE.T).tolist()]
    assert loss.parts["batch_acc1"].item() == pytest.approx(sum(row == n for n, row in enumerate(best)) / 6)


def test_a_weighted_sum_weighs_losses_and_gradients_and_reports_them_unweighted() -> None:
    model, batch = model_and_batch()

    class Constant(Term):
        embeds = False

        def __init__(self, name: str, value: float) -> None:
            self.name, self.value = name, value

        def loss(self, model: DualEncoder, batch: Batch, embeddings: object, per_pair: object) -> Loss:
            total = self.value * model.log_scale
            return Loss(total, {self.name: total.detach()})

    scale = model.log_scale.item()
    loss = WeightedSum([(0.5, Constant("a", 3.0)), (2.0, Constant("b", 7.0))])(model, batch)
    assert loss.total.item() == pytest.approx((0.5 * 3 + 2 * 7) * scale)
    assert {name: value.item() for name, value in loss.parts.items()} == pytest.approx({"a": 3 * scale, "b": 7 * scale})
    loss.total.backward()
    assert model.log_scale.grad.item() == pytest.approx(0.5 * 3 + 2 * 7)


def test_the_weight_of_a_recipe_is_used() -> None:
    model, batch = model_and_batch()
    alone = WeightedSum([(1.0, Contrastive())])(model, batch).total
    twice = build_objective([ContrastiveObjective(weight=0.25), ContrastiveObjective(weight=0.5)], model)(model, batch)
    torch.testing.assert_close(twice.total, alone * 0.75)
