"""What a bridge to a denoiser learns from: equal to a few lines of plain torch, whole and in pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlkit.errors import VlkitError
from vlkit.models.diffusion_bridge.batch import ParallelBatch
from vlkit.models.registry import build
from vlkit.objectives.conditions.condition_distillation import ConditionDistillation
from vlkit.objectives.context import Context
from vlkit.spec.diffusion import MulanSpec, PaintingSpec, PeaSpec, TinyPipelineSpec
from vlkit.spec.image_tokenizers import ConvTokenizerSpec
from vlkit.spec.model import DiffusionBridgeSpec, ImageTokenizerModelSpec
from vlkit.spec.objectives import ConditionDistillationObjective
from vlkit.spec.parts import TinyText

ENGLISH = ("a dog", "a red cat", "rain")


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    spec = DiffusionBridgeSpec(text=TinyText(width=16, depth=1), bridge=PeaSpec(hidden=8), pipeline=TinyPipelineSpec())
    made: Any = build(spec)
    made.text.requires_grad_(False)
    return made


@pytest.fixture
def batch(model: Any) -> ParallelBatch:
    tokens = model.text.tokenize(["ein Hund", "eine rote Katze", "Regen"])
    return ParallelBatch(tokens, ENGLISH, seeds=(4, 5, 6), languages=("de",) * 3)


def objective(model: Any, **factors: float) -> ConditionDistillation:
    return ConditionDistillation.build(ConditionDistillationObjective(**factors), model, Context())


def test_it_is_the_weighted_sum_of_squared_differences(model: Any, batch: ParallelBatch) -> None:
    found = objective(model)(model, batch)
    unet, kept = model.pipeline.pipeline.unet, []
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    hooks = [
        one.register_forward_hook(lambda _, __, out: kept.append(out[0] if type(out) is tuple else out))
        for one in blocks
    ]
    asked = model.pipeline.noised(batch.seeds)
    states = (model.conditions(batch.tokens), model.pipeline.english(ENGLISH))
    with torch.no_grad():
        noises = [unet(asked.latents_Bchw, asked.steps_B, one).sample for one in states]
    for hook in hooks:
        hook.remove()
    half = len(kept) // 2
    features = sum(((a - b) ** 2).mean() for a, b in zip(kept[:half], kept[half:], strict=True))
    parts = [((states[0] - states[1]) ** 2).mean(), ((noises[0] - noises[1]) ** 2).mean(), features]
    assert half == 5 and all(part > 0 for part in parts)
    for name, part in zip(("states", "noise", "features"), parts, strict=True):
        assert torch.allclose(found.parts[name], part, rtol=1e-4)
    assert torch.allclose(found.total, parts[0] + parts[1] + 0.1 * parts[2], rtol=1e-5)


def test_gradients_reach_the_bridge_through_the_denoiser_and_nothing_else(model: Any, batch: ParallelBatch) -> None:
    model.zero_grad()
    objective(model, states=0.0)(model, batch).total.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in model.bridge.parameters())
    frozen = (model.text, model.pipeline.pipeline.unet, model.pipeline.pipeline.text_encoder)
    assert all(weight.grad is None for part in frozen for weight in part.parameters())


def test_pieces_add_up_to_the_batch(model: Any, batch: ParallelBatch) -> None:
    whole = objective(model)
    pieces = whole.pieces(batch, 2)
    assert [len(piece.batch) for piece in pieces] == [2, 1]
    total = sum(piece.weight * whole(model, piece.batch).total for piece in pieces)
    assert torch.allclose(total, whole(model, batch).total, rtol=1e-5)


def test_who_says_the_same_has_nothing_to_learn(
    model: Any, batch: ParallelBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "conditions", lambda tokens: model.pipeline.english(batch.english))
    assert objective(model)(model, batch).total.abs() < 1e-8


def test_a_translation_then_paints_what_the_english_text_does() -> None:
    german, settings = ["ein Hund", "eine rote Katze", "Regen"], PaintingSpec(seed=5, steps=4, guidance=3.0)
    torch.manual_seed(0)
    spec = DiffusionBridgeSpec(text=TinyText(width=16, depth=1), bridge=MulanSpec(heads=2), pipeline=TinyPipelineSpec())
    made: Any = build(spec)
    pipeline, loss = made.pipeline, objective(made)
    painted = pipeline.images(pipeline.english(ENGLISH), pipeline.english([""])[0], count=1, painting=settings)
    optimizer = torch.optim.Adam(made.bridge.parameters(), lr=1e-2)
    for step in range(60):
        seeds = tuple(range(3 * step, 3 * step + 3))
        batch = ParallelBatch(made.text.tokenize(german), ENGLISH, seeds=seeds, languages=("de",) * 3)
        optimizer.zero_grad()
        loss(made, batch).total.backward()
        optimizer.step()
    own = made.generate(german, language="de", seed=5, steps=4, guidance=3.0)
    pixels = [torch.tensor([list(one.tobytes()) for one in images]).float() for images in (own, painted)]
    distances = torch.cdist(pixels[0], pixels[1], p=1)
    others = distances.clone().fill_diagonal_(torch.inf).min(dim=1).values
    assert (distances.diagonal() < others / 2).all()


def test_without_noise_and_features_no_denoiser_is_asked(
    model: Any, batch: ParallelBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.pipeline, "denoised", None)
    found = objective(model, noise=0.0, features=0.0, states=2.0)(model, batch)
    assert set(found.parts) == {"states"} and torch.allclose(found.total, 2 * found.parts["states"])


def test_what_it_cannot_teach_is_refused(model: Any) -> None:
    with pytest.raises(VlkitError, match="states, noise and features are all 0; at least one of them is to be learned"):
        objective(model, states=0.0, noise=0.0, features=0.0)
    other = build(ImageTokenizerModelSpec(tokenizer=ConvTokenizerSpec(image_size=16, widths=(8,), levels=(5, 3))))
    with pytest.raises(VlkitError, match="needs a model of kind diffusion_bridge, and this one is of kind image"):
        objective(other)
