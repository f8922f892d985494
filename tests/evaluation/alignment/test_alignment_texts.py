"""Line-aligned texts: the forms they come in, and what is said when they do not fit together."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from tests.helpers.alignment_fakes import LINES, write_lines
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.alignment.parallel_texts import ParallelTexts, open_texts, read_files

FLORES = {"en": "eng_Latn", "de": "deu_Latn", "fr": "fra_Latn"}


def same(found: ParallelTexts) -> bool:
    return found.pivot == "en" and {tag: list(lines) for tag, lines in found.lines.items()} == LINES


def test_a_folder_of_txt_files_flores_and_named_files_are_one(tmp_path: Path) -> None:
    plain = write_lines(tmp_path / "plain")
    (plain / "README.md").write_text("not a text")
    flores = write_lines(tmp_path / "flores" / "devtest", names=FLORES, suffix=".devtest")
    write_lines(tmp_path / "flores" / "dev", names=FLORES, suffix=".dev")
    (tmp_path / "flores" / "dev" / "eng_Latn.dev").write_text("another\nset")
    for name in (plain, flores, flores.parent):
        assert same(open_texts(str(name)))
    listed = ",".join(f"{code}={plain / code}.txt" for code in LINES)
    assert same(open_texts(listed)) and open_texts(listed).digest != open_texts(str(plain)).digest
    (tmp_path / "de.gz").write_bytes(gzip.compress("\n".join(LINES["de"]).encode()))
    assert same(read_files({"en": plain / "en.txt", "ger": tmp_path / "de.gz", "French": plain / "fr.txt"}))


def test_pivot_languages_and_a_limit_can_be_chosen(tmp_path: Path) -> None:
    folder = str(write_lines(tmp_path))
    found = open_texts(folder, pivot="german", languages=["fra"])
    assert (found.pivot, found.choose(None)) == ("de", ("fr",))
    assert found.choose(["fr", "French", "de"]) == ("fr",)
    shorter = found.first(2)
    assert shorter.lines["fr"] == tuple(LINES["fr"][:2]) and shorter.keys == ("1", "2") and found.first(None) == found
    with pytest.raises(DataError, match="limit = 1: need at least 2 lines"):
        found.first(1)
    with pytest.raises(UnknownName, match=re.escape(f"no language of {folder} 'sw'")):
        found.choose(["sw"])
    with pytest.raises(DataError, match="no language beside the pivot 'de'"):
        found.choose(["de"])


def test_blank_lines_are_pairs_left_out(tmp_path: Path) -> None:
    folder = write_lines(tmp_path)
    (folder / "de.txt").write_text("\n".join(["  ", *LINES["de"][1:]]) + "\n")
    (folder / "en.txt").write_text("\r\n".join([*LINES["en"][:2], "", *LINES["en"][3:]]) + "\r\n")
    found = open_texts(str(folder))
    assert found.rows("de") == [1, 3, 4, 5] and found.rows("fr") == [0, 1, 3, 4, 5] and found.lines["en"][0] == "a cat"
    (folder / "fr.txt").write_text("un chat\n\n\n\n\n\n")
    message = "fr.txt: 1 of 6 lines have a text here and in .*en.txt; need at least two (blank here: 5 (2, 3, 4, 5, 6))"
    with pytest.raises(DataError, match=re.escape(message).replace(re.escape(".*"), ".*")):
        open_texts(str(folder))


def test_files_of_other_lengths_are_named_with_their_counts(tmp_path: Path) -> None:
    folder = write_lines(tmp_path)
    (folder / "de.txt").write_text("eins\nzwei\n")
    (folder / "fr.txt").write_text("un\n" * 9)
    with pytest.raises(DataError) as caught:
        open_texts(str(folder))
    said = str(caught.value)
    assert f"{folder / 'de.txt'} has 2 lines and {folder / 'en.txt'} has 6; line n of each must say the same" in said
    assert f"{folder / 'fr.txt'} has 9 lines" in said and "a line without a translation be left blank" in said


def test_unknown_codes_are_named_unless_other_languages_were_asked_for(tmp_path: Path) -> None:
    folder = write_lines(tmp_path)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"notes.txt: no language 'notes'.*Rename the file, or name the languages"):
        open_texts(str(folder))
    assert same(open_texts(str(folder), languages=["de", "fr"]))
    with pytest.raises(UnknownName, match="no language 'xx-yy'"):
        open_texts(str(folder), languages=["xx-yy"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("{}", {"pivot": "sw"}, "no pivot in {} 'sw'; there are: de, en, fr. Each language needs a file"),
        ("{}", {"languages": ["sw"]}, "no language in {} 'sw'"),
        ("{}/none", {}, "no folder of texts {}/none; give emoji-names, a folder of LANGUAGE.txt files"),
        ("{}/empty", {}, "{}/empty: no texts; expected one file a language, as en.txt"),
        ("{}/two", {}, "deu.txt are both de; take one away"),
        ("en={}/en.txt,de", {}, "'de' should read LANGUAGE=FILE"),
        ("en={}/en.txt,en={}/de.txt", {}, "'en' stands there twice"),
        ("en={}/en.txt,de={}/none.txt", {}, "cannot read {}/none.txt: no such file"),
        ("en={}/en.txt,de={}/hollow.md", {}, "hollow.md: the file is empty"),
        ("en={}/en.txt", {"languages": ["fr"]}, "no language in en={}/en.txt 'fr'"),
    ],
)
def test_what_is_wrong_is_said(name: str, options: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = write_lines(tmp_path)
    (folder / "empty").mkdir()
    write_lines(folder / "two")
    (folder / "two" / "deu.txt").write_text("eins\n")
    (folder / "hollow.md").write_text("")
    with pytest.raises(VlkitError) as caught:
        open_texts(name.replace("{}", str(folder)), **options)  # type: ignore[arg-type]
    assert message.replace("{}", str(folder)) in str(caught.value)


@pytest.mark.assets
def test_emoji_names_are_the_classes_of_the_zero_shot_task() -> None:
    from vlkit.data.sources.open import open_sources
    from vlkit.evaluation.tasks.zero_shot_task import openmoji_unseen
    from vlkit.spec.dataset import DataSpec
    from vlkit.spec.sources import BuiltSource

    found = open_texts("emoji-names")
    task = openmoji_unseen(open_sources(DataSpec(sources=(BuiltSource(name="openmoji"),)), split="test"))
    assert found.keys == tuple(sample.key for sample in task.samples) and len(found.keys) == 300
    for tag, lines in found.lines.items():
        assert lines == tuple(names[0] for names in task.names[tag] if names)
    assert set(found.lines) == set(task.names) and len(found.choose(None)) == 13
    with pytest.raises(UnknownName, match="no language of the emoji names 'sw'"):
        open_texts("emoji-names", languages=["sw"])
