"""Shares, masks and step sizes of image codes: closed forms, exact counts, and words for what makes no sense."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from vlkit.errors import ShapeError, UnknownName, VlkitError
from vlkit.nn.code_masks import SCHEDULES, MaskDraws, commit_counts, draw_masks, first_of, masked_codes, masked_share

ALL = sorted(SCHEDULES)


def share(progress: float, schedule: str, power: float = 2.0) -> float:
    return float(masked_share(torch.tensor([progress], dtype=torch.float64), schedule, power=power))


def counts(unknown: int, steps: int, schedule: str = "cosine", power: float = 2.0) -> list[int]:
    return commit_counts(unknown, steps, schedule=schedule, power=power)


def masks(draws: MaskDraws, *, schedule: str = "cosine", least_share: float = 0.0) -> torch.Tensor:
    return masked_codes(draws, schedule=schedule, power=2.0, least_share=least_share)


@pytest.mark.parametrize("schedule", ALL)
def test_a_schedule_falls_from_all_to_none(schedule: str) -> None:
    shares = masked_share(torch.linspace(0, 1, 101, dtype=torch.float64), schedule, power=2.0)
    assert shares.dtype == torch.float64
    assert float(shares[0]) == 1 and float(shares[-1]) == pytest.approx(0, abs=1e-15)
    assert bool((shares.diff() < 0).all())


def test_schedules_have_their_closed_forms() -> None:
    assert share(1 / 3, "cosine") == pytest.approx(math.sqrt(3) / 2)
    assert share(0.3, "linear") == pytest.approx(0.7)
    assert share(0.3, "pow", 3.0) == pytest.approx(0.973)
    assert share(0.5, "arccos") == pytest.approx(2 / 3)

    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    wanted = (logistic(3) - logistic(-3 + 0.2 * 6)) / (logistic(3) - logistic(-3))
    assert share(0.2, "sigmoid") == pytest.approx(wanted)
    assert share(0.5, "sigmoid") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("schedule", "mean"),
    [("cosine", 2 / math.pi), ("linear", 0.5), ("pow", 2 / 3), ("sigmoid", 0.5), ("arccos", 2 / math.pi)],
)
def test_the_mean_share_of_training_is_the_integral(schedule: str, mean: float) -> None:
    uniforms = torch.rand(100_000, generator=torch.Generator().manual_seed(3))
    assert float(masked_share(uniforms, schedule, power=2.0).mean()) == pytest.approx(mean, abs=0.005)


def test_steps_are_those_of_the_published_samplers() -> None:
    fifty = counts(1024, 50)
    assert fifty[:10] == [1, 2, 2, 4, 4, 6, 6, 8, 8, 10] and fifty[-2:] == [32, 32]
    assert counts(1024, 12) == [9, 26, 43, 60, 74, 88, 101, 111, 121, 126, 132, 133]
    assert counts(256, 8) == [5, 15, 24, 31, 39, 45, 48, 49]
    assert sum(fifty[:25]) == 300  # 29 percent in half of the steps


def test_a_part_of_an_image_is_filled_in_steps_of_its_own() -> None:
    """Counted from all 1024 codes it would be one code in each of 21 steps, then 44, 63, 64, 64."""
    part = counts(256, 25)
    assert part[:8] == [1, 2, 2, 4, 4, 5, 7, 7] and part[-2:] == [16, 16]


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("power", [0.2, 2.0])
def test_every_step_finds_a_code_and_all_are_found(schedule: str, power: float) -> None:
    for unknown in (0, 1, 2, 7, 30):
        for steps in (1, 2, 7, 30, 100):
            found = counts(unknown, steps, schedule, power)
            assert sum(found) == unknown and len(found) == min(steps, unknown) and min(found, default=1) >= 1


def test_linear_steps_are_exact() -> None:
    """In floating point 10 * (1 - 9 / 10) is less than 1."""
    for unknown in (1, 2, 9, 10, 49, 60):
        for steps in range(1, unknown + 1):
            left = [math.floor(unknown * (1 - Fraction(step, steps))) for step in range(steps + 1)]
            assert counts(unknown, steps, "linear") == [a - b for a, b in pairwise(left)]


def test_cosine_steps_are_those_of_the_formula_where_no_step_would_be_empty() -> None:
    for unknown, steps in ((64, 8), (100, 10), (576, 18)):
        left = [unknown, *(math.floor(unknown * math.cos(math.pi * s / steps / 2)) for s in range(1, steps)), 0]
        assert counts(unknown, steps) == [a - b for a, b in pairwise(left)]


def test_masks_have_exactly_the_number_of_codes_that_is_due() -> None:
    draws = draw_masks(500, 64, generator=torch.Generator().manual_seed(0))
    hidden = masks(draws).sum(dim=1).tolist()
    due = [max(1, round(64 * math.cos(math.pi / 2 * float(u)))) for u in draws.share_B]
    assert hidden == due and len(set(hidden)) > 30
    assert masks(MaskDraws(torch.tensor([0.5]), torch.zeros(1, 8)), schedule="linear").tolist() == [
        [True] * 4 + [False] * 4
    ]


def test_a_mask_hides_at_least_one_code_and_at_least_the_least_share() -> None:
    ends = MaskDraws(torch.tensor([0.0, 1.0]), torch.rand(2, 10))
    assert masks(ends).sum(dim=1).tolist() == [10, 1]
    assert masks(ends, least_share=0.5).sum(dim=1).tolist() == [10, 5]
    draws = draw_masks(20_000, 4, generator=torch.Generator().manual_seed(1))
    assert int(masks(draws, least_share=0.5).sum(dim=1).min()) == 2


def test_masks_are_those_of_their_generator_and_of_no_row() -> None:
    one, same = (draw_masks(6, 16, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(masks(one), masks(same))
    alone = MaskDraws(one.share_B[3:4], one.order_BN[3:4])
    assert torch.equal(masks(alone)[0], masks(one)[3])


def test_every_place_and_every_pair_of_places_is_hidden_as_often() -> None:
    draws = draw_masks(40_000, 6, generator=torch.Generator().manual_seed(2))._replace(
        share_B=torch.full((40_000,), 0.5)
    )
    hidden = masks(draws, schedule="linear").float()
    assert hidden.mean(dim=0).tolist() == pytest.approx([0.5] * 6, abs=0.01)
    together = (hidden.T @ hidden / len(hidden))[~torch.eye(6, dtype=torch.bool)]
    assert together.tolist() == pytest.approx([0.2] * 30, abs=0.01)  # 3/6 * 2/5


def test_the_first_ones_are_exact_where_numbers_are_equal() -> None:
    chosen = first_of(torch.tensor([[2.0, 1, 1, 1], [0, 0, 0, 0]]), torch.tensor([2, 3]))
    assert chosen.tolist() == [[False, True, True, False], [True, True, True, False]]


def test_what_makes_no_sense_is_told() -> None:
    draws = MaskDraws(torch.rand(2), torch.rand(2, 4))
    with pytest.raises(VlkitError, match=r"^least_share = 1.5 is no share; give a number in 0..1$"):
        masks(draws, least_share=1.5)
    with pytest.raises(VlkitError, match=r"^least_share = -0.1 is no share; give a number in 0..1$"):
        masks(draws, least_share=-0.1)
    with pytest.raises(UnknownName, match=r"^no schedule 'cosin'; did you mean 'cosine'\?$"):
        masks(draws, schedule="cosin")
    with pytest.raises(
        ShapeError,
        match=r"^draws of masks are \[B\] for the shares and \[B, N\] for the order, and these are \[3\] and \[2, 4\]$",
    ):
        masks(MaskDraws(torch.rand(3), torch.rand(2, 4)))
    with pytest.raises(VlkitError, match=r"^the progress of a schedule lies in 0..1, and here it goes from -1 to 2$"):
        masked_share(torch.tensor([-1.0, 2.0]), "linear", power=1.0)
    with pytest.raises(VlkitError, match=r"^power = 0 is not above 0; take 2 for a parabola, 1 for a line$"):
        counts(4, 2, "pow", 0.0)
    with pytest.raises(VlkitError, match=r"^steps = 0 makes no code known; give 1 or more$"):
        counts(4, 0)
    with pytest.raises(VlkitError, match=r"^unknown = -1 is no number of codes; give 0 or more$"):
        counts(-1, 3)
