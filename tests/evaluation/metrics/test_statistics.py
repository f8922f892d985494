from __future__ import annotations

import math

import numpy as np
import pytest

from vlkit.errors import VlkitError
from vlkit.evaluation.metrics.intervals import bootstrap_interval, chance, chance_corrected, wilson_interval


def test_chance_corrected_is_zero_at_chance_and_one_when_all_is_right():
    assert chance(4) == 0.25
    assert chance_corrected(0.25, 4) == 0.0
    assert chance_corrected(1.0, 4) == 1.0
    assert chance_corrected(0.0, 4) == pytest.approx(-1 / 3)
    assert math.isnan(chance_corrected(1.0, 1))


def test_wilson_agrees_with_its_defining_equation():
    z = 1.959963984540054
    low, high = wilson_interval(12, 80)
    for end in (low, high):  # the ends are where the score test is just significant
        assert abs(12 / 80 - end) / math.sqrt(end * (1 - end) / 80) == pytest.approx(z)
    assert wilson_interval(0, 10).low == 0.0 and wilson_interval(0, 10).high > 0.2
    assert wilson_interval(10, 10).high == 1.0 and wilson_interval(10, 10).low < 0.8


def _brute_force(hits, classes, *, replicates, seed):
    """Resamples classes, then images, one by one."""
    rng = np.random.default_rng(seed)
    by_class = [
        [hit for hit, name in zip(hits, classes, strict=True) if name == wanted] for wanted in sorted(set(classes))
    ]
    means = []
    for _ in range(replicates):
        drawn = []
        for place in rng.integers(len(by_class), size=len(by_class)):
            members = by_class[place]
            drawn += [members[i] for i in rng.integers(len(members), size=len(members))]
        means.append(np.mean(drawn))
    return np.quantile(means, [0.025, 0.975])


def test_bootstrap_agrees_with_resampling_one_by_one():
    rng = np.random.default_rng(3)
    classes = np.repeat(np.arange(25), rng.integers(1, 9, size=25))
    hits = rng.random(len(classes)) < rng.beta(1, 2, size=25)[classes]
    ours = bootstrap_interval(hits, classes, replicates=4000)
    assert ours == pytest.approx(_brute_force(hits, classes, replicates=2000, seed=5), abs=0.015)


def test_bootstrap_is_wider_when_classes_stand_or_fall_together():
    hits = np.repeat([True, False] * 10, 20)
    together = bootstrap_interval(hits, np.repeat(np.arange(20), 20))
    apart = bootstrap_interval(hits, np.arange(400))
    assert together.high - together.low > 3 * (apart.high - apart.low)


@pytest.mark.parametrize(("per_class", "num_classes"), [(1, 300), (8, 60)])
def test_bootstrap_covers_the_truth_about_95_times_in_100(per_class, num_classes):
    rng = np.random.default_rng(11)
    truth, trials, covered = 0.25, 300, 0
    classes = np.repeat(np.arange(num_classes), per_class)
    for trial in range(trials):
        easy = rng.beta(2 * truth, 2 * (1 - truth), size=num_classes)  # mean: truth
        hits = rng.random(len(classes)) < easy[classes]
        low, high = bootstrap_interval(hits, classes, seed=trial, replicates=300)
        covered += low <= truth <= high
    assert 0.91 <= covered / trials <= 0.985  # three standard errors around 93..97 %


def test_same_seed_same_bits_other_seed_other_interval():
    hits = np.random.default_rng(0).random(200) < 0.3
    assert bootstrap_interval(hits, np.arange(200), seed=4) == bootstrap_interval(hits, np.arange(200), seed=4)
    assert bootstrap_interval(hits, np.arange(200), seed=4) != bootstrap_interval(hits, np.arange(200), seed=5)


def test_names_of_classes_do_not_matter():
    hits = np.random.default_rng(0).random(60) < 0.3
    classes = np.repeat(np.arange(20), 3)
    assert bootstrap_interval(hits, classes) == bootstrap_interval(hits, 7 * classes + 100)


def test_all_or_nothing_falls_back_to_wilson():
    assert bootstrap_interval([False] * 30, range(30)) == wilson_interval(0, 30)
    assert bootstrap_interval([True] * 30, range(30)) == wilson_interval(30, 30)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chance(0), "num_classes = 0: chance needs at least one class"),
        (lambda: wilson_interval(3, 2), "hits = 3, count = 2: need 0 <= hits <= count and at least one trial"),
        (
            lambda: bootstrap_interval([], []),
            r"hits \(0,\) and classes \(0,\) must be two lists of one length, not empty",
        ),
        (lambda: bootstrap_interval([1, 0], [1]), r"hits \(2,\) and classes \(1,\) must be"),
        (lambda: bootstrap_interval([1], [1], replicates=0), "replicates = 0, level = 0.95: need replicates >= 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(VlkitError, match=message):
        call()
