"""Laws of pages with text: what is said to stand on a page stands there, whole; a seed always gives the same pages."""

from __future__ import annotations

import io
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_factory import source
from tests.helpers.font_factory import small_font
from vlkit.data.build import ocr
from vlkit.data.build.fonts import Face, FontPair, find_faces, packaged_fonts
from vlkit.data.build.lettering import Lettering
from vlkit.data.build.ocr import OcrPages, PageOptions, build_ocr, checked, excerpt, page_languages
from vlkit.data.build.page_drawing import PageLook, draw_page, lay_out, page_size
from vlkit.data.build.written_texts import read_texts
from vlkit.data.sources.open import open_source
from vlkit.errors import DataError
from vlkit.files import sha256
from vlkit.spec.sources import BuiltSource

SANS = Face(packaged_fonts() / "DejaVuSans.ttf", 0, "DejaVu Sans", weight=400, width=5, italic=False)
LATIN = Lettering(FontPair(SANS, None, "Latn"), "en")
TEXT = "The river rises in the hills and flows to the sea. In spring people plant rice, of two kinds. Why is it so?"
LINES = {"en": [TEXT, "A cat sleeps.", "Twelve ships came home."], "de": ["Ein Haus am See.", "Die Katze schläft."]}


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fonts")
    small_font(folder / "small.ttf", "".join(map(chr, (*range(0x20, 0x7F), *range(0xC0, 0x100)))))
    return folder


def options(**more: Any) -> PageOptions:
    return PageOptions(**{"count": 12, "image_size": 128, "characters": 40} | more)


# layout and drawing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_all_of_a_text_stands_on_the_page_within_its_edges(seed: int) -> None:
    random = Random(seed)
    size = page_size(PageLook(256), random)
    layout = lay_out(TEXT, LATIN, size, random)
    assert " ".join(line.text for line in layout.lines) == TEXT
    boxes = []
    for line in layout.lines:
        left, top, right, bottom = LATIN.box(line.text, line.size)
        boxes.append((line.at[0] + left, line.at[1] + top, line.at[0] + right, line.at[1] + bottom))
        assert min(boxes[-1]) >= 0 and boxes[-1][2] <= size[0] and boxes[-1][3] <= size[1]
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_columns_follow_each_other_as_the_script_is_read() -> None:
    hebrew = Lettering(FontPair(SANS, None, "Hebr"), "he")
    text = "הנהר נובע בהרים וזורם אל הים " * 6
    for lettering, words, sign in ((LATIN, TEXT * 2, 1), (hebrew, text.strip(), -1)):
        found = (lay_out(words, lettering, (520, 260), Random(seed)) for seed in range(60))
        many = next(one for one in found if max(np.diff([line.at[1] for line in one.lines]) * -1) > 60)
        steps = [(now.at[0] - was.at[0]) for was, now in pairwise(many.lines) if now.at[1] < was.at[1]]
        assert steps and all(step * sign > 0 for step in steps)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError) as error:
        lay_out(TEXT * 20, LATIN, (128, 128), Random(0))
    assert str(error.value) == (
        "a text of 2140 characters in en does not fit into a page of 128 x 128 pixels; take larger pages "
        "(--image-size) or shorter texts (--characters)"
    )


def test_ink_stands_out_from_paper_and_a_flat_scan_has_two_tones() -> None:
    for seed in range(12):
        random = Random(seed)
        layout = lay_out("Words here", LATIN, (200, 160), random)
        pixels = np.asarray(
            Image.open(io.BytesIO(draw_page(layout, LATIN, PageLook(160, distortion=0.0), random))).convert("L"), int
        )
        assert pixels.max() - pixels.min() > 120
        seen = Image.open(io.BytesIO(draw_page(layout, LATIN, PageLook(160), random)))
        assert seen.size == (200, 160) and len(set(seen.convert("L").getdata())) > 60


def test_backgrounds_are_those_of_a_folder(tmp_path: Path, font: Path) -> None:
    Image.new("RGB", (40, 30), (10, 200, 20)).save(tmp_path / "green.png")
    pages = OcrPages({"en": ([FontPair(find_faces(font)[0], None, "Latn")], ["word"])}, options(backgrounds=tmp_path))
    corners = [np.asarray(pages[number].image(), int)[[0, 0, -1, -1], [0, -1, 0, -1]] for number in range(12)]
    green = [(corner[:, 1] - corner[:, 0] > 60).sum() for corner in corners]
    assert sum(green) > 20
    with pytest.raises(
        DataError, match=r"--backgrounds .*: no images there .*; give a folder of images, or one of plain"
    ):
        OcrPages({"en": ([FontPair(SANS, None, "Latn")], ["word"])}, options(backgrounds=font))


# languages and texts --------------------------------------------------------------------------------------------------


def test_pages_are_dealt_to_languages_by_shares() -> None:
    even = page_languages(("en", "de", "ar"), PageOptions(count=10))
    assert sorted(Counter(even).values()) == [3, 3, 4]
    dealt = Counter(page_languages(("en", "de", "ar", "sw", "th"), PageOptions(count=10600, shares="centurio")))
    assert dealt == {"en": 10000, "de": 100, "ar": 200, "sw": 100, "th": 200}
    assert page_languages(("de", "en"), PageOptions(seed=1)) != page_languages(("de", "en"), PageOptions(seed=2))


