"""Names chosen by likelihood: ranks by definition, the same concepts in every language, ties against the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.evaluation.tasks.test_captioning import table
from tests.helpers.answering_fakes import COLORS, NAMES, ColorTeller, colored
from vlkit.errors import DataError
from vlkit.evaluation.results.answers import read_answers
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import open_suite, read_suite
from vlkit.evaluation.tasks.choices_task import ChoicesTask
from vlkit.evaluation.tasks.controls import blank_picture, swapped
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.spec.evaluation import SuiteSpec
from vlkit.types import Question

SAMPLES = [colored(color, number) for color in COLORS for number in range(3)]


def task(samples: Any = SAMPLES, **more: Any) -> ChoicesTask:
    return ChoicesTask("pick", samples, dict.fromkeys(NAMES, "What?"), **more)


class Weighs(ColorTeller):
    """Likelihoods as they are given: by answer, with and without an image; a token a letter."""

    def __init__(self, shown: dict[str, float], blank: dict[str, float]) -> None:
        super().__init__()
        self.shown, self.blank = shown, blank

    def log_likelihoods(self, questions: Sequence[Question], answers: Sequence[str], *, batch_size: int = 16) -> Tensor:
        rows = [
            [(self.shown if question.images else self.blank).get(answer, -5.0), float(len(answer))]
            for question, answer in zip(questions, answers, strict=True)
        ]
        return torch.tensor(rows)


def test_an_oracle_is_right_and_one_look_at_an_image_is_enough() -> None:
    model = ColorTeller()
    rows = evaluate_task(model, task(options=3))
    assert model.images_seen == len(SAMPLES) + 1  # a grey one
    for row in rows:
        assert row["acc1"] == row["acc1_per_token"] == row["acc1_gain"] == 1 == row["mean_reciprocal_rank"]
        assert row["chance"] == pytest.approx(1 / 3) and row["n_options"] == 3 and row["acc1_no_image"] == 0


def test_ranks_go_by_the_sum_the_mean_over_tokens_and_the_gain() -> None:
    shown = {"red": -3.0, "green": -4.0, "blue": -6.0, "yellow": -6.1}
    blank = {"red": -1.0, "green": -4.0, "blue": -6.5, "yellow": -6.1}
    (row,) = evaluate_task(Weighs(shown, blank), task(options=None), languages=["en"])
    # of all four names for each image, the sum says red, the mean green (-0.8), the gain blue (+0.5)
    assert row["acc1"] == row["acc1_per_token"] == row["acc1_gain"] == row["acc1_no_image"] == 0.25
    (detail,) = task(options=None).score(Weighs(shown, blank), ["en"])
    assert detail.answers is not None
    np.testing.assert_array_equal(detail.answers.answer_N, [0] * 12)
    np.testing.assert_array_equal(detail.answers.rank_N, np.repeat([1, 2, 3, 4], 3))
    assert row["mean_reciprocal_rank"] == pytest.approx(np.mean([1, 1 / 2, 1 / 3, 1 / 4]))


def test_the_same_names_are_weighed_without_the_image_with_a_grey_one_and_with_another() -> None:
    model = ColorTeller()
    opened = task(options=3)
    rows = {row.language: row for row in evaluate_task(model, opened)}
    others = swapped(list(range(12)), opened.targets, seed=0)
    for tag, row in rows.items():
        grey = model.log_likelihoods([Question("", (blank_picture(),), tag)] * 4, NAMES[tag])[:, 0].tolist()
        known = dict(zip(NAMES[tag], grey, strict=True))
        hits, elsewhere = [], []
        for number, one in opened.choices(tag).items():
            shown = SAMPLES[others[number]].captions[tag][0]  # what is seen in the image that is shown instead
            hits.append(all(known[one.texts[0]] > known[text] for text in one.texts[1:]))
            assert shown != one.texts[0]
            asked = [Question("", (SAMPLES[others[number]].image(),), tag)] * 3
            weights = model.log_likelihoods(asked, one.texts)[:, 0]
            elsewhere.append(bool((weights[0] > weights[1:]).all()))
        assert row["acc1_blank_image"] == np.mean(hits) and row["acc1_other_image"] == np.mean(elsewhere) < 0.5
        assert row["acc1_over_blank_image"] == pytest.approx(1 - np.mean(hits)) and row["acc1_over_no_image"] == 1
        assert (
            row["acc1_over_other_image_ci_low"] <= row["acc1_over_other_image"] <= row["acc1_over_other_image_ci_high"]
        )
    (plain,) = evaluate_task(model, task(options=3, controls=()), languages=["en"])
    assert (
        plain["acc1"] == 1
        and np.isnan([plain["acc1_gain"], plain["acc1_no_image"], plain["acc1_over_other_image"]]).all()
    )


def test_equal_likelihoods_count_against_the_right_name() -> None:
    (row,) = evaluate_task(Weighs({}, {}), task(options=2), languages=["en"])
    assert row["acc1"] == 0 and row["mean_reciprocal_rank"] == 0.5


def test_options_are_distinct_and_of_the_same_concepts_in_every_language() -> None:
    samples = [*SAMPLES, colored("red", 9, en=("Green!",))]  # named as another concept is
    chosen = {tag: task(samples, options=3).choices(tag, seed=1) for tag in NAMES}
    for row in range(12):
        of = {tag: chosen[tag][row].concepts for tag in NAMES}
        assert len(set(of.values())) == 1 and len(set(chosen["en"][row].texts)) == 3
    assert "green" not in task(samples, options=None).choices("en")[12].texts
    assert task(options=3).choices("en", seed=1) != task(options=3).choices("en", seed=2)
    only = task([colored("red"), colored("red", 1)])
    with pytest.raises(DataError, match="no language is left to score; en, de, zh left out: one name, which leaves"):
        only.choose(None)


def test_a_suite_with_options_of_its_own(tmp_path: Path) -> None:
    answers = {"en": ["Red", "blue", "green", "yellow"], "de": ["rot", "blau", "grün", "gelb"]}
    plain = {"kind": "choices", "name": "pick", "source": table(tmp_path), "answers": answers}
    spec = SuiteSpec.model_validate({"tasks": [plain]})
    names = {**NAMES, "en": ("Red", *NAMES["en"][1:])}
    results = evaluate(ColorTeller(names), spec, folder=tmp_path / "out", quiet=True)
    assert [(row.language, row["acc1"], row["n_options"]) for row in results.rows] == [("en", 1, 4), ("de", 1, 4)]
    kept = read_answers(tmp_path / "out", "pick", "de")
    assert kept is not None and (kept.rank_N == 1).all()
    assert "likeliest answer" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    again = evaluate(ColorTeller(names), spec, folder=tmp_path / "out", resume=True)
    assert again.rows == results.rows and "answers" not in again.meta["work"]
    wrong = SuiteSpec.model_validate({"tasks": [{**plain, "answers": {"de": ["ja", "nein"]}}]})
    with pytest.raises(DataError) as caught:
        open_suite(wrong)
    assert str(caught.value) == (
        "task 'pick', sample 'images/red-0.png' in de: its captions (rot) are none of the options (ja, nein); one of "
        "them must be right"
    )


def test_the_shipped_suite_is_whole() -> None:
    assert [one.name for one in read_suite("choices_openmoji").tasks] == ["openmoji-choices"]
