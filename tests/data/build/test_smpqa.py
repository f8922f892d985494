"""Laws of plots with words: the same plots and questions in every language, as many of yes as of no, words that fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tests.helpers.font_factory import small_font
from vlkit.data.build import smpqa
from vlkit.data.build.chart_drawing import MAX_EMS, draw_chart, label_slots
from vlkit.data.build.chart_plans import COLORS, ChartPlan, chart_plans, questions_about
from vlkit.data.build.chart_words import begins_as, find_words, in_order
from vlkit.data.build.fonts import Face, FontPair, packaged_fonts
from vlkit.data.build.lettering import Lettering
from vlkit.data.build.smpqa import build_smpqa
from vlkit.data.questions.open_set import open_set
from vlkit.data.sources.dialogues import read_dialogues
from vlkit.errors import DataError, VlkitError
from vlkit.files import sha256
from vlkit.spec.question_sets import Smpqa

SANS = Face(packaged_fonts() / "DejaVuSans.ttf", 0, "DejaVu Sans", weight=400, width=5, italic=False)
LATIN = Lettering(FontPair(SANS, None, "Latn"), "de")
PLANS = [plan for seed in range(4) for plan in chart_plans(seed, 50)]


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a font that has all that words of these tests need."""
    folder = tmp_path_factory.mktemp("fonts")
    small_font(folder / "small.ttf", "".join(map(chr, (*range(0x20, 0x7F), *range(0xC0, 0x180), *range(0x400, 0x460)))))
    return folder


def built(folder: Path, font: Path, **more: Any) -> Path:
    return build_smpqa(
        folder, **{"languages": ["en", "ru"], "fonts": font, "plots": 4, "workers": 0, "quiet": True} | more
    )


