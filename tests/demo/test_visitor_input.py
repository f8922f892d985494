"""What visitors type: any script is taken, and what is wrong is one plain sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from vlkit.demo.visitor_input import (
    MOST_LABELS,
    MOST_LANGUAGES,
    Upload,
    need_image,
    need_language,
    need_languages,
    need_text,
    read_label_lines,
    read_language_lines,
    read_templates,
)
from vlkit.errors import VlkitError


@pytest.mark.parametrize("typed", ["قطة\n\n  كلب \n猫|猫咪\n", "قطة،كلب,猫|猫咪", "\ufeffقطة\r\nكلب\r\n猫 | 猫咪"])
def test_labels_stand_in_lines_or_between_commas_of_any_script(typed: str) -> None:
    found = read_label_lines(typed, language="Arabic")
    assert found.language == "ar" and found.names == (("قطة",), ("كلب",), ("猫", "猫咪"))


def test_commas_belong_to_labels_where_there_are_several_lines() -> None:
    assert read_label_lines("a, b\nc", language="en").names == (("a, b",), ("c",))


def test_labels_that_look_alike_are_told_and_not_refused() -> None:
    found = read_label_lines("Arm\narm", language="de")
    assert found.notes == ("labels 'Arm' and 'arm' differ in case alone; the model may not tell them apart",)


@pytest.mark.parametrize(
    ("typed", "language", "message"),
    [
        ("", "en", "no labels; write what to choose from, one label a line"),
        (" \n\u200e\n", "en", "no labels; write what"),
        (None, "en", "no labels; write what"),
        ("a,,b", "en", "label number 2 is blank; give it a name or leave it out"),
        ("猫\n狗\n猫", "zh", "label '猫' is given twice, as number 1 and 3; leave one out"),
        ("a", "Frensh", "no language 'Frensh'; did you mean"),
        ("a", None, "no language; choose one from the list"),
        ("\n".join(map(str, range(10_000))), "en", f"10,000 labels; the demo takes at most {MOST_LABELS:,}, vlkit"),
    ],
)
def test_what_is_wrong_with_labels(typed: str | None, language: str | None, message: str) -> None:
    with pytest.raises(VlkitError, match=rf"^{re.escape(message)}"):
        read_label_lines(typed, language=language)


def test_lines_of_languages_hold_the_same_things_in_the_same_order() -> None:
    found = read_language_lines("en: cat, dog\n\nArabic: قطة، كلب\nzh：猫|猫咪，狗\n")
    assert [one.language for one in found] == ["en", "ar", "zh"]
    assert [one.names for one in found] == [(("cat",), ("dog",)), (("قطة",), ("كلب",)), (("猫", "猫咪"), ("狗",))]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "no labels; write a line for each language"),
        ("en: cat\nKatze", "line 2 has no language; begin it with one and a colon"),
        ("xx: cat", "no language 'xx'"),
        ("en: cat\nde: Katze\nGerman: Hund", "line 3 is in German again; leave one of the two out"),
        (
            "en: cat, dog\nde: Katze",
            "line 2 (German) has 1 label, line 1 (English) has 2 labels; give the same things in the same order",
        ),
        ("en: cat, cat", "line 1: label 'cat' is given twice, as number 1 and 2; leave one out"),
        ("en: x\n" * (MOST_LANGUAGES + 1), f"31 languages; the demo takes at most {MOST_LANGUAGES}"),
    ],
)
def test_what_is_wrong_with_lines_of_languages(typed: str, message: str) -> None:
    with pytest.raises(VlkitError, match=rf"^{re.escape(message)}"):
        read_language_lines(typed)


def test_languages_are_taken_by_any_code_or_name_and_each_once() -> None:
    assert need_language("Deutsch") == "de" and need_language("zh_CN") == "zh"
    assert need_languages(["sw", "Swahili", "ar"]) == ["sw", "ar"]
    for none in (None, []):
        with pytest.raises(VlkitError, match=r"^no language; choose"):
            need_languages(none)


def test_texts_are_cleaned_and_bounded() -> None:
    assert need_text(" \u202eقارچ ", what="question") == "قارچ"
    with pytest.raises(VlkitError, match=r"^no question; write one, in any language$"):
        need_text("\u200e ", what="question")
    with pytest.raises(VlkitError, match=r"^the question has 20,001 characters, more than the 20,000"):
        need_text("a" * 20_001, what="question")


def test_templates_are_lines_with_a_slot() -> None:
    assert read_templates("a photo of a {}.\n\n{}") == ("a photo of a {}.", "{}")
    assert read_templates(None) == ()
    with pytest.raises(VlkitError, match="has no slot"):
        read_templates("a photo")


def test_uploads_are_judged_by_what_they_hold_and_called_as_the_visitor_calls_them(tmp_path: Path) -> None:
    (tmp_path / "0a1b").write_text("no image at all")
    for upload, message in (
        (None, "no image; drop one"),
        (Upload(tmp_path / "0a1b", "notes.png"), "cannot read image notes.png: not an image file that can be read"),
        (Upload(tmp_path / "gone", "gone.png"), "cannot read image gone.png: no such file"),
    ):
        with pytest.raises(VlkitError, match=rf"^{message}"):
            need_image(upload)


def test_a_picture_of_sixty_megapixels_is_taken_and_one_of_two_hundred_is_not(tmp_path: Path) -> None:
    for width, height in ((10_000, 6_000), (20_000, 10_000)):
        Image.new("1", (width, height)).save(tmp_path / f"{width}.png")
    assert need_image(Upload(tmp_path / "10000.png", "large.png")).size == (10_000, 6_000)
    with pytest.raises(VlkitError, match=r"^cannot read image huge.png: 200,000,000 pixels, more than the 178,956,970"):
        need_image(Upload(tmp_path / "20000.png", "huge.png"))
