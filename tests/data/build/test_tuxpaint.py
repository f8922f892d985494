"""Tux Paint's stamps from a tiny folder of them: captions, locales, concepts, splits, pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.data_factory import source
from vlkit.data.build.builders import HOLDOUT, build_tuxpaint, built_folder
from vlkit.data.build.concepts import emoji_concept, held_out
from vlkit.data.build.openmoji import emoji_names
from vlkit.data.build.tuxpaint import find_stamps, read_captions, read_stamps, tidy
from vlkit.data.sources.open import open_source
from vlkit.errors import DataError
from vlkit.spec.sources import BuiltSource

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20" fill="red"/></svg>'


def stamp(folder: Path, name: str, *lines: str, picture: str = ".png", size: tuple[int, int] = (40, 20)) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if picture == ".svg":
        path.with_suffix(picture).write_text(SVG)
    elif picture:
        drawn = Image.new("RGBA", size)  # transparent
        drawn.paste((0, 0, 255, 255), (0, 0, size[0] // 2, size[1]))
        drawn.save(path.with_suffix(picture))


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    folder = tmp_path / "usr/share/tuxpaint/stamps"
    stamp(folder, "animals/frog", "A frog.", "de.utf8=Ein Frosch.", "zh_TW.utf8=青蛙。", "zh_CN.utf8=青蛙")
    stamp(folder, "animals/cat_left", "A tabby cat.", "fr.utf8=Un chat tigré.")
    stamp(folder, "animals/cat_right", "A tabby cat!", "fr.utf8=Un chat tigré.", picture=".svg")
    stamp(folder, "food/mushroom", "Mushroom.", "ar.utf8=.فطر", "he.utf8=Mushroom.")
    stamp(folder, "food/soup", "A soup. Eat it up!", "de.utf8=Eine Suppe.")
    stamp(folder, "food/lost", "A bun.", picture="")
    stamp(folder, "symbols/a", "The letter A.", "de.utf8=Der Buchstabe A.")
    for number in range(8):
        stamp(folder, f"toys/toy{number}", f"A toy number {number}.", f"sw.utf8=Mwanasesere {number}.")
    return tmp_path


def test_captions_are_by_tag_and_without_stops(tmp_path: Path) -> None:
    stamp(
        tmp_path, "one", "A cep.", "pt_BR.utf8=Um cogumelo!", "pt.utf8=Um  cogumelo.", "sr@latin.utf8=Gljiva.",
        "sr.utf8=Гљива.", "ca@valencia.utf8=Un bolet", "ca.utf8=Un bolet.", "hi.utf8=एक मशरूम|", "am.utf8=እንጉዳይ።",
        "ja.utf8=きのこ。", "ar.utf8=.\u200fفطر", "en_GB.utf8=A penny bun.", "en_AU.utf8=A cep.", "xx.utf8=?",
        "ja.utf8=", "fi.iso8859-1=x", "no line of a caption", "zh_TW.utf8=\\\"蘑菇\\\"",
    )  # fmt: skip
    assert read_captions(tmp_path / "one.txt") == {
        "en": ("A cep", "A penny bun"), "pt": ("Um cogumelo", "Um cogumelo!"), "sr-Latn": ("Gljiva",), "sr": ("Гљива",),
        "ca": ("Un bolet",), "hi": ("एक मशरूम",), "am": ("እንጉዳይ",), "ja": ("きのこ",), "ar": ("فطر",),
        "zh-Hant": ('"蘑菇"',),
    }  # fmt: skip
    assert tidy(" A dog... ") == "A dog" and tidy("...") == "" and tidy("What?") == "What?"


def test_stamps_of_one_caption_are_one_concept_and_signs_and_sentences_are_left_out(stamps: Path) -> None:
    found, problems = read_stamps(find_stamps(stamps), holdout=0, openmoji_holdout=0)
    concepts = {one.key: one.concept for one in found}
    assert concepts["animals_cat_left"] == concepts["animals_cat_right"] == "tuxpaint:tabby cat"
    assert concepts["animals_frog"] == emoji_concept("🐸") and concepts["food_mushroom"] == emoji_concept("🍄")
    assert len(found) == 12 and {one.split for one in found} == {"train"}
    assert problems == {
        "food/lost.txt": "no picture beside it (.svg, .png)",
        "food/soup.txt": "tells about the thing in place of naming it: 'A soup. Eat it up!'",
    }
    captions = {one.key: one.captions for one in found}
    assert captions["food_mushroom"] == {"en": ("Mushroom",), "ar": ("فطر",)}  # the Hebrew was never translated
    assert captions["animals_frog"] == {"de": ("Ein Frosch",), "en": ("A frog",), "zh": ("青蛙",), "zh-Hant": ("青蛙",)}


def test_concepts_are_kept_back_whole_and_on_the_side_of_openmoji(stamps: Path) -> None:
    drawn = {emoji_concept(symbol) for symbol in emoji_names()}
    frog, mushroom = emoji_concept("🐸"), emoji_concept("🍄")
    for openmoji in (0, len(drawn) - 1):
        found, _ = read_stamps(find_stamps(stamps), holdout=5, openmoji_holdout=openmoji)
        splits: dict[str, Counter[str]] = {}
        for one in found:
            splits.setdefault(one.concept, Counter())[one.split] += 1
        kept = held_out(drawn, openmoji, salt="openmoji:")
        for concept in (frog, mushroom):
            assert ("train" in splits[concept]) == (concept not in kept)
        held = [counts for counts in splits.values() if "train" not in counts]
        assert len(held) == 5 and all(counts["test"] == 1 and len(counts) <= 2 for counts in held)


def test_pictures_are_whole_square_and_on_white(stamps: Path, tmp_path: Path) -> None:
    folder = build_tuxpaint(tmp_path / "out", source=stamps, image_size=32, holdout=3, quiet=True)
    found = source(folder)
    samples = {found[n].key: found[n] for n in range(len(found))}
    assert len(samples) == 12 and not found.problems
    for key, color in (("animals_cat_right", (255, 0, 0)), ("animals_frog", (0, 0, 255))):
        image = samples[key].image()
        assert image.size == (32, 32)
        assert image.getpixel((2, 2)) == image.getpixel((2, 29)) == (255, 255, 255)  # above and below
        assert image.getpixel((4, 16)) == color
    assert samples["animals_frog"].image().getpixel((28, 16)) == (255, 255, 255)  # transparent before
    assert samples["animals_frog"].license == "GPL-2.0-or-later"
    assert "GPL-2.0-or-later" in (folder / "ATTRIBUTION").read_text()
    assert "12 images of 32 x 32 pixels" in (folder / "README.md").read_text()


def test_a_picture_that_cannot_be_read_is_left_out_or_replaced(
    stamps: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toys = find_stamps(stamps) / "toys"
    (toys / "toy1.png").write_bytes(b"nothing")
    (toys / "toy2.svg").write_text("<svg>")  # beside a good PNG
    found = source(build_tuxpaint(tmp_path / "out", source=stamps, image_size=32, holdout=0, quiet=True))
    assert len(found) == 11 and "toys_toy2" in {found.meta(n).key for n in range(11)}
    assert "toys_toy1 is left out: cannot read image" in caplog.text


def test_the_cache_has_a_copy_for_each_state_of_the_stamps(stamps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = BuiltSource(name="tuxpaint", image_size=16, source=str(stamps))
    with pytest.raises(DataError, match="100 concepts cannot be held out of 11"):
        open_source(spec)
    monkeypatch.setitem(HOLDOUT, "tuxpaint", 2)
    first = built_folder("tuxpaint", image_size=16, source=stamps)
    assert len(open_source(spec)) == 12 and built_folder("tuxpaint", image_size=16, source=stamps) == first
    stamp(find_stamps(stamps), "toys/toy0", "Another toy.")
    assert built_folder("tuxpaint", image_size=16, source=stamps) != first


def test_where_stamps_are_looked_for(tmp_path: Path, stamps: Path) -> None:
    inside = stamps / "usr/share/tuxpaint/stamps"
    assert find_stamps(stamps) == find_stamps(inside) == inside
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        find_stamps(tmp_path / "empty")
    assert str(caught.value) == (
        f"no Tux Paint stamps in {tmp_path / 'empty'}: install the package tuxpaint-stamps-default, or unpack it "
        "(apt-get download tuxpaint-stamps-default; dpkg -x FILE.deb DIR) and name its folder with --source DIR "
        "(source: in a recipe)"
    )
    with pytest.raises(ValueError, match=r"source: is the folder of tuxpaint's stamps; openmoji has none"):
        BuiltSource(name="openmoji", source="x")
