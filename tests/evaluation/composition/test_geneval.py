"""GenEval from synthetic boxes: objects, counts, colours, positions, thresholds, scores by language, errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.composition.boxes import FoundObject
from vlkit.evaluation.composition.geneval import (
    Clause,
    Detections,
    GenEvalPrompt,
    holds,
    read_detections,
    read_geneval_prompts,
    score_geneval,
)


def found(name: str, score: float = 0.8, *, x: float = 0, y: float = 0, color: str = "") -> FoundObject:
    return FoundObject(name, score, (x, y, x + 10, y + 10), color)


def prompt(tag: str, *include: Clause, exclude: tuple[Clause, ...] = ()) -> GenEvalPrompt:
    return GenEvalPrompt(tag, include, exclude)


ONE = prompt("single_object", Clause("dog", 1))
TWO = prompt("two_object", Clause("dog", 1), Clause("cup", 1))
THREE = prompt("counting", Clause("dog", 3), exclude=(Clause("dog", 4),))
RED = prompt("colors", Clause("dog", 1, "red"))
LEFT = prompt("position", Clause("cup", 1), Clause("dog", 1, position=("left of", 0)))
BOTH = prompt("color_attr", Clause("dog", 1, "red"), Clause("cup", 1, "blue"))


def test_objects_count_above_their_threshold() -> None:
    assert holds(ONE, [found("dog", 0.31)]) and not holds(ONE, [found("dog", 0.3)]) and not holds(ONE, [found("cat")])
    assert holds(ONE, [found("dog"), found("dog")])  # more than one is right, too
    assert holds(TWO, [found("cup"), found("dog")]) and not holds(TWO, [found("dog"), found("dog")])


def test_counting_wants_the_very_number_of_certain_objects() -> None:
    sure = [found("dog", 0.91)] * 3
    assert holds(THREE, sure) and not holds(THREE, sure[:2]) and not holds(THREE, [*sure, sure[0]])
    assert holds(THREE, [*sure, found("dog", 0.9)])  # one that does not count
    many = prompt("counting", Clause("dog", 16), exclude=(Clause("dog", 17),))
    assert holds(many, [found("dog", 0.95)] * 20)  # no more than 16 of a class are looked at


def test_colors_are_of_the_most_certain_objects() -> None:
    assert holds(RED, [found("dog", color="red")]) and not holds(RED, [found("dog", color="blue")])
    assert holds(RED, [found("dog", 0.5, color="blue"), found("dog", 0.9, color="red")])
    assert not holds(RED, [found("dog", 0.9, color="blue"), found("dog", 0.5, color="red")])
    assert holds(BOTH, [found("dog", color="red"), found("cup", color="blue")])
    assert not holds(BOTH, [found("dog", color="blue"), found("cup", color="red")])
    with pytest.raises(DataError, match=r"no color is said of a dog with score 0\.8, .* asks for a red one"):
        holds(RED, [found("dog")])


def test_positions_are_to_what_was_found_for_the_other_clause() -> None:
    assert holds(LEFT, [found("dog", x=0), found("cup", x=100)])
    assert not holds(LEFT, [found("dog", x=100), found("cup", x=0)])
    assert not holds(LEFT, [found("dog", x=0)])
    several = prompt("position", Clause("cup", 2), Clause("dog", 1, position=("left of", 0)))
    assert holds(several, [found("dog", x=0), found("cup", x=100), found("cup", x=50)])
    assert not holds(several, [found("dog", x=60), found("cup", x=100), found("cup", x=0)])  # left of one alone
    wrong_color = prompt("position", Clause("cup", 1, "red"), Clause("dog", 1, position=("left of", 0)))
    assert not holds(wrong_color, [found("dog", x=0), found("cup", x=100, color="blue")])


def test_scores_are_means_of_tasks_by_language() -> None:
    prompts = [ONE, ONE, ONE, RED]
    right, wrong = (found("dog", color="red"),), ()
    rows = [Detections(number, "en", right) for number in range(4) for _ in range(2)]
    rows += [Detections(number, "hi", right if number in (0, 3) and image else wrong)
             for number in range(4) for image in (False, True)]  # fmt: skip
    scores = score_geneval(prompts, rows)
    english, hindi = scores.languages
    assert english.score == 1 and english.parts == {"single_object": 1, "colors": 1}
    assert hindi.parts == {"single_object": pytest.approx(1 / 6), "colors": 0.5}
    assert hindi.score == pytest.approx((1 / 6 + 0.5) / 2)  # tasks weigh alike, however many prompts they have
    assert hindi.interval.low <= hindi.score <= hindi.interval.high and hindi.images_per_prompt == 2
    assert scores.mean == pytest.approx((1 + 1 / 3) / 2) and scores.lowest == hindi
    assert scores.std == pytest.approx(abs(1 - 1 / 3) / 2**0.5)
    assert scores.part_means["colors"] == 0.75 and json.loads(json.dumps(scores.plain()))["lowest"] == "hi"
    assert scores.summary() == "GenEval: 66.7 ± 47.1 over 2 languages, images of a prompt: 2"


def test_prompts_without_images_are_told_and_not_left_out() -> None:
    row = Detections(0, "en", (found("dog"),))
    with pytest.raises(DataError, match=r"en: 1 of 2 prompts have no detections \(1\)"):
        score_geneval([ONE, ONE], [row])
    with pytest.raises(DataError, match=r"en: prompts have 1 to 2 images; .* \(prompts of 1: 1\)"):
        score_geneval([ONE, ONE], [row, row, Detections(1, "en", ())])
    with pytest.raises(UnknownName, match="prompt"):
        score_geneval([ONE], [Detections(1, "en", ())])
    with pytest.raises(DataError, match=r"image 1 \(prompt 0, en\): no color is said"):
        score_geneval([RED], [row])
    with pytest.raises(DataError, match="there are no detections"):
        score_geneval([ONE], [])


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


PUBLISHED: list[dict[str, Any]] = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {"tag": "counting", "include": [{"class": "bus", "count": 2}], "exclude": [{"class": "bus", "count": 3}],
     "prompt": "دو اتوبوس"},
    {"tag": "position", "prompt": "", "include": [{"class": "cup", "count": 1},
     {"class": "dog", "count": 1, "position": ["left of", 0]}]},
    {"tag": "colors", "include": [{"class": "car", "count": 1, "color": "pink"}], "prompt": "a pink car"},
]  # fmt: skip


def test_files_of_the_published_form_are_read(tmp_path: Path) -> None:
    prompts = read_geneval_prompts(write(tmp_path / "prompts.jsonl", *PUBLISHED))
    assert prompts[1] == GenEvalPrompt("counting", (Clause("bus", 2),), (Clause("bus", 3),))
    assert prompts[2].include[1].position == ("left of", 0) and prompts[3].include[0].color == "pink"
    one = {"prompt": 3, "language": "jp", "objects": [
        {"class": "car", "score": 0.9, "box": [0, 1, 2, 3], "color": "pink"}]}  # fmt: skip
    (row,) = read_detections(write(tmp_path / "found.jsonl", one))
    assert row == Detections(3, "ja", (FoundObject("car", 0.9, (0, 1, 2, 3), "pink"),)) and holds(
        prompts[3], row.objects
    )
    assert "mmdet" not in sys.modules


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"include": [{"class": "cup"}]}, ":1: no prompt of GenEval: count is missing"),
        ({"include": [{"class": "cup", "count": 0}]}, "count is 0, not a number from 1"),
        ({"include": [{"class": "cup", "count": 1, "color": "mauve"}]}, "color is 'mauve'; it is one of red, orange"),
        ({"include": [{"class": "cup", "count": 1, "position": ["left of", 0]}]}, "and an earlier clause"),
        ({"tag": ""}, "'' is no text"),
    ],
)
def test_prompts_of_another_form_are_told(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_geneval_prompts(write(tmp_path / "prompts.jsonl", {**PUBLISHED[0], **change}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": [{"class": "cup", "score": 0.5, "box": [1, 2, 3]}]}, ":1: no detections of an image: not enough"),
        ({"objects": [{"class": "cup", "score": 5, "box": [1, 2, 3, 4]}]}, "the score in 0..1"),
        ({"prompt": "3"}, "prompt is '3', not a whole number"),
        ({"objects": None}, "no detections of an image"),
    ],
)
def test_detections_of_another_form_are_told(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_detections(write(tmp_path / "found.jsonl", {"prompt": 0, "language": "en", "objects": [], **change}))
    assert message in str(caught.value)
