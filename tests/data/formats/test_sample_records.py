"""Records of samples: captions or the turns of a conversation in any of its forms, and what is known of them."""

from __future__ import annotations

from typing import Any

import pytest

from vlkit.data.formats.caption_forms import CaptionError
from vlkit.data.formats.conversation_forms import check_places
from vlkit.data.formats.sample_records import SampleRecord, parse_record, read_record
from vlkit.types import Sample, Turn

ASKED = (Turn("user", "<image>\nWas ist das?", "de"), Turn("assistant", "Ein Hund.\nBraun.", "de"))


@pytest.mark.parametrize("plain", [True, False])
def test_a_byte_order_mark_in_a_member_is_no_text(plain: bool) -> None:
    raw = b"\xef\xbb\xbf" + (b"dog" if plain else b'{"caption": "dog"}')
    assert read_record(raw, plain=plain, language="en").captions == {"en": ("dog",)}


def test_zero_is_a_value() -> None:
    found = read_record(b'{"caption": "dog", "concept": 0, "split": 0, "license": 0}', plain=False, language="en")
    assert (found.concept, found.split, found.license) == ("0", "0", "0")
    found = read_record(b'{"caption": "dog", "concept": null, "split": "", "license": " "}', plain=False, language="en")
    assert (found.concept, found.split, found.license) == ("", "train", "")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("[" * 10**5, "its captions: bad JSON: nested too deeply"),
        ('{"caption": "a", "caption": "b"}', "the key 'caption' stands twice"),
        ('{"caption": "\\ud800"}', "half a character"),
        ("7", "its captions: expected an object, found a number"),
    ],
)
def test_bad_json_is_a_caption_error(raw: str, said: str) -> None:
    with pytest.raises(CaptionError, match=said):
        read_record(raw.encode(), plain=False, language="en")


def read(record: dict[str, Any], language: str | None = None) -> SampleRecord:
    return parse_record(record, language=language)


@pytest.mark.parametrize(
    "record",
    [
        {"turns": [{"role": one.role, "text": one.text, "language": "deu"} for one in ASKED]},
        {"turns": [{"role": one.role, "text": one.text} for one in ASKED], "language": "de"},
        {
            "id": "1",
            "conversations": [{"from": "human", "value": ASKED[0].text}, {"from": "gpt", "value": f"{ASKED[1].text} "}],
            "lang": "DE",
        },
        {"context": ASKED[0].text, "label": ASKED[1].text, "lang": "de"},
        {"context": ["<image_placeholder>\nWas ist das?"], "label": [ASKED[1].text], "lang": "de"},
        {"context": ASKED[0].text, "label": "", "text_label": [ASKED[1].text, "Ein Tier."], "language": "de"},
    ],
)
def test_all_forms_of_a_conversation_are_one(record: dict[str, Any]) -> None:
    assert read(record).turns == ASKED
    assert read({**record, "caption": "passed over", "captions": {"en": "too"}}, "en").captions == {}


def test_several_turns_and_languages() -> None:
    found = read(
        {
            "turns": [
                {"role": "system", "text": "Be kind.", "language": "en"},
                {"role": "user", "text": "", "language": "en"},
                {"role": "assistant", "text": "ndiyo"},
                {"role": "user", "text": "<image> <image> Et ici ?", "language": "fr"},
                {"role": "assistant", "text": "oui", "language": "fr"},
            ],
            "language": "sw",
        }
    )
    assert [turn.language for turn in found.turns] == ["en", "en", "sw", "fr", "fr"]
    assert Sample("a", (), {}, turns=found.turns).counts() == {"sw": 1, "fr": 1}
    check_places(found.turns, 2)
    with pytest.raises(CaptionError) as caught:
        check_places(found.turns, 1)
    assert str(caught.value) == "its turns have 2 places for images (<image>), and it has 1 image"
    with pytest.raises(CaptionError, match=r"1 place for images \(<image>\), and it has no images"):
        check_places(ASKED, 0)


def test_what_is_known_of_a_sample_is_read() -> None:
    found = read({"caption": "dog", "task": "ocr", "translated": True, "keywords": ["Hund ", " ", "Dackel"]}, "en")
    assert (found.task, found.translated, found.keywords) == ("ocr", True, ("Hund", "Dackel"))
    assert [read({"caption": "a", "translated": one}, "en").translated for one in ("no", "1", None, "")] == [
        False, True, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"turns": "x"}, "'turns' must be a list of objects such as {'role': 'user', 'text': '...'}"),
        ({"conversations": [["human", "x"]]}, "'conversations' must be a list of objects such as {'from': 'user'"),
        ({"turns": [{"role": "usr", "text": "x"}]}, "turn 1: 'role' is 'usr'; did you mean 'user'?"),
        ({"turns": [{"role": "user", "text": 7}]}, "turn 1: 'text' is a number, expected text"),
        ({"turns": [{"role": "user", "text": "x"}]}, "its conversation has no answer (a turn of the assistant)"),
        ({"turns": [{"role": "assistant", "text": " "}]}, "turn 1: 'text' is empty; an answer needs text"),
        (
            {"turns": [{"role": "assistant", "text": "x", "language": "Germn"}]},
            "no language 'Germn'; did you mean 'German'",
        ),
        ({"context": ["a", "b"], "label": "x"}, "'context' has 2 texts and 'label' 1; each needs its answer"),
        ({"context": "a", "label": ""}, "'label' is empty; an answer needs text"),
        ({"caption": "x", "translated": "perhaps"}, "'translated' is 'perhaps', expected true or false"),
        ({"caption": "x", "keywords": "a, b"}, "'keywords' must be a list of texts, found text"),
    ],
)
def test_wrong_records_are_told(record: dict[str, Any], said: str) -> None:
    with pytest.raises(CaptionError) as caught:
        read(record, "en")
    assert str(caught.value).startswith(said)


def test_turns_need_a_language() -> None:
    with pytest.raises(CaptionError) as caught:
        read({"context": "a", "label": "b"})
    assert str(caught.value) == (
        "'context' has no language: add a 'language' field or set the source's language (language: en)"
    )
