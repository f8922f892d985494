"""The scores against their definitions, written out in loops."""

from __future__ import annotations

import math
import re
from dataclasses import asdict

import numpy as np
import pytest

from tests.helpers.alignment_fakes import plain_scores
from vlkit.errors import VlkitError
from vlkit.evaluation.alignment import scores
from vlkit.evaluation.alignment.scores import pair_scores, ranker_layers

# cosines of unit vectors of the axes with these rows are the rows themselves, but for their lengths
FIVE = np.array(
    [
        [0.9, 0.1, 0.2, 0.0, 0.1],  # nearest both ways
        [0.1, 0.7, 0.7, 0.0, 0.1],  # a tie in its row: loses
        [0.2, 0.1, 0.8, 0.3, 0.1],  # nearest both ways
        [0.0, 0.2, 0.1, 0.5, 0.6],  # another row is nearer
        [0.1, 0.1, 0.1, 0.2, 0.4],  # beaten in its column
    ]
)


def five() -> tuple[np.ndarray, np.ndarray]:
    """Two sides whose cosines are FIVE / 2, exactly but for rounding: the rest of each length goes to own axes."""
    rest = np.diag(np.sqrt(1 - ((FIVE / 2) ** 2).sum(0)))
    pivot = np.concatenate([np.eye(5), np.zeros((5, 5))], axis=1)
    return pivot, np.concatenate([FIVE.T / 2, rest], axis=1)


def test_five_by_five_by_hand() -> None:
    found = pair_scores(*five())
    assert (found.n, found.n_excluded) == (5, 0)
    assert found.mexa == pytest.approx(2 / 5)
    assert found.p1_from_pivot == pytest.approx(3 / 5) and found.p1_to_pivot == pytest.approx(4 / 5)
    assert found.cosine == pytest.approx(np.diag(FIVE).mean() / 2)
    off = FIVE.sum() - np.trace(FIVE)
    assert found.margin == pytest.approx(np.diag(FIVE).mean() / 2 - off / 40)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("block", [1, 3, 1024])
def test_all_scores_equal_their_definitions(monkeypatch: pytest.MonkeyPatch, seed: int, block: int) -> None:
    monkeypatch.setattr(scores, "_BLOCK", block)
    random = np.random.default_rng(seed)
    pivot = random.normal(size=(17, 6))
    other = pivot + random.normal(size=(17, 6)) * random.uniform(0.2, 1.5)
    other[3], other[9], pivot[5] = other[4], other[10], pivot[6]  # repeated texts: ties
    for k in (1, 4, 40):
        found = asdict(pair_scores(pivot.astype(np.float32), other.astype(np.float32), csls_k=k))
        expected = plain_scores(pivot.astype(np.float32), other.astype(np.float32), k=k)
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_five_by_five_with_ties_equals_the_definitions() -> None:
    found = asdict(pair_scores(*five()))
    expected = plain_scores(*five())
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_equal_rows_lose_whatever_their_last_bits() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 96))
    rows[20:] = rows[:20]
    found = pair_scores(rows * random.uniform(1, 9, size=(40, 1)), rows * random.uniform(1, 9, size=(40, 1)))
    assert (found.mexa, found.p1_from_pivot, found.p1_to_pivot, found.csls_from_pivot) == (0, 0, 0, 0)
    assert pair_scores(rows[:20], rows[:20] * 3).mexa == 1


def test_chance_is_the_mean_over_shuffled_pairs() -> None:
    random = np.random.default_rng(3)
    pivot, other = random.normal(size=(12, 4)), random.normal(size=(12, 4))
    shuffled = [pair_scores(pivot, other[random.permutation(12)]).mexa for _ in range(4000)]
    chance = pair_scores(pivot, other).mexa_chance
    assert 0 < chance <= 1 / 12
    assert np.mean(shuffled) == pytest.approx(chance, abs=4 * np.std(shuffled) / math.sqrt(4000))


def test_scale_of_rows_does_not_matter_and_order_of_pairs_neither() -> None:
    random = np.random.default_rng(1)
    pivot, other = random.normal(size=(9, 5)), random.normal(size=(9, 5))
    order, sizes = random.permutation(9), random.uniform(0.1, 9, size=(9, 1))
    one, two = asdict(pair_scores(pivot, other)), asdict(pair_scores(pivot[order], (other * sizes)[order]))
    assert one == pytest.approx(two)


def test_pairs_that_are_not_finite_or_zero_are_left_out_and_counted() -> None:
    random = np.random.default_rng(2)
    pivot, other = random.normal(size=(10, 5)), random.normal(size=(10, 5))
    kept = pair_scores(pivot[3:], other[3:])
    pivot[0, 2], other[1], pivot[2, 0] = np.nan, 0, np.inf
    found = pair_scores(pivot, other)
    assert found.n_excluded == 3 and asdict(found) == pytest.approx({**asdict(kept), "n_excluded": 3})


def test_a_shared_direction_lifts_the_cosine_and_not_the_centred_one() -> None:
    random = np.random.default_rng(5)
    pivot, other = random.normal(size=(50, 8)), random.normal(size=(50, 8))
    shared = np.full(8, 30.0)
    found = pair_scores(pivot + shared, other + shared)
    assert found.cosine > 0.99 and abs(found.centred_cosine) < 0.2
    assert abs(found.margin) < 0.01


def test_a_few_huge_rows_do_not_decide_the_centred_cosine() -> None:
    random = np.random.default_rng(6)
    pivot, other = random.normal(size=(60, 16)), random.normal(size=(60, 16))
    pivot[:5], other[:3] = 1000 + pivot[:5], 1000 + other[:3]
    assert pair_scores(pivot[5:], other[5:]).centred_cosine == pytest.approx(0, abs=0.15)
    assert pair_scores(pivot, other).centred_cosine == pytest.approx(0, abs=0.25)


@pytest.mark.parametrize(
    ("depth", "layers"),
    [
        (32, (5, 10, 15, 20, 25)),
        (30, (5, 10, 15, 20, 25)),
        (28, (5, 10, 15, 20, 25)),
        (12, (2, 4, 6, 8, 9)),
        (64, (10, 20, 30, 40, 50)),
        (2, (1, 2)),
        (1, (1,)),
    ],
)
def test_layers_of_language_ranker(depth: int, layers: tuple[int, ...]) -> None:
    assert ranker_layers(depth) == layers


@pytest.mark.parametrize(
    ("pivot", "other", "message"),
    [
        (np.ones((3, 2)), np.ones((2, 2)), "embeddings of shapes (3, 2) and (2, 2)"),
        (np.ones(3), np.ones(3), "need two equal shapes [pairs, width]"),
        (np.ones((3, 2)), np.array([[1, 1], [0, 0], [np.nan, 1]]), "1 of 3 pairs have embeddings; need at least two"),
    ],
)
def test_what_does_not_fit_is_refused(pivot: np.ndarray, other: np.ndarray, message: str) -> None:
    with pytest.raises(VlkitError, match=re.escape(message)):
        pair_scores(pivot, other)
    with pytest.raises(VlkitError, match="csls_k = 0"):
        pair_scores(np.eye(3), np.eye(3), csls_k=0)
    with pytest.raises(VlkitError, match="depth = 0"):
        ranker_layers(0)
