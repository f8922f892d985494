"""Answers compared with the right ones: by hand, and intervals against a plain bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from vlkit.evaluation.metrics.intervals import wilson_interval
from vlkit.evaluation.metrics.question_match import (
    exact_match,
    named_letter,
    named_option,
    relaxed_match,
    vqa_clean,
)
from vlkit.evaluation.metrics.share_estimates import share_estimates


@pytest.mark.parametrize(
    ("said", "cleaned"),
    [
        ("The two dogs.", "2 dogs"),
        (" A   Bus!\n", "bus"),
        ("None", "0"),
        ("3.5", "3.5"),
        ("1,000", "1000"),  # a comma between digits is taken out
        ("left/right", "left right"),
        ("left / right", "left right"),
        ("dont", "don't"),
        ("couldnt've, couldn'tve", "couldn't've couldn't've"),
        ("twas", "'twas"),
        ("e.g. a.b", "eg ab"),
        ("ein Bus", "ein bus"),
    ],
)
def test_vqa_cleaning(said: str, cleaned: str) -> None:
    assert vqa_clean(said) == cleaned


def test_exact_and_relaxed() -> None:
    assert exact_match(" YES ", ["no", "yes"]) and not exact_match("yes.", ["yes"])
    assert exact_match("cafe\u0301", ["caf\u00e9"])  # NFC on both sides
    assert relaxed_match("Yes, it is", ["yes"]) and relaxed_match("It is red", ["red"])
    assert not relaxed_match("a red bus", ["red"]) and not relaxed_match("anything", [""])


def test_which_option_is_named() -> None:
    options = ["a red bus", "bus", "red", "red"]
    assert named_letter("B", options, language="en") == 1 == named_letter("(b) something", options, language="en")
    assert named_letter("A red bus", options, language="en") == 0  # not the letter, the text
    assert named_letter("E", options, language="en") is None and named_letter("", options, language="en") is None
    assert named_letter("Option D.", options, language="en") == 3
    assert named_option("Bus, I think", options, language="en") == 1
    assert named_option("red", options, language="en") is None  # two are equal
    assert named_option("buses", options, language="en") is None
    assert named_option("不是的", ["是", "不是"], language="zh") == 1  # without blanks between words


def test_intervals_are_those_of_a_plain_bootstrap_over_images() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(80), 3)
    right = rng.random(240) < 0.6
    other = rng.random(240) < 0.3
    own, gaps = share_estimates({"a": right, "b": right}, groups.tolist(), against={"a": other}, seed=0)
    means, apart = [], []
    for _ in range(2000):
        rows = np.concatenate([3 * one + rng.integers(3, size=3) for one in rng.integers(80, size=80)])
        means.append(right[rows].mean())
        apart.append(right[rows].mean() - other[rows].mean())
    assert own["a"].value == right.mean() and own["b"] == own["a"] and list(gaps) == ["a"]
    assert own["a"].interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)
    assert gaps["a"].value == pytest.approx(right.mean() - other.mean())
    assert gaps["a"].interval == pytest.approx(np.quantile(apart, [0.025, 0.975]), abs=0.025)
    all_right, _ = share_estimates({"a": np.ones(5)}, [0, 0, 1, 1, 2], against={}, seed=0)
    assert all_right["a"].interval == wilson_interval(5, 5)
