"""Laws of the prompt templates: one slot each, in the language's own script."""

from __future__ import annotations

import unicodedata

import pytest

from vlkit import prompts
from vlkit.errors import DataError, UnknownName
from vlkit.languages import get, normalize

PROMISED = """en es ja ko pt it fr de fa id zh ru tr ar hi sw nl pl sv uk vi th cs el he fi ro da nb hu ca zh-Hant ms sl
hr sk bg gl eu"""
SCRIPT_NAMES = {
    "Latn": "LATIN", "Cyrl": "CYRILLIC", "Grek": "GREEK", "Hebr": "HEBREW", "Arab": "ARABIC", "Thai": "THAI",
    "Hans": "CJK", "Hant": "CJK", "Jpan": "CJK HIRAGANA", "Kore": "HANGUL", "Deva": "DEVANAGARI",
    "Beng": "BENGALI", "Taml": "TAMIL",
    "Telu": "TELUGU",
}  # fmt: skip
TABLES = prompts._tables()


@pytest.mark.parametrize("tag", PROMISED.split())
def test_promised_languages_have_templates(tag: str) -> None:
    assert 6 <= len(prompts.templates(tag)) <= 8


@pytest.mark.parametrize("tag", TABLES)
def test_every_table_is_well_formed(tag: str) -> None:
    lines = TABLES[tag]
    assert normalize(tag) == tag
    assert lines[-1] == "{}"
    assert len(set(lines)) == len(lines) >= 4
    for line in lines:
        prompts.check_template(line)
        assert line == unicodedata.normalize("NFC", line).strip()
        assert "  " not in line


@pytest.mark.parametrize("tag", TABLES)
def test_templates_are_written_in_the_script_of_the_language(tag: str) -> None:
    letters = [c for line in TABLES[tag] for c in line if c.isalpha()]
    allowed = tuple(SCRIPT_NAMES[get(tag).script].split())
    assert {c for c in letters if not unicodedata.name(c).startswith(allowed)} == set()


def test_the_key_no_problem_of_yaml_does_not_touch_the_tables() -> None:
    assert all(isinstance(tag, str) for tag in TABLES)
    assert prompts.templates("no") == prompts.templates("nb") != ("{}",)


def test_spellings_of_one_language_share_templates() -> None:
    assert prompts.templates("zh-TW") == prompts.templates("zho_Hant") == prompts.templates("zh-Hant")
    assert prompts.templates("zh-Hant") != prompts.templates("zh") == prompts.templates("cmn")
    assert prompts.templates("DE") == prompts.templates("German") == prompts.templates("deu_Latn")


def test_a_language_without_a_table_gets_the_bare_name() -> None:
    assert prompts.templates("quz") == ("{}",)


def test_an_unknown_language_is_an_error_not_the_bare_name() -> None:
    with pytest.raises(UnknownName, match="no language 'Germn'; did you mean 'German'"):
        prompts.templates("Germn")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "the template '' is blank; write '{}' for the bare class name"),
        (" \t", "the template ' \\t' is blank; write '{}' for the bare class name"),
        (
            "a photo",
            "the template 'a photo' has no slot; write {} where the class name goes, as in 'a photo of a {}.'",
        ),
        (
            "a photo of {c}",
            "the template 'a photo of {c}' has no slot; write {} where the class name goes, as in 'a photo of a {}.'",
        ),
        ("{} or {}", "the template '{} or {}' has 2 slots; keep one {}, where the class name goes"),
    ],
)
def test_a_wrong_template_is_named_with_its_fix(template: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        prompts.check_template(template)
    assert str(caught.value) == message
