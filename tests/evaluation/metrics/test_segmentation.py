"""Words of languages without blanks: characters, libraries that are there or not, and what results say of them."""

from __future__ import annotations

import sys
import unicodedata
from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vlkit.errors import MissingPackage, UnknownName, VlkitError
from vlkit.evaluation.metrics.caption_scores import CaptionReferences
from vlkit.evaluation.metrics.segmentation import SEGMENTERS, USUAL, caption_words
from vlkit.evaluation.metrics.text_match import UNSPACED

PACKAGES = ("rjieba", "sudachipy", "sudachidict_core", "pythainlp.tokenize", "icu4py.breakers")
VERSIONS = {"rjieba": "0.2.2", "sudachipy": "0.7.0", "sudachidict_core": "20261015", "pythainlp": "5.4.0"}


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Packages that cut texts in two, called as the real ones are; gives what they were told."""
    told: list[str] = []

    def cut(text: str, **settings: Any) -> list[str]:
        told.append(f"{text} {settings}" if settings else text)
        return [text[: len(text) // 2], " ", text[len(text) // 2 :]]

    class Dictionary:
        def __init__(self, *, dict: str) -> None:
            told.append(dict)

        def tokenizer(self, *, mode: str) -> Any:
            told.append(mode)
            surfaces = [SimpleNamespace(surface=lambda one=one: one) for one in ("黒い", "猫")]
            return SimpleNamespace(tokenize=lambda text: surfaces)

    members: dict[str, dict[str, Any]] = {
        "rjieba": {"cut": cut},
        "sudachidict_core": {},
        "sudachipy": {"Dictionary": Dictionary, "SplitMode": SimpleNamespace(A="A")},
        "pythainlp.tokenize": {"word_tokenize": cut},
        "icu4py.breakers": {"WordBreaker": lambda text, locale: cut(text)},
    }
    for name, inside in members.items():
        module = ModuleType(name)
        vars(module).update(inside)
        monkeypatch.setitem(sys.modules, name, module)
        if "." in name:
            monkeypatch.setitem(sys.modules, name.partition(".")[0], ModuleType(name.partition(".")[0]))
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: VERSIONS.get(name) or real(name))
    return told


def test_words_between_blanks_are_taken_as_they_are() -> None:
    english = caption_words("en")
    assert english("Two dogs' toys.") == ("two", "dogs", "toys") and english.said == "PTB" and not english.lacking
    assert caption_words("vi")("Một con mèo") == ("một", "con", "mèo")


@pytest.mark.usefixtures("missing")
@pytest.mark.parametrize(
    ("language", "text", "words", "package"),
    [
        ("zh", "一只黑猫。", "一 只 黑 猫 。", "rjieba"),
        ("zh-Hant", "T恤 A1", "t 恤 a 1", "rjieba"),
        ("ja", "パン，ガ", "パ ン ， ガ", "sudachipy"),
        ("th", "ที่นี่", "ที่ นี่", "pythainlp"),
        ("km", "ឆ្មា", "ឆ្ មា", "icu4py"),
        ("lo", "ນັ່ງ", "ນັ່ ງ", "icu4py"),
        ("my", "ကြောင်", "ကြော င်", "icu4py"),
    ],
)
def test_without_a_library_characters_are_words_and_results_say_so(
    language: str, text: str, words: str, package: str
) -> None:
    found = caption_words(language)
    assert found(text) == tuple(words.split(" ")) == found(unicodedata.normalize("NFD", text))
    assert found.said == f"characters ({package} is not installed) + PTB" and found.lacking == package
    asked = caption_words(language, "characters")
    assert asked(text) == found(text) and asked.said == "characters + PTB" and not asked.lacking


@pytest.mark.usefixtures("missing")
@pytest.mark.parametrize("name", sorted(set(USUAL.values())))
def test_a_library_that_is_asked_for_has_to_be_there(name: str) -> None:
    with pytest.raises(MissingPackage) as caught:
        caption_words("en", name)
    said = f"cutting texts without blanks into words needs the package '{name}', which is not installed; run: pip "
    assert str(caught.value).startswith(said)


def test_what_no_segmenter_can_do_is_told() -> None:
    with pytest.raises(UnknownName) as unknown:
        caption_words("zh", "jeiba")
    assert str(unknown.value) == (
        "no segmenter 'jeiba'; did you mean 'rjieba'? See the section Text metrics of docs/vlm_evaluation.md."
    )
    with pytest.raises(VlkitError) as unspaced:
        caption_words("th", "blanks")
    assert str(unspaced.value) == (
        "segmenter 'blanks' for th, which is written without blanks: its sentences would be one word; take "
        "'characters' or one of icu4py, pythainlp, rjieba, sudachipy"
    )


def test_libraries_are_told_the_text_and_named_with_their_versions(installed: list[str]) -> None:
    chinese, japanese, thai, khmer = map(caption_words, ("zh", "ja", "th", "km"))
    assert chinese("一只黑猫") == ("一只", "黑猫") == chinese("一只黑猫") and japanese("黒い猫") == ("黒い", "猫")
    assert thai("แมวดำ")[0] == "แม" and khmer("ឆ្មាខ្មៅ")
    assert installed == ["core", "A", "一只黑猫", "แมวดำ {'engine': 'newmm'}", "ឆ្មាខ្មៅ"]  # each text once
    assert [chinese.said, thai.said] == ["rjieba 0.2.2 + PTB", "pythainlp 5.4.0 + PTB"]
    assert japanese.said == "sudachipy 0.7.0 with sudachidict_core 20261015 + PTB"


@pytest.mark.parametrize(
    ("package", "language", "text", "words"),
    [
        ("rjieba", "zh", "一只黑猫坐在草地上。", "一只 黑猫 坐在 草地 上 。"),
        ("sudachipy", "ja", "黒い猫が草の上に座っている。", "黒い 猫 が 草 の 上 に 座っ て いる 。"),
        ("pythainlp", "th", "แมวดำนั่งอยู่บนหญ้า", "แมว ดำ นั่ง อยู่ บน หญ้า"),
        ("icu4py", "km", "ឆ្មាខ្មៅអង្គុយលើស្មៅ។", "ឆ្មា ខ្មៅ អង្គុយ លើ ស្មៅ ។"),
        ("icu4py", "lo", "ແມວດຳນັ່ງຢູ່ເທິງຫຍ້າ", "ແມວ ດຳ ນັ່ງ ຢູ່ ເທິງ ຫຍ້າ"),
        ("icu4py", "my", "ကြောင်မြက်ပေါ်မှာ", "ကြောင် မြက် ပေါ် မှာ"),
        ("icu4py", "bo", "ཞི་མི་ནག་པོ།", "ཞི ་ མི ་ ནག ་ པོ །"),
    ],
)
def test_the_libraries_themselves_where_they_are_installed(package: str, language: str, text: str, words: str) -> None:
    pytest.importorskip(package)
    found = caption_words(language)
    assert " ".join(found(unicodedata.normalize("NFD", text))) == unicodedata.normalize("NFC", words)
    assert found.said.startswith(f"{package} {metadata.version(package)}") and not found.lacking


def test_one_of_the_users_own_is_taken_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SEGMENTERS, "_entries", dict(SEGMENTERS._entries))
    SEGMENTERS.add("pairs", "tests.evaluation.metrics.test_segmentation:Pairs")
    words = caption_words("zh", "pairs")
    assert words("一只黑猫") == ("一只", "黑猫") and words.said == "pairs + PTB"
    scores = CaptionReferences([["一只黑猫"], ["两只狗"]], words).rouge_l(["一只白猫", "两只狗"])
    assert scores.tolist() == [0.5, 1.0]


class Pairs:
    """Two characters are a word."""

    def __call__(self, text: str) -> list[str]:
        return [text[place : place + 2] for place in range(0, len(text), 2)]


def test_every_script_without_blanks_has_a_usual_segmenter() -> None:
    assert set(USUAL) == UNSPACED and set(USUAL.values()) < set(SEGMENTERS)
