"""The contrastive loss against float64 brute force and against open_clip's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import normalize

from tests.helpers import contrastive_peers as peers
from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.registry import build
from vlkit.objectives.pairs.contrastive.sigmoid import sigmoid_contrastive
from vlkit.objectives.pairs.contrastive.softmax import softmax_contrastive
from vlkit.objectives.pairs.contrastive.terms import Contrastive
from vlkit.objectives.pairs.pair_losses import PairLosses
from vlkit.objectives.weighted_sum import WeightedSum, build_objective
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.objectives import ContrastiveObjective, SigmoidObjective
from vlkit.spec.parts import LinearHeadSpec, TinyImage, TinyText
from vlkit.types import Embeddings, ImageTextModel, Loss, Piece


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
    assert softmax_contrastive(given).loss.item() == pytest.approx(by_hand(given), rel=1e-5)


def test_a_bias_cancels_out() -> None:
    assert softmax_contrastive(embeddings(bias=-10.0)).loss == softmax_contrastive(embeddings()).loss


def test_it_is_that_of_open_clip_with_its_gradients() -> None:
    from open_clip.loss import ClipLoss

    ours, theirs = embeddings(9), embeddings(9)
    mine = softmax_contrastive(ours).loss
    other = ClipLoss()(theirs.image_BE, theirs.text_BE, theirs.scale)
    mine.backward()
    other.backward()
    torch.testing.assert_close(mine, other)
    for one, two in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def model_and_batch() -> tuple[ImageTextModel, PairBatch]:
    torch.manual_seed(0)
    spec = DualEncoderSpec(
        image=TinyImage(image_size=16, width=16),
        text=TinyText(width=16),
        embed_dim=8,
        image_head=LinearHeadSpec(),
        text_head=LinearHeadSpec(),
    )
    batch = PairBatch(None, torch.randn(6, 16), None, torch.randn(6, 16), ("en",) * 6, tuple("abcdef"))
    return build(spec), batch


def test_what_it_reports() -> None:
    model, batch = model_and_batch()
    loss = PairLosses([(1.0, Contrastive(ContrastiveObjective()))])(model, batch)
    out = model(batch)
    assert loss.total.requires_grad and not any(value.requires_grad for value in loss.parts.values())
    assert loss.parts["contrastive"].item() == loss.total.item() == softmax_contrastive(out).loss.item()
    best = [max(range(6), key=row.__getitem__) for row in (out.image_BE @ out.text_BE.T).tolist()]
    assert loss.parts["batch_acc1"].item() == pytest.approx(sum(row == n for n, row in enumerate(best)) / 6)


def test_a_weighted_sum_weighs_losses_and_gradients_and_reports_them_unweighted() -> None:
    model, batch = model_and_batch()

    class Constant:
        needs = frozenset[str]()

        def __init__(self, name: str, value: float) -> None:
            self.name, self.value = name, value

        def pieces(self, batch: PairBatch, size: int) -> list[Piece]:
            return [Piece(batch)]

        def __call__(self, model: DualEncoder, batch: PairBatch) -> Loss:
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
    alone = PairLosses([(1.0, Contrastive(ContrastiveObjective()))])(model, batch).total
    twice = build_objective([ContrastiveObjective(weight=0.25), ContrastiveObjective(weight=0.5)], model)(model, batch)
    torch.testing.assert_close(twice.total, alone * 0.75)


def dense(given: Embeddings, *, kind: str = "softmax") -> Embeddings:
    """Gradients of the loss by brute force in float64, in the place of the tensors."""
    leaves = [x.detach().double().requires_grad_() for x in given if x is not None]
    ids = torch.arange(len(given.image_BE))
    if kind == "sigmoid":
        peers.dense_sigmoid(*leaves, ids=ids, duplicates="negatives").backward()
    else:
        peers.dense_softmax(*leaves[:3], ids=ids, duplicates="negatives").backward()
    return Embeddings(*(x.grad for x in leaves), *([None] * (4 - len(leaves))))


def test_r7_sigmoid_at_its_start_is_ten_and_a_little() -> None:
    size = 512
    given = embeddings(size, 64, scale=10.0, bias=-10.0)
    expected = 10 + size * math.log1p(math.exp(-10))
    assert sigmoid_contrastive(given).loss.item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("function", [softmax_contrastive, sigmoid_contrastive])
def test_r8_limits(function: Any) -> None:
    size = 32
    given = embeddings(size, 64, scale=1e-6, bias=0.0)
    assert function(given).loss.item() == pytest.approx(
        math.log(size) if function is softmax_contrastive else size * math.log(2), rel=1e-5
    )
    same = embeddings(size, 64, scale=100.0, bias=-50.0)
    aligned = same._replace(text_BE=same.image_BE.detach())
    assert function(aligned).loss.item() == pytest.approx(0, abs=1e-6 if function is softmax_contrastive else 0.05)
    assert function(aligned).acc1.item() == 1


def extreme(case: str, size: int = 24, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    image = normalize(torch.randn(size, width, generator=draw, dtype=torch.float64), dim=-1)
    if case == "identical":
        image = image[:1].expand(size, width)
        return image.clone(), image.clone()
    if case == "opposite":
        image = image[:1].expand(size, width)
        return image.clone(), -image
    if case == "duplicated captions":
        return image, image[torch.arange(size) // 3 * 3]
    if case == "own pairs opposite":
        return image, -image
    return image, image


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("case", ["identical", "opposite", "duplicated captions", "own pairs opposite", "aligned"])
def test_r9_it_is_right_at_the_largest_scale(case: str, kind: str, dtype: torch.dtype) -> None:
    rounded = dtype == torch.bfloat16
    image, text = (x.to(dtype).to(torch.float32 if rounded else dtype) for x in extreme(case))
    given = Embeddings(
        image.clone().requires_grad_(),
        text.clone().requires_grad_(),
        torch.tensor(100.0, dtype=image.dtype, requires_grad=True),
        torch.tensor(-10.0, dtype=image.dtype, requires_grad=True),
    )
    function = softmax_contrastive if kind == "softmax" else sigmoid_contrastive
    with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
        loss = function(given, tile=7).loss
    loss.backward()
    wanted = dense(given, kind=kind)
    limit = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2}[dtype]
    for name in ("image_BE", "text_BE"):
        got, truth = getattr(given, name).grad.double(), getattr(wanted, name)
        assert got.isfinite().all()
        of_one_term = 100 / len(got) ** 0.5  # the truth is 0 where all terms cancel
        assert (got - truth).norm() <= limit * max(truth.norm().item(), of_one_term)
    assert loss.isfinite() and given.scale.grad.isfinite()


def test_late_in_training_gradients_are_closer_to_the_truth_than_open_clips() -> None:
    from open_clip.loss import ClipLoss

    image, text = (x.float() for x in extreme("aligned", 128, 64))
    text = normalize(text + 0.1 * torch.randn(128, 64), dim=-1)
    ours, theirs = (
        Embeddings(image.clone().requires_grad_(), text.clone().requires_grad_(), torch.tensor(20.0), None)
        for _ in range(2)
    )
    softmax_contrastive(ours).loss.backward()
    ClipLoss()(theirs.image_BE, theirs.text_BE, theirs.scale).backward()
    truth = dense(ours).image_BE
    mine, other = ((x.image_BE.grad - truth).norm() / truth.norm() for x in (ours, theirs))
    assert mine < 1e-5 and mine < other / 10


def test_arguments_that_do_not_go_together() -> None:
    given, ids = embeddings(), torch.arange(7)
    with pytest.raises(VlkitError, match=r"duplicates is 'ignore'; 'ignore' and 'positives' need ids"):
        softmax_contrastive(given, duplicates="ignore")
    with pytest.raises(VlkitError, match=r"duplicates is 'negatives'"):
        sigmoid_contrastive(embeddings(bias=-10.0), ids=ids)
    with pytest.raises(VlkitError, match=r"scale of similarities is 601; at most 600: lower model.max_scale"):
        softmax_contrastive(embeddings(scale=601.0))
    with pytest.raises(VlkitError, match=r"recompute: false keeps the logits of all texts, and exchange: ring never"):
        softmax_contrastive(given, recompute=False, exchange="ring")
    with pytest.raises(ValidationError, match=r"exchange: ring never has them"):
        ContrastiveObjective(recompute=False, exchange="ring")
    with pytest.raises(VlkitError, match=r"needs a bias .* set model.init_bias: -10"):
        sigmoid_contrastive(given)
    with pytest.raises(VlkitError, match=r"takes pairs; images and texts by process: 7 and 6"):
        softmax_contrastive(given._replace(text_BE=given.text_BE[:6]))
    model, batch = model_and_batch()
    with pytest.raises(VlkitError, match=r"sigmoid objective needs a bias .* model.init_bias is null"):
        build_objective([SigmoidObjective()], model)
    spec = ContrastiveObjective(duplicates="ignore", duplicates_by="caption")
    with pytest.raises(VlkitError, match=r"is 'caption' and the batches .* no captions; choose 'concept'"):
        Contrastive(spec).loss(model, batch, model(batch), {})


def test_r10_duplicates_by_concept_of_a_batch() -> None:
    model, batch = model_and_batch()
    batch = replace(batch, concepts=("a", "b", "a", "", "", "a"))
    for duplicates in ("ignore", "positives"):
        got = build_objective([ContrastiveObjective(duplicates=duplicates)], model)(model, batch).total
        out, ids = model(batch), torch.tensor([0, 1, 0, 3, 4, 0])
        wanted = peers.dense_softmax(out.image_BE, out.text_BE, out.scale, ids=ids, duplicates=duplicates)
        torch.testing.assert_close(got, wanted)
