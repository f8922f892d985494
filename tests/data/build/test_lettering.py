"""Fonts and drawn text: every character has a glyph, letters join, and the order is that of the script."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFilter, ImageFont, features

from tests.helpers.font_factory import small_font
from vlkit.data.build import fonts, lettering
from vlkit.data.build.fonts import Face, FontPair, best_pair, find_faces, packaged_fonts, pairs_for
from vlkit.data.build.lettering import Lettering, check_shaping
from vlkit.errors import DataError

SANS = packaged_fonts() / "DejaVuSans.ttf"
shaped = pytest.mark.skipif(not features.check("raqm"), reason="this Pillow has no raqm")
DATE = "תאריך (יום) 12/05/2024 abc def סוף!"


def face(path: Path = SANS) -> Face:
    return Face(path, 0, path.stem, weight=400, width=5, italic=False)


def part_of(folder: Path, text: str) -> Path:
    """A font that knows the characters of a text alone."""
    folder.mkdir(parents=True, exist_ok=True)
    font = TTFont(SANS, lazy=True)
    for table in font["cmap"].tables:
        table.cmap = {code: glyph for code, glyph in table.cmap.items() if chr(code) in text}
    font.save(folder / "part.ttf", reorderTables=None)
    return folder / "part.ttf"


def drawn(one: Lettering, text: str, size: int = 40) -> np.ndarray:
    canvas = Image.new("L", (900, 90))
    one.draw(ImageDraw.Draw(canvas), (20, 60), text, size=size, fill=255)
    return np.asarray(canvas)


def plainly(text: str, size: int = 40) -> np.ndarray:
    """The glyphs of code points one after the other, from the left, without any shaping."""
    canvas = Image.new("L", (900, 90))
    font = ImageFont.truetype(str(SANS), size, layout_engine=ImageFont.Layout.BASIC)
    ImageDraw.Draw(canvas).text((20, 60), text, fill=255, font=font, anchor="ls")
    return np.asarray(canvas)


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """The share of ink that stands elsewhere, but for a pixel or two: rounded and unrounded advances add up."""
    soft = [np.asarray(Image.fromarray(one).filter(ImageFilter.BoxBlur(3)), float) for one in (first, second)]
    return float(np.abs(soft[0] - soft[1]).sum() / (soft[0].sum() + soft[1].sum()))


@shaped
def test_arabic_letters_join_and_hebrew_runs_from_the_right() -> None:
    pair = FontPair(face(), None, "Arab")
    # Meem alone, lam and alef as one final sign, an initial seen: what Unicode's presentation forms name one by one.
    assert np.array_equal(drawn(Lettering(pair, "ar"), "سلام"), plainly("\ufee1\ufefc\ufeb3"))
    assert not np.array_equal(drawn(Lettering(pair, "ar"), "سلام"), plainly("سلام"[::-1]))
    hebrew = Lettering(FontPair(face(), None, "Hebr"), "he")
    for text, seen in (("שלום", "םולש"), ("אבגד 125 (הוז)", "(זוה) 125 דגבא")):
        assert apart(drawn(hebrew, text), plainly(seen)) < 0.15 < apart(drawn(hebrew, text), plainly(text))


@shaped
@pytest.mark.parametrize(
    ("language", "script", "text", "own"),
    [
        ("he", "Hebr", DATE, "אבגדהוזחטיכלמנסעפצקרשתםןףץך "),
        ("he", "Hebr", DATE, "אבגדהוזחטיכלמנסעפצקרשתםןףץך 0123456789()!"),
        ("ka", "Geor", "წელი 2024 (ABC x), დიახ!", "წელიდახ "),
        ("ar", "Arab", "عام 2024/05 (نعم) Rayleigh abc", "عامنعم "),
    ],
)
def test_two_fonts_draw_a_text_as_one_that_has_all_its_characters(
    tmp_path: Path, language: str, script: str, text: str, own: str
) -> None:
    part = face(part_of(tmp_path, own))
    two, one = FontPair(part, face(), script), FontPair(face(), None, script)
    assert not two.missing(text) and FontPair(part, None, script).missing(text)
    assert apart(drawn(Lettering(two, language), text), drawn(Lettering(one, language), text)) < 0.03
    assert Lettering(two, language).width(text, 40) == pytest.approx(Lettering(one, language).width(text, 40), abs=0.1)
    assert Lettering(two, language).box(text, 40) == pytest.approx(Lettering(one, language).box(text, 40), abs=1)


def test_a_text_that_no_font_has_is_refused_with_what_is_missing_and_what_to_install() -> None:
    faces = [replace(face(), family="DejaVu Sans")]
    with pytest.raises(DataError) as error:
        best_pair(faces, "th", "ไทย")
    assert str(error.value) == (
        "none of 1 fonts has every character of Thai (th, script Thai); the best, DejaVu Sans (DejaVuSans.ttf), lacks "
        "ท (U+0E17), ย (U+0E22), ไ (U+0E44); give a folder with one (--fonts DIR; Noto Sans Thai is one), or install "
        "it: apt-get install fonts-noto-core"
    )
    with pytest.raises(DataError, match=r"lacks 国 \(U\+56FD\).*Noto Sans CJK SC is one.*install fonts-noto-cjk"):
        best_pair(faces, "zh", "国")
    # Letters that a font has but cannot join are no help.
    with pytest.raises(DataError, match=r"^none of 1 fonts is made for Hindi \(hi, script Deva\); give a folder"):
        best_pair(faces, "hi", "क")


def test_marks_and_letters_of_the_script_have_to_be_in_one_font(tmp_path: Path) -> None:
    part = face(small_font(tmp_path / "part.ttf", "აბ "))
    pair = FontPair(part, face(), "Geor")
    assert pair.missing("აბ 1a") == ""
    assert pair.missing("აბგ\u0301") == "\u0301გ"
    assert pair.missing("ა\u200d\u200cბ") == ""  # joiners are seen by nobody


def test_the_plainest_font_comes_first_and_those_of_other_scripts_are_no_choice(tmp_path: Path) -> None:
    letters = "abcdefghij"
    for family, weight in (("Some Sans", 700), ("Some Sans", 400), ("Some Serif", 400), ("Some Sans Mono", 400)):
        small_font(tmp_path / f"{family}-{weight}.ttf".replace(" ", ""), letters, family=family, weight=weight)
    small_font(tmp_path / "few.ttf", "abc", family="Few Sans")
    small_font(tmp_path / "Slanted-Italic.ttf", letters, family="Some Sans")
    names = [pair.main.path.name for pair in pairs_for(find_faces(tmp_path), "de", "abc")]
    assert names == ["SomeSans-400.ttf", "SomeSans-700.ttf", "SomeSansMono-400.ttf", "SomeSerif-400.ttf"]


def test_chinese_and_japanese_take_the_forms_of_their_region(tmp_path: Path) -> None:
    for region in ("SC", "TC", "JP"):
        small_font(tmp_path / f"{region}.ttf", "abc 12", family=f"Some Sans {region}")
    found = find_faces(tmp_path)
    assert [pair.main.family[-2:] for pair in pairs_for(found, "zh", "abc")] == ["SC"]
    assert [pair.main.family[-2:] for pair in pairs_for(found, "zh-Hant", "abc")] == ["TC"]
    assert [pair.main.family[-2:] for pair in pairs_for(found, "ja", "abc")] == ["JP"]


def test_folders_without_fonts_are_refused_and_damaged_ones_passed_over(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"--fonts .*absent: no such folder; give one with .ttf, .otf, .ttc, .otc files"
    ):
        find_faces(tmp_path / "absent")
    (tmp_path / "broken.ttf").write_bytes(SANS.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"no fonts found; give a folder of .* \(Debian, Ubuntu: apt-get install"):
        find_faces(tmp_path)
    small_font(tmp_path / "whole.ttf", "abc")
    assert [one.path.name for one in find_faces(tmp_path)] == ["whole.ttf"]


def test_without_harfbuzz_scripts_and_marks_that_need_it_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering.features, "check", lambda name: False)
    check_shaping("ru", "Россия")
    check_shaping("zh", "中国")
    with pytest.raises(DataError) as error:
        check_shaping("ar", "سلام")
    assert str(error.value) == (
        "Arabic (ar, script Arab) has letters that HarfBuzz must place, and Pillow finds no raqm here; install its "
        "library fribidi (apt-get install libfribidi0; macOS: brew install fribidi) or leave ar out"
    )
    with pytest.raises(DataError, match=r"^Yoruba \(yo, script Latn\) has marks \(U\+0301\) that HarfBuzz must place"):
        check_shaping("yo", "ọ\u0301")


def test_the_system_is_searched_with_the_fonts_that_every_installation_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "font_folders", lambda: [packaged_fonts()])
    assert "DejaVuSans.ttf" in {one.path.name for one in find_faces()}
