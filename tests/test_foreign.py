import json
import unicodedata

import pytest
from markdown_it import MarkdownIt

from vlkit import foreign
from vlkit.errors import AssetError, DataError, VlkitError


def parse(raw, **given):
    return foreign.parse_json(raw, where="a.json:3", **given)


def test_json_is_read_with_and_without_a_byte_order_mark():
    assert parse(b'\xef\xbb\xbf{"a": [1, "\\ud83d\\ude00"]}') == {"a": [1, "😀"]}
    assert parse('\ufeff{"a": null}', expected=dict) == {"a": None}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a": "\xe9"}', "a.json:3: not UTF-8 text (byte 7); save it as UTF-8"),
        (b'{"a": }', "a.json:3: bad JSON: Expecting value: line 1 column 7 (char 6)"),
        (b"[" * 100_000, "a.json:3: bad JSON: nested too deeply"),
        (b'{"a":' * 100_000, "a.json:3: bad JSON: nested too deeply"),
        (
            '{"b": {"dog": 1, "dog": 2}}',
            "a.json:3: bad JSON: the key 'dog' stands twice in one object; keep one of them",
        ),
        (r'{"a": ["x\ud800"]}', r"a.json:3: bad JSON: half a character (\ud800) in 'x\\ud800'"),
        (r'{"\udfffk": 1}', r"a.json:3: bad JSON: half a character (\udfff) in '\\udfffk'"),
        ("1" * 5000, "a.json:3: bad JSON: Exceeds the limit"),
    ],
)
def test_bad_json_is_one_error_that_says_where(raw, said):
    with pytest.raises(DataError) as error:
        parse(raw)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("raw", "kind", "said"),
    [
        ("[]", dict, "expected an object, found a list"),
        ('{"a": 1}', list, "expected a list, found an object"),
        ("null", dict, "expected an object, found null"),
        ("3.5", list, "expected a list, found a number"),
    ],
)
def test_another_kind_of_value_is_named(raw, kind, said):
    with pytest.raises(AssetError, match=said):
        parse(raw, expected=kind, error=AssetError)


def test_a_file_above_the_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "big.json"
    path.write_text(json.dumps("x" * 1_100_000))
    monkeypatch.setenv(foreign.LIMIT, "1")
    with pytest.raises(DataError, match=r"big.json: 1 MB, more than the limit of 1 MB.*VLKIT_LIMIT_MB higher"):
        foreign.read_json(path)
    monkeypatch.setenv(foreign.LIMIT, "2")
    assert len(foreign.read_json(path)) == 1_100_000
    monkeypatch.setenv(foreign.LIMIT, "much")
    with pytest.raises(VlkitError, match="VLKIT_LIMIT_MB is 'much'"):
        foreign.read_json(path)


def test_text_is_cleaned_as_people_mean_it():
    assert foreign.clean(unicodedata.normalize("NFD", "고양이 é")) == "고양이 é"
    assert foreign.clean("\ufeff\u200fشیر\u202c \x1b[31m ") == "شیر [31m"
    persian, family = "می\u200cخواهم", "👨\u200d👩\u200d👧"
    assert (foreign.clean(persian), foreign.clean(family)) == (persian, family)
    with pytest.raises(DataError, match=r"half a character \(\\ud83d\)"):
        foreign.clean("a \ud83d")


def test_printed_text_does_nothing_to_a_terminal():
    assert foreign.printable("\x1b]0;title\x07 a\rb\x9b2J") == "\\x1b]0;title\\x07 a\\x0db\\x9b2J"
    assert foreign.printable("caf\udce9 \u202egnp.exe") == "caf\\xe9 \\u202egnp.exe"
    same = "zwölf\n\tशेर می\u200cخواهم 🏴\U000e0067 \u00a0"
    assert foreign.printable(same) == same


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@a", "\tx", "'quoted", "plain", "", "a=b", "''=x"])
def test_cells_are_no_formulas_and_give_the_text_back(text):
    cell = foreign.spreadsheet_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert foreign.from_spreadsheet_cell(cell) == text


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:alert(1))",
        "![x](https://example.com/seen.png)",
        "[x]: javascript:alert(1)",
        "70 [66.6-75.6] [[x]](javascript:alert(1)) [![y](z)](javascript:x)",
        "[x][y] <javascript:alert(1)> <img src=x onerror=alert(1)>",
        "[a](&#106;avascript:alert(1)) &lt;b&gt; AT&T",
        "*a* **b** _c_ `d` ~~e~~ snake_case \\ \\* a\\|b | c",
    ],
)
def test_text_in_markdown_stays_text(text):
    table = f"| {foreign.markdown_text(text)} | b |\n| --- | --- |\n| {foreign.markdown_text(text)} | d |\n"
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
    cells = [token.children for token in tokens if token.type == "inline"]
    assert len(cells) == 4
    assert {child.type for cell in cells for child in cell} <= {"text", "text_special"}
    assert ["".join(child.content for child in cells[place]) for place in (0, 2)] == [text, text]
    heading = MarkdownIt().parse(f"## {foreign.markdown_text(text)}: m\n")[1]
    assert "".join(child.content for child in heading.children) == f"{text}: m"
