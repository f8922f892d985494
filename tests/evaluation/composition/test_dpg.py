"""DPG from answers in files: parents, categories, the quirks of the published code behind a switch, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlkit.errors import DataError
from vlkit.evaluation.composition.dpg import (
    DpgAnswers,
    DpgQuestion,
    image_score,
    read_dpg_answers,
    read_dpg_questions,
    score_dpg,
)

# 3 hangs on 2, which hangs on 1; 4 stands alone
CHAIN = [DpgQuestion(3, (2,), "relation", "spatial"), DpgQuestion(2, (1,), "attribute", "color"),
         DpgQuestion(1, (), "entity", "whole"), DpgQuestion(4, (), "global", "global")]  # fmt: skip


def said(text: str) -> dict[int, str]:
    return {number: {"y": "yes", "n": "no"}.get(letter, letter) for number, letter in enumerate(text, start=1)}


@pytest.mark.parametrize(
    ("answers", "score", "compat"),
    [
        ("yyyy", 1.0, 1.0),
        ("nyyy", 0.25, 0.5),  # in the published order 3 is looked at before 2 has fallen
        ("ynyy", 0.5, 0.5),
        ("yyny", 0.75, 0.75),
        ("nnnn", 0.0, 0.0),
    ],
)
def test_a_question_whose_parent_fell_counts_as_no(answers: str, score: float, compat: float) -> None:
    assert image_score(CHAIN, said(answers)) == score
    assert image_score(CHAIN, said(answers), compat=True) == compat


def test_only_the_word_yes_is_yes_and_circles_end() -> None:
    assert image_score(CHAIN, {1: "Yes", 2: "yes", 3: "yes", 4: "yes"}) == 0.25
    circle = [DpgQuestion(1, (2,), "a", "b"), DpgQuestion(2, (1,), "a", "b")]
    assert image_score(circle, said("yy")) == 1 and image_score(circle, said("yn")) == 0
    assert image_score([DpgQuestion(1, (9,), "a", "b")], said("y")) == 1  # a parent that is no question


def test_scores_by_language_and_categories_of_all_images_or_the_last() -> None:
    questions = {"a": CHAIN, "b": CHAIN[2:]}
    rows = [DpgAnswers("a", "en", said("nyyy")), DpgAnswers("a", "en", said("yyyy")),
            DpgAnswers("b", "en", {1: "yes", 4: "no"}), DpgAnswers("b", "en", {1: "yes", 4: "yes"})]  # fmt: skip
    (one,) = score_dpg(questions, rows).languages
    assert one.score == pytest.approx(((0.25 + 1) / 2 + (0.5 + 1) / 2) / 2)
    assert one.parts["entity"] == 0.75 and one.parts["relation - spatial"] == 1  # as answered, whatever fell
    assert one.parts["global"] == 0.75 and one.images_per_prompt == 2 and one.prompts == 2
    (quirky,) = score_dpg(questions, rows, compat=True).languages
    assert quirky.score == pytest.approx(((0.5 + 1) / 2 + (0.5 + 1) / 2) / 2)
    assert quirky.parts["entity"] == 1 == quirky.parts["global"]
    both = score_dpg(questions, [*rows, *(DpgAnswers(row.item, "fa", said("nnnn")) for row in rows)])
    assert both.lowest.language == "fa" and both.mean == pytest.approx(one.score / 2)


_HEADER = "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple"
CSV = f"""{_HEADER},question_natural_language
p0,"a red, round dog",,1,0,entity,whole,entity - whole (dog),Is there a dog?
p0,"a red, round dog",,2,1,attribute,color,attribute - color (dog),Is the dog red?
p1,a cup,,1,"0",entity,whole,entity - whole (cup),Is there a cup?
p0,"a red, round dog",,3,"1,2",attribute,shape,attribute - shape (dog),Is the dog round?
"""


def test_files_of_the_published_form_are_read(tmp_path: Path) -> None:
    path = tmp_path / "dpg_bench.csv"
    path.write_text(CSV, encoding="utf-8")
    questions = read_dpg_questions(path)
    assert list(questions) == ["p0", "p1"] and questions["p0"][2] == DpgQuestion(3, (1, 2), "attribute", "shape")
    assert [one.number for one in read_dpg_questions(path, compat=True)["p0"]] == [2, 3]
    answers = tmp_path / "answers.jsonl"
    row = {"item": "p1", "language": "zh-CN", "answers": {"1": "yes"}}
    answers.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert read_dpg_answers(answers) == [DpgAnswers("p1", "zh", {1: "yes"})]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dependency", "parents", "dpg_bench.csv: no column dependency"),
        (",1,0,entity", ",one,0,entity", "dpg_bench.csv:2: proposition_id and dependency are numbers"),
        (",2,1,attribute", ",1,1,attribute", "dpg_bench.csv:3: question 1 of p0 stands twice"),
    ],
)
def test_questions_of_another_form_are_told(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "dpg_bench.csv"
    path.write_text(CSV.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_dpg_questions(path)
    assert message in str(caught.value)


def test_answers_that_are_missing_or_of_another_form_are_told(tmp_path: Path) -> None:
    rows = [DpgAnswers("a", "en", said("yyy"))]
    with pytest.raises(DataError, match="en, a: no answer to question 4"):
        score_dpg({"a": CHAIN}, rows)
    with pytest.raises(DataError, match=r"en: 1 of 2 prompts have no answers \(b\)"):
        score_dpg({"a": CHAIN, "b": CHAIN}, rows)
    with pytest.raises(DataError, match="answers about 'c', which the benchmark does not have"):
        score_dpg({"a": CHAIN}, [DpgAnswers("c", "en", said("yyyy"))])
    with pytest.raises(DataError, match="there are no answers"):
        score_dpg({"a": CHAIN}, [])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"language": "en", "answers": {}}, "item is missing"),
        ({"item": "a", "language": "en", "answers": {"one": "yes"}}, "invalid literal"),
        ({"item": "a", "language": "en", "answers": {"1": True}}, "True is no text"),
        ({"item": "a", "language": "en", "answers": []}, "no answers about an image"),
    ]
    path = tmp_path / "answers.jsonl"
    for row, message in cases:
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_dpg_answers(path)