def records(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


# plans ----------------------------------------------------------------------------------------------------------------


def test_a_set_has_fifty_bar_plots_and_fifty_pies_with_eight_and_five_questions_each() -> None:
    plans = chart_plans(0, smpqa.PLOTS // 2)
    assert Counter(plan.kind for plan in plans) == {"bar": 50, "pie": 50}
    answers = Counter(question.answer for plan in plans for question in questions_about(plan, 0))
    assert answers == {True: 400, False: 400, None: 500}
    assert len({plan.size for plan in plans}) > 20 and {plan.level for plan in plans} == {True, False}
    assert any(any(plan.apart) for plan in plans)
    assert chart_plans(0, 3)[:3] == plans[:3] and chart_plans(1, 3) != chart_plans(0, 3)


@pytest.mark.parametrize("plan", PLANS[::7], ids=lambda plan: plan.name)
def test_answers_are_those_of_the_plot(plan: ChartPlan) -> None:
    what = {"bar": "bar", "pie": "slice"}[plan.kind]
    ranked = sorted(range(len(plan.values)), key=lambda part: plan.values[part])
    ends = {"smallest": ranked[0], "biggest": ranked[-1]}
    wanted = Counter[tuple[str, bool | None]]()
    for question in questions_about(plan, 5):
        end = next((end for end in ends if end in question.text), None)
        color = next((color for color in COLORS if f" {color}" in question.text), "")
        if question.answer is None:
            assert question.text == f"What is the label of the {end or color} {what}?"
            assert question.part == ends[end] if end else plan.colors[question.part] == color
        elif end:
            assert question.text == f"Is the {what} with label '{{label}}' the {end}?"
            assert question.answer == (question.part == ends[end])
        else:
            assert question.text == f"Is the {what} with label '{{label}}' colored in {color}?"
            assert question.answer == (plan.colors[question.part] == color) and color in plan.colors
        wanted[end or "color", question.answer] += 1
    assert wanted == {
        ("biggest", True): 1, ("biggest", False): 1, ("smallest", True): 1, ("smallest", False): 1, ("color", True): 2,
        ("color", False): 2, ("biggest", None): 1, ("smallest", None): 1, ("color", None): 3,
    }  # fmt: skip


def test_the_biggest_and_the_smallest_part_can_be_told_by_eye_and_colors_are_different() -> None:
    for plan in PLANS:
        ranked = sorted(plan.values)
        least = 8 if plan.kind == "bar" else 4
        assert ranked[-1] - ranked[-2] >= least and ranked[1] - ranked[0] >= least
        assert len(set(plan.colors)) == len(plan.values) == len(plan.apart)
        assert plan.kind == "bar" or sum(plan.values) == 100


# drawing --------------------------------------------------------------------------------------------------------------


def test_every_place_holds_the_widest_word_and_lies_on_the_picture() -> None:
    for plan in PLANS:
        for slot in label_slots(plan):
            left, top, right, bottom = slot.area
            assert left >= 0 and top >= 0 and right <= plan.size[0] and bottom <= plan.size[1]
            assert slot.width >= MAX_EMS * 12 and slot.height >= 1.6 * 12


@pytest.mark.parametrize("plan", PLANS[::37], ids=lambda plan: plan.name)
def test_words_change_nothing_but_the_pixels_of_their_places(plan: ChartPlan) -> None:
    count = len(plan.values)
    bare = np.asarray(draw_chart(plan, (), None), int)
    words = [f"Wört{'g' * number}" for number in range(count)]
    changed = np.abs(np.asarray(draw_chart(plan, words, LATIN), int) - bare).max(axis=2) > 40
    for slot in label_slots(plan):
        left, top, right, bottom = (round(side) for side in slot.area)
        assert changed[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2].sum() > 60
        changed[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = False
    assert changed.sum() == 0


def test_bars_are_as_long_as_their_values_and_slices_as_large_as_their_shares() -> None:
    for plan in (PLANS[0], PLANS[1], PLANS[2], *PLANS[50:53]):
        pixels = np.asarray(draw_chart(plan, (), None), int)
        counts = [
            (np.abs(pixels - np.array(COLORS[color])).max(axis=2) < 6).sum() / value
            for color, value in zip(plan.colors, plan.values, strict=True)
        ]
        assert np.std(counts) / np.mean(counts) < 0.06, plan


# words ----------------------------------------------------------------------------------------------------------------


def test_countries_are_the_same_ones_in_all_languages() -> None:
    words = find_words("countries", ["en", "zu", "ru", "zh", "th", "ar", "hi"])
    assert words["en"]["DE"] == "Germany" and words["zu"]["DE"] == "i-Germany" and words["th"]["DE"] == "เยอรมนี"
    assert all(len(keyed) > 150 and "EU" not in keyed for keyed in words.values())
    assert not any(set("'\"()&.0123456789") & set(word) for keyed in words.values() for word in keyed.values())


def test_emoji_and_own_lists_give_words_too(tmp_path: Path) -> None:
    assert find_words("emoji", ["de"])["de"]["🍌"] == "banane"
    (tmp_path / "de.txt").write_text("Haus\n\nrot's\nyes\nBaum\n", encoding="utf-8")
    assert find_words(tmp_path, ["de"]) == {"de": {"0": "Haus", "3": "Baum"}}
    with pytest.raises(
        DataError, match=r"--words emoji: no words in sw, zu; give lists of your own \(--words DIR with"
    ):
        find_words("emoji", ["de", "sw", "zu"])
    with pytest.raises(DataError, match=rf"{tmp_path}: no text in fr \(French\); there are: de"):
        find_words(tmp_path, ["de", "fr"])


def test_no_word_of_a_plot_begins_as_another_one() -> None:
    assert begins_as("Niger", ["Nigeria"]) and begins_as("nigeria", ["Mali", "Niger"])
    assert not begins_as("Mali", ["Malta"])
    keys = in_order("abcdef", salt="1")
    assert [key for key in keys if key in "ace"] == in_order("ace", salt="1") and keys != in_order("abcdef", salt="2")


# files ----------------------------------------------------------------------------------------------------------------


def test_files_are_laid_out_as_centurios_and_differ_in_words_alone(tmp_path: Path, font: Path) -> None:
    folder = built(tmp_path / "set", font)
    names = ["ATTRIBUTION", "README.md", "en_ground.json", "en_name.json", "images", "plots.json", "ru_ground.json"]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "ru_name.json"]
    for ending, count in (("ground", 8), ("name", 5)):
        english, russian = (records(folder / f"{code}_{ending}.json") for code in ("en", "ru"))
        assert len(english) == len(russian) == 4 * count
        for one, other in zip(english, russian, strict=True):
            assert set(one) == {"context", "label", "text_label", "image_id", "language", "task", "concept", "split"}
            assert one["label"] == [""] and one["task"] == "ocr" and one["split"] == "test"
            assert one["image_id"].replace("/en/", "/ru/") == other["image_id"] and one["concept"] == other["concept"]
            asked, told = (record["context"][0].split("'") for record in (one, other))
            assert asked[0] == told[0] and asked[2:] == told[2:]
            assert asked[-1].endswith("?\nAnswer the question using a single word or phrase.")
            if ending == "ground":
                assert one["text_label"] == other["text_label"] in ("yes", "no") and asked[1] != told[1]
            else:
                assert one["text_label"] != other["text_label"] and len(asked) == 1


def test_a_word_in_a_question_is_that_of_the_plot_and_the_answer_is_its_label(tmp_path: Path, font: Path) -> None:
    folder = built(tmp_path / "set", font, languages=["en"])
    plans = {plan["name"]: plan for plan in records(folder / "plots.json")}
    known: dict[tuple[str, str], str] = {}
    for record in records(folder / "en_name.json"):
        plan, text = plans[record["concept"]], record["context"][0]
        values = plan["values"]
        part = (
            values.index(max(values)) if "biggest" in text else values.index(min(values)) if "smallest" in text
            else next(number for number, color in enumerate(plan["colors"]) if f"the {color} " in text)
        )  # fmt: skip
        word = known.setdefault((record["concept"], str(part)), record["text_label"])
        assert word == record["text_label"]
    assert len(set(known.values())) > 8


def test_the_set_is_read_as_dialogues(tmp_path: Path, font: Path) -> None:
    folder = built(tmp_path / "set", font)
    source = read_dialogues(folder / "ru_name.json")
    sample = source[0]
    assert [turn.role for turn in sample.turns] == ["user", "assistant"] and sample.task == "ocr"
    assert {turn.language for turn in sample.turns} == {"ru"} and sample.split == "test" and sample.concept == "bar-00"
    assert sample.image().size == chart_plans(0, 2)[0].size


def test_the_same_input_gives_the_same_bytes_whatever_other_languages_and_workers_there_are(
    tmp_path: Path, font: Path
) -> None:
    built(tmp_path / "a", font, plots=2)
    built(tmp_path / "b", font, languages=["ru"], workers=2, plots=2)
    wanted = {path.relative_to(tmp_path / "a"): sha256(path) for path in (tmp_path / "a").rglob("*") if path.is_file()}
    for path in [path for path in wanted if "ru" in path.parts or path.name.startswith("ru")]:
        assert sha256(tmp_path / "b" / path) == wanted[path]
    built(tmp_path / "d", font, seed=1, plots=2, languages=["en"])
    assert sha256(tmp_path / "d" / "plots.json") != wanted[Path("plots.json")]


def test_another_process_draws_and_asks_the_same() -> None:
    code = (
        "from vlkit.data.build.chart_drawing import draw_chart\n"
        "from vlkit.data.build.chart_plans import chart_plans, questions_about\n"
        "import hashlib\n"
        "plans = chart_plans(3, 2)\n"
        "pixels = b''.join(draw_chart(plan, (), None).tobytes() for plan in plans)\n"
        "print(hashlib.sha256(pixels + repr([questions_about(plan, 3) for plan in plans]).encode()).hexdigest())\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1 and len(said.pop().strip()) == 64


def test_an_interrupted_build_leaves_what_was_there(
    tmp_path: Path, font: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = built(tmp_path / "set", font)
    before = {path: sha256(path) for path in folder.rglob("*") if path.is_file()}
    real, calls = smpqa.draw_chart, []

    def stop(*given: Any) -> Image.Image:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(smpqa, "draw_chart", stop)
    with pytest.raises(KeyboardInterrupt, match=r"^stopped; .*set is as it was: run the same command again$"):
        built(folder, font, seed=3)
    assert {path: sha256(path) for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_is_wrong_is_told_before_anything_is_drawn(tmp_path: Path, font: Path) -> None:
    with pytest.raises(DataError, match=r"^--count 5: must be even, 2 to 1000: half bar plots, half pie charts$"):
        built(tmp_path / "set", font, plots=5)
    with pytest.raises(VlkitError) as error:
        built(tmp_path / "set", font, languages=["en", "th", "zh"])
    lines = str(error.value).splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "none of 1 fonts has every character of Thai (th, script Thai)",
        "none of 1 fonts has every character of Chinese (zh, script Hans)",
    ]
    (tmp_path / "en.txt").write_text("Mali\nMalia\nChad\nTogo\nPeru\n", encoding="utf-8")
    with pytest.raises(DataError) as few:
        built(tmp_path / "set", font, languages=["en"], words=tmp_path / "en.txt", plots=20)
    assert str(few.value) == (
        "English (en): 4 of 5 words can stand in one plot, which needs 5; give more words that are short and begin "
        "differently (--words)"
    )
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes.txt").touch()
    with pytest.raises(VlkitError, match=r"set holds something else than the plots of vlkit data build smpqa \(notes"):
        built(tmp_path / "set", font)


# own plots ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(font: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine whose only font draws Latin and Cyrillic letters."""
    faces = smpqa.find_faces(font)
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(smpqa, "find_faces", lambda folder=None: faces)
    monkeypatch.setattr(smpqa, "_OWN_PLOTS", 2)
    smpqa._tell_once.cache_clear()
    return monkeypatch


def test_own_plots_are_drawn_once_in_what_fonts_are_found_for(
    own: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = smpqa.own_plots()
    assert sorted(path.name for path in folder.glob("*_name.json")) == ["en_name.json", "ru_name.json"]
    assert "left out of the plots with words: Greek (el), Arabic (ar), " in caplog.text
    assert "Noto Sans" in caplog.text  # what to install
    found = open_set(Smpqa())
    assert Counter(one.language for one in found) == {"en": 26, "ru": 26}
    own.setattr(smpqa, "build_smpqa", None)  # nothing is drawn again
    assert smpqa.own_plots() == folder


def test_own_plots_need_a_font_for_one_language(own: pytest.MonkeyPatch) -> None:
    own.setattr(smpqa, "OWN_LANGUAGES", ("th", "hi"))
    with pytest.raises(DataError, match=r"^none of 1 fonts has every character of Thai \(th, script Thai\)"):
        smpqa.own_plots()


@pytest.mark.parametrize(("given", "lacking"), [("path", "images"), ("images", "path")])
def test_a_copy_of_smpqa_has_files_and_images(given: str, lacking: str) -> None:
    with pytest.raises(ValidationError, match=f"{lacking}: {given} is given and this is not; give both, or none"):
        Smpqa.model_validate({given: "somewhere"})
