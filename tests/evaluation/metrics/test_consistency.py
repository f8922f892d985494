"""Consistency of images across languages: by hand, between its floor and its ceiling, CLIPScore by its formula."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor

from vlkit.errors import ShapeError
from vlkit.evaluation.metrics.consistency import (
    across_seeds,
    clip_scores,
    code_switching,
    cross_lingual,
    shuffled_clip_scores,
)


def drawn(*, noise: float, seed: int, prompts: int = 12, seeds: int = 3, width: int = 32) -> Tensor:
    """Images [P, S, E] that are what the prompt says, and some noise of their own."""
    concept_P1E = torch.randn(prompts, 1, width, generator=torch.Generator().manual_seed(99))
    own = torch.randn(prompts, seeds, width, generator=torch.Generator().manual_seed(seed))
    return F.normalize(concept_P1E + noise * own, dim=2)


def test_the_same_images_agree_wholly_and_noise_lies_between_floor_and_one() -> None:
    one = drawn(noise=0.5, seed=0)
    same = cross_lingual(one, [one])
    assert torch.allclose(same.value_P, torch.ones(12, dtype=torch.float64))
    other = cross_lingual(one, [drawn(noise=0.5, seed=1), drawn(noise=0.5, seed=2)])
    for value, floor in zip(other.value_P.tolist(), other.floor_P.tolist(), strict=True):
        assert floor < value < 1
    # independent noise: another language is as far away as another seed
    assert other.value_P.mean().item() == pytest.approx(other.ceiling_P.mean().item(), abs=0.02)
    assert other.floor_P.mean().abs() < 0.1


def test_images_that_ignore_the_prompt_are_at_the_floor() -> None:
    one, other = (
        F.normalize(torch.randn(200, 2, 8, generator=torch.Generator().manual_seed(seed)) + 1, dim=2) for seed in (0, 1)
    )
    found = cross_lingual(one, [other])
    assert found.value_P.mean().item() == pytest.approx(found.floor_P.mean().item(), abs=0.03)
    assert found.floor_P.mean() > 0.3  # a raw cosine would have looked like agreement


def test_figures_are_those_of_plain_loops() -> None:
    one, other = drawn(noise=1, seed=0, prompts=4, seeds=2), drawn(noise=1, seed=1, prompts=4, seeds=2)
    found = cross_lingual(one, [other])
    for p in range(4):
        assert found.value_P[p].item() == pytest.approx(sum(float(one[p, s] @ other[p, s]) for s in range(2)) / 2)
        strange = [
            (float(one[p, s] @ other[q, s]) + float(other[p, s] @ one[q, s])) / 2
            for s in range(2)
            for q in range(4)
            if q != p
        ]
        assert found.floor_P[p].item() == pytest.approx(sum(strange) / 6, abs=1e-6)
        assert found.ceiling_P[p].item() == pytest.approx(float(one[p, 0] @ one[p, 1]), abs=1e-6)
    assert torch.allclose(found.floor_P, cross_lingual(other, [one]).floor_P)
    assert torch.allclose(code_switching(one, other).ceiling_P, across_seeds(other))
    assert torch.equal(code_switching(one, other).value_P, found.value_P)


def test_what_cannot_be_known_is_nan_and_what_does_not_fit_is_told() -> None:
    one = drawn(noise=1, seed=0, prompts=1, seeds=1)
    found = cross_lingual(one, [one])
    assert found.value_P.item() == pytest.approx(1) and math.isnan(found.floor_P) and math.isnan(found.ceiling_P)
    assert math.isnan(shuffled_clip_scores(one, one[:, 0]))
    with pytest.raises(ShapeError, match="needs images in two languages or more"):
        cross_lingual(one, [])
    with pytest.raises(ShapeError, match=r"\[1, 1, 32\] and \[12, 3, 32\] must be of the same prompts and seeds"):
        cross_lingual(one, [drawn(noise=1, seed=0)])


def test_clip_score_is_its_formula_and_has_a_floor() -> None:
    image = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, 0.8]]])
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert clip_scores(image, text).tolist() == pytest.approx([1.25, 0.75])
    assert shuffled_clip_scores(image, torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == pytest.approx([1.25, 0.75])
