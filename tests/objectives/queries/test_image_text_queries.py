"""The losses of a Q-Former: by their definitions, over processes, and what is never a negative."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch.nn import functional

from tests.helpers.ranks import on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.models.query_former.batch import QueryBatch
from vlkit.models.registry import build
from vlkit.objectives.context import Context
from vlkit.objectives.queries.image_text_queries import ImageTextQueries
from vlkit.spec.bridges import QFormerBridgeSpec
from vlkit.spec.model import DualEncoderSpec, QueryFormerSpec
from vlkit.spec.objectives import ImageTextQueriesObjective
from vlkit.spec.parts import TinyImage, TinyText

TEXTS = ("a cat", "ein großer Hund", "x", "vogel", "a cat and a dog", "猫")


def small_model() -> Any:
    torch.manual_seed(0)
    spec = QueryFormerSpec(
        encoder=TinyImage(image_size=16, width=16, depth=1),
        bridge=QFormerBridgeSpec(num_queries=3, width=16, layers=2, heads=2, ffn=24, dropout=0.0),
        embed_dim=8,
    )
    model: Any = build(spec).double()
    with torch.no_grad():
        for weight in (*model.bridge.parameters(), *model.text.parameters()):
            weight.add_(torch.randn(weight.shape, dtype=torch.float64) * 0.2)  # images and texts that differ clearly
    return model


def made_batch(model: Any, rows: range, *, concepts: tuple[str, ...] | None = None) -> QueryBatch:
    draw = torch.Generator().manual_seed(7)
    pixels = torch.randn(len(TEXTS), 3, 16, 16, generator=draw, dtype=torch.float64)
    names = concepts or tuple(f"c{number}" for number in range(len(TEXTS)))
    texts = [TEXTS[row] for row in rows]
    chosen = tuple(names[row] for row in rows)
    return QueryBatch(
        model.text.tokenize(texts), pixels[rows.start : rows.stop], None, ("en",) * len(rows), chosen, chosen
    )


def objective(*, ranks: Ranks | None = None, **spec: float) -> ImageTextQueries:
    return ImageTextQueries(ImageTextQueriesObjective(**spec), ranks=ranks or Ranks())


def smoothed(logits: torch.Tensor, target: torch.Tensor, share: float = 0.1) -> torch.Tensor:
    """Cross entropy with label smoothing, a row each."""
    log_p = logits.log_softmax(dim=-1)
    return -(1 - share) * log_p.gather(-1, target[:, None]).squeeze(-1) - share * log_p.mean(dim=-1)


def test_contrast_is_that_of_the_nearest_query_in_both_directions() -> None:
    model = small_model()
    batch = made_batch(model, range(6))
    found = objective(match=0, caption=0)(model, batch)
    states = model.bridge.query_states(model.image_tokens(batch))
    queries, texts = model.embedded_queries(states), model.embedded_texts(batch.tokens)
    similar = torch.stack([torch.stack([(queries[i] @ texts[j]).max() for j in range(6)]) for i in range(6)]) / 0.07
    own = torch.arange(6)
    expected = (smoothed(similar, own).mean() + smoothed(similar.T, own).mean()) / 2
    torch.testing.assert_close(found.total, expected)
    assert set(found.parts) == {"contrast", "batch_acc1"}


def test_caption_is_the_mean_of_each_text_s_mean_over_its_tokens() -> None:
    model = small_model()
    batch = made_batch(model, range(6))
    found = objective(match=0, contrast=0)(model, batch).total
    each = []
    for row in range(6):
        alone = batch.rows(torch.tensor([row]))
        count = int(alone.tokens.mask_BL.sum())
        states = model.writing_states(alone.tokens, model.bridge.query_states(model.image_tokens(alone)))
        logits = model.text.logits(states[0, : count - 1]).float()
        each.append(smoothed(logits, alone.tokens.ids_BL[0, 1:count]).mean())
    torch.testing.assert_close(found, torch.stack(each).mean())
    torch.testing.assert_close(objective(match=0, contrast=0, slice_size=3)(model, batch).total, found)


def test_matching_judges_true_pairs_and_as_many_wrong_ones_of_each_side() -> None:
    model = small_model()
    batch = made_batch(model, range(6))
    seen: list[Any] = []
    judge = model.match_logits
    model.match_logits = lambda image, tokens: seen.append((image, tokens)) or judge(image, tokens)
    found = objective(contrast=0, caption=0)(model, batch)
    ((image, tokens),) = seen
    own = model.image_tokens(batch)
    assert len(image) == 18 and torch.equal(image[:6], own) and torch.equal(image[12:], own)
    wrong_images = (image[6:12, None] == own[None]).flatten(2).all(dim=-1)
    assert wrong_images.sum() == 6 and not wrong_images.diagonal().any()
    assert torch.equal(tokens.ids_BL[:6], batch.tokens.ids_BL) and torch.equal(tokens.ids_BL[6:12], batch.tokens.ids_BL)
    wrong_texts = (tokens.ids_BL[12:, None] == batch.tokens.ids_BL[None]).all(dim=-1)
    assert wrong_texts.sum() == 6 and not wrong_texts.diagonal().any()
    target = torch.tensor([1] * 6 + [0] * 12)
    torch.testing.assert_close(found.total, functional.cross_entropy(judge(image, tokens), target))


def test_wrong_ones_are_drawn_as_often_as_they_seem_right() -> None:
    model = small_model()
    batch = made_batch(model, range(6))
    with torch.no_grad():
        model.log_scale.fill_(4.5)  # so that some are much likelier than others
        states = model.bridge.query_states(model.image_tokens(batch))
        queries, texts = model.embedded_queries(states), model.embedded_texts(batch.tokens)
        similar = model.scale * torch.einsum("ame,be->abm", queries, texts).amax(-1)
    expected = similar.fill_diagonal_(-1e9).softmax(dim=1)  # of image a, text b
    judge, drawn = model.match_logits, torch.zeros(6, 6)

    def count(image: torch.Tensor, tokens: Any) -> torch.Tensor:
        drawn.add_((tokens.ids_BL[12:, None] == batch.tokens.ids_BL[None]).all(dim=-1).float())
        return judge(image, tokens)

    model.match_logits = count
    torch.manual_seed(0)
    for _ in range(150):
        objective(contrast=0, caption=0)(model, batch)
    assert expected.max() > 0.5
    torch.testing.assert_close(drawn / 150, expected.float(), atol=0.12, rtol=0)


def test_pairs_of_one_concept_are_no_negatives_of_each_other() -> None:
    model = small_model()
    batch = made_batch(model, range(6), concepts=("a", "a", "a", "b", "b", "b"))
    seen: list[Any] = []
    judge = model.match_logits
    model.match_logits = lambda image, tokens: seen.append(image) or judge(image, tokens)
    own = model.image_tokens(batch)
    for seed in range(10):
        torch.manual_seed(seed)
        objective(contrast=0, caption=0)(model, batch)
        drawn = (seen[-1][6:12, None] == own[None]).flatten(2).all(dim=-1)
        assert not drawn[:3, :3].any() and not drawn[3:, 3:].any()
    alone = objective(contrast=0, caption=0)(model, made_batch(model, range(6), concepts=("a",) * 6))
    true_pairs = functional.cross_entropy(judge(own, batch.tokens), torch.ones(6, dtype=torch.int64))
    torch.testing.assert_close(alone.total, true_pairs / 3)


def test_weights_are_factors_and_gradients_reach_all_that_trains() -> None:
    model = small_model()
    batch = made_batch(model, range(6))
    torch.manual_seed(0)
    found = objective(contrast=2.0, match=3.0, caption=0.5)(model, batch)
    parts = found.parts
    torch.testing.assert_close(found.total, 2 * parts["contrast"] + 3 * parts["match"] + 0.5 * parts["caption"])
    found.total.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    assert len(objective().pieces(batch, 2)) == 1


def _on_rank(total: int) -> tuple[float, dict[str, torch.Tensor]]:
    ranks = Ranks.world()
    model, size = small_model(), total // ranks.size
    batch = made_batch(model, range(ranks.rank * size, (ranks.rank + 1) * size))
    with mock.patch("torch.multinomial", lambda shares, count: shares.argmax(dim=1, keepdim=True)):
        loss = objective(ranks=ranks)(model, batch).total
    loss.backward()
    mean = ranks.all_reduce(loss.detach().clone()) / ranks.size
    return float(mean), {
        name: ranks.all_reduce(weight.grad.clone()) / ranks.size for name, weight in model.named_parameters()
    }


def test_two_processes_have_the_loss_and_gradients_of_one() -> None:
    one, grads = _on_rank(6)
    for found, other in on_ranks(2, _on_rank, 6):
        assert abs(found - one) < 1e-5 * abs(one)
        for name, grad in grads.items():
            torch.testing.assert_close(other[name], grad, atol=1e-5 * float(grad.abs().max()) + 1e-9, rtol=1e-4)


def test_another_kind_of_model_is_refused() -> None:
    other = build(DualEncoderSpec(image=TinyImage(), text=TinyText()))
    with pytest.raises(VlkitError) as error:
        ImageTextQueries.build(ImageTextQueriesObjective(), other, Context())
    assert str(error.value) == (
        "the image_text_queries objective needs a model of kind query_former, and this one is of kind dual_encoder"
    )
