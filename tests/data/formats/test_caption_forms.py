"""Captions of one record, in any of the forms that people write."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from vlkit.data.formats.caption_forms import CaptionError, parse_captions


def captions(record: dict[str, Any], language: str | None = None) -> dict[str, tuple[str, ...]]:
    return parse_captions(record, language=language)


def test_columns_that_tell_something_about_a_caption_are_no_captions() -> None:
    record = {
        "caption_id": 17, "caption_de": "Hund", "caption_length": 4, "caption_de_length": "4", "caption_en_source": "x",
        "caption_score": "0.7", "caption_en-model": "y", "caption_num_tokens": 3, "caption_url": "http://x",
    }  # fmt: skip
    assert captions(record) == {"de": ("Hund",)}
    for key in ("17", "cap_0017", "a3f-9"):
        assert captions({"caption": "dog", "caption_id": key}, "en") == {"en": ("dog",)}


def test_indonesian_is_still_a_language() -> None:
    assert captions({"caption_id": "seekor anjing", "caption_en": "a dog"}) == {
        "id": ("seekor anjing",),
        "en": ("a dog",),
    }
    assert captions({"caption_id": ["anjing", "2 anjing"]}) == {"id": ("anjing", "2 anjing")}
    assert captions({"caption_id": "anjing"}) == {"id": ("anjing",)}


def test_numbered_columns_are_several_captions() -> None:
    assert captions({"caption_de_1": "Hund", "caption_de_2": "Tier"}) == {"de": ("Hund", "Tier")}
    assert captions({"caption_0": "dog", "caption_1": "animal", "caption_2": ""}, "en") == {"en": ("dog", "animal")}
    assert captions({"caption_es_419": "perro", "caption_zh_Hant": "狗"}) == {"es": ("perro",), "zh-Hant": ("狗",)}
    with pytest.raises(CaptionError, match="no language 'dee'"):
        captions({"caption_dee": "Hund"})


def test_two_varieties_of_a_language_are_not_mixed() -> None:
    with pytest.raises(CaptionError, match="'pt-BR' and 'pt_PT' are both pt here; keep one of them"):
        captions({"captions": {"pt-BR": "trem", "pt_PT": "comboio"}})
    assert captions({"captions": {"deu": "Hund"}, "caption_de": "Tier"}) == {"de": ("Hund", "Tier")}
    assert captions({"captions": {"zh-Hans": "狗", "zh-Hant": "小狗"}}) == {"zh": ("狗",), "zh-Hant": ("小狗",)}


def test_captions_are_as_people_type_them() -> None:
    korean = "고양이"
    given = [unicodedata.normalize("NFD", korean), f"\ufeff{korean}\u200e \n", "می\u200cخواهم", "a\u2028b"]
    assert captions({"captions": {"ko": given[:2], "fa": given[2], "en": given[3]}}) == {
        "ko": (korean,),
        "fa": ("می\u200cخواهم",),
        "en": ("a b",),
    }
    with pytest.raises(CaptionError, match=r"half a character \(\\ud83d\)"):
        captions({"caption": "a \ud83d"}, "en")