def test_pieces_of_a_text_begin_with_a_line_and_are_no_longer_than_asked() -> None:
    found = [excerpt(LINES["en"], Random(seed), most=60) for seed in range(200)]
    joined = " ".join(LINES["en"] * 3)
    assert all(one in joined and one.split()[0] in ("The", "A", "Twelve") for one in found)
    assert max(map(len, found)) <= 60 and min(map(len, found)) < 16 and len(set(found)) > 20
    long = " ".join(f"word{number}" for number in range(5000))
    taken = [excerpt([long], Random(seed), most=60) for seed in range(50)]
    assert all(one in long and one.startswith("word") for one in taken) and len(set(taken)) == 50
    assert excerpt(["空は青い。", "川。"], Random(0), most=100) in ("空は青い。川。", "川。空は青い。")


def test_texts_come_from_files_tables_and_captions(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("eins  zwei\n\n drei\n", encoding="utf-8")
    assert read_texts(tmp_path / "a.txt", ["de"]) == {"de": ["eins zwei", "drei"]}
    with pytest.raises(DataError, match=r"a.txt: a .txt file holds one language, and --languages has 2; name one, or"):
        read_texts(tmp_path / "a.txt", ["de", "en"])
    table = tmp_path / "t.jsonl"
    table.write_text('{"text": "un", "language": "fr"}\n{"captions": {"fr": "deux", "de": "zwei"}}\n', encoding="utf-8")
    assert read_texts(table, ["fr", "de"]) == {"fr": ["un", "deux"], "de": ["zwei"]}
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("README.txt", "deu.txt"):
        (folder / name).write_text("Wort\n", encoding="utf-8")
    assert read_texts(folder, ["de"]) == {"de": ["Wort"]}
    (folder / "de.txt").write_text("Wort\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"deu.txt: de again, after de.txt; keep one of them"):
        read_texts(folder, ["de"])


# builds ---------------------------------------------------------------------------------------------------------------


def test_shards_hold_pages_with_their_text_as_caption(tmp_path: Path, font: Path) -> None:
    done = build_ocr(tmp_path / "pages", LINES, options(), fonts=font, workers=0, quiet=True)
    assert done.shards.samples == 12 and done.shards.languages == {"de": 6, "en": 6} and not done.left_out
    assert done.fonts == {"en": ("Small Sans (small.ttf)",), "de": ("Small Sans (small.ttf)",)}
    found = source(tmp_path / "pages")
    for index in range(12):
        ((language, (text,)),) = found[index].captions.items()
        assert text in " ".join(LINES[language] * 3) and found[index].task == "ocr" and found[index].split == "train"
        assert min(found[index].image().size) == 128


def test_the_same_input_gives_the_same_bytes_and_an_interrupted_build_goes_on(
    tmp_path: Path, font: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ocr, "_PER_SHARD", 8)
    many = options(count=24)
    build_ocr(tmp_path / "a", LINES, many, fonts=font, workers=2, quiet=True)
    wanted = {path.name: sha256(path) for path in (tmp_path / "a").iterdir()}
    assert sorted(wanted) == [*(f"shard-000{number}.tar" for number in range(3)), "sizes.json", "summary.json"]
    real, drawn = ocr.draw_page, []

    def stop(*given: Any) -> bytes:
        drawn.append(given)
        if len(drawn) == 18:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(ocr, "draw_page", stop)
    with pytest.raises(KeyboardInterrupt, match=r"^stopped; 8 of 24 samples are written: run the same command again"):
        build_ocr(tmp_path / "b", LINES, many, fonts=font, workers=0, quiet=True)
    assert not (tmp_path / "b").exists()
    build_ocr(tmp_path / "b", LINES, many, fonts=font, workers=0, quiet=True)
    assert len(drawn) == 18 + 16  # the first eight were kept
    assert {path.name: sha256(path) for path in (tmp_path / "b").iterdir()} == wanted
    with pytest.raises(DataError, match=r"b: is there already; choose another --out, or replace it with --overwrite"):
        build_ocr(tmp_path / "b", LINES, options(seed=1), fonts=font, quiet=True)


def test_lines_that_no_font_has_are_left_out_and_counted_but_not_many(tmp_path: Path, font: Path) -> None:
    lines = [*(f"Line {number} of many." for number in range(19)), "A line with ไทย."]
    done = build_ocr(tmp_path / "pages", {"en": lines}, options(), fonts=font, workers=0, quiet=True)
    assert done.left_out == {"en": 1}
    with pytest.raises(DataError) as error:
        build_ocr(tmp_path / "no", {"en": [*lines, *["ท"] * 3]}, options(), fonts=font, workers=0, quiet=True)
    assert str(error.value) == (
        "none of 1 fonts has every character of English (en, script Latn); the best, Small Sans (small.ttf), lacks "
        "ท (U+0E17), ย (U+0E22), ไ (U+0E44); give a folder with one (--fonts DIR; Noto Sans is one), or install it: "
        "apt-get install fonts-noto-core"
    )


def test_options_out_of_range_are_refused() -> None:
    for more, message in (
        ({"count": 0}, "--count 0: must be 1 to 1e+08"),
        ({"characters": 3}, "--characters 3: must be 20 to 1000"),
        ({"image_size": 64}, "--image-size 64: must be 128 to 4096"),
        ({"distortion": 1.5}, "--distortion 1.5: must be 0 to 1"),
    ):
        with pytest.raises(DataError) as error:
            checked(options(**more))
        assert str(error.value) == message


def test_a_recipe_can_learn_from_pages_that_need_nothing_but_vlkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path))
    monkeypatch.setattr(ocr, "_OWN_PAGES", 6)
    pages = open_source(BuiltSource(name="ocr", image_size=128))
    assert len(pages) == 6 and {pages[index].task for index in range(6)} == {"ocr"}
    summary = json.loads(next(tmp_path.glob("data/ocr-*/summary.json")).read_text(encoding="utf-8"))
    assert summary["samples"] == 6
