"""YAML 1.2 core schema: what is read, where it says it was, and that what is written reads back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlkit.errors import SpecError
from vlkit.spec.yaml12 import block_lines, flow, parse, quoted, scalar

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXTS, below, max_size=4), max_leaves=12
)


def read(text: str) -> object:
    root = parse(text, source="r.yaml")
    return None if root is None else root.plain()


def problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse(text, source="r.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    "word",
    ["no", "No", "NO", "yes", "on", "off", "y", "n", "12:30:45", "2020-01-01", "1_000", "0b1", "<<", "=", "tRue"],
)
def test_words_that_yaml_1_1_would_change_stay_texts(word: str) -> None:
    assert read(f"a: {word}") == {"a": word}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("+1.", 1.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
    ],
)
def test_floats_are_numbers(text: str, value: float) -> None:
    found = scalar(text)
    assert isinstance(found, float) and found == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("~", None),
        ("", None),
        ("Null", None),
        ("TRUE", True),
        ("false", False),
    ],
)
def test_other_core_scalars(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value and type(found) is type(value)


def test_a_number_too_long_for_int_is_an_infinite_float() -> None:
    assert scalar("9" * 5000) == math.inf


def test_quoted_scalars_are_texts() -> None:
    assert read("a: '5'\nb: \"true\"\nc: |\n  no\n") == {"a": "5", "b": "true", "c": "no\n"}


def test_language_list_is_texts() -> None:
    assert read("languages: [no, en, on, true, 3e-4]") == {"languages": ["no", "en", "on", True, 0.0003]}


def test_yaml_1_1_directive_changes_nothing() -> None:
    assert read("%YAML 1.1\n---\na: no\n") == {"a": "no"}


def test_every_value_knows_its_line() -> None:
    root = parse("a: 1\nb:\n  c: [2,\n    3]\n", source="r.yaml")
    assert root is not None and isinstance(root.value, dict)
    inner = root.value["b"]
    assert isinstance(inner.value, dict)
    items = inner.value["c"].value
    assert isinstance(items, list)
    assert [root.value["a"].where, inner.where, inner.value["c"].where] == ["r.yaml:1", "r.yaml:2", "r.yaml:3"]
    assert [item.where for item in items] == ["r.yaml:3", "r.yaml:4"]


def test_aliases_repeat_a_value_at_their_own_line() -> None:
    root = parse("a: &x {b: no}\nc: *x\n", source="r.yaml")
    assert root is not None and isinstance(root.value, dict)
    assert root.plain() == {"a": {"b": "no"}, "c": {"b": "no"}} and root.value["c"].where == "r.yaml:2"


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_nothing_is_none(text: str) -> None:
    assert read(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n\tc: 1\n", "r.yaml:3\n  a tab cannot indent YAML; use spaces"),
        ("a: [1,\n", "r.yaml:2\n  this is no YAML: expected the node content, but found 'the end of the text'"),
        (
            "a: b: c\n",
            "r.yaml:1\n  this is no YAML: a second ':' in one line; put the text in quotes, or start a new line",
        ),
        (
            "x: 1\na: @b\n",
            "r.yaml:2\n  this is no YAML: found character '@' that cannot start any token; put the text in quotes",
        ),
        ("a: 1\nb: \x01\n", "r.yaml:2\n  the character '\\x01' is not allowed in YAML"),
        ("a: 1\n---\nb: 2\n", "r.yaml:2\n  a second document; one file holds one"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "r.yaml:4  a.b\n  this key is already written at r.yaml:2; keep one of them"),
        (
            "a: !!python/object:os.system x\n",
            "r.yaml:1  a\n  tags (tag:yaml.org,2002:python/object:os.system) are not allowed; write the plain value",
        ),
        ("? [1, 2]\n: 3\n", "r.yaml:1\n  a key is a word, not a list, a map or an alias"),
        ("a: *x\n", "r.yaml:1  a\n  the alias *x comes before its anchor is complete"),
        ("a: &x [*x]\n", "r.yaml:1  a.0\n  the alias *x comes before its anchor is complete"),
        ('a: "\\ud800"\n', "r.yaml:1  a\n  half of a surrogate pair is no text"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, message: str) -> None:
    assert problems(text) == [message]


def test_all_duplicates_are_told_at_once() -> None:
    assert len(problems("a: 1\na: 2\nb: 1\nb: 2\n")) == 2


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    assert problems("[" * 5000) == ["r.yaml:1\n  more than 64 levels deep"]


def test_nested_aliases_cannot_fill_the_memory() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 7))
    assert problems(laughs) == ["r.yaml:1\n  more than 100000 values; are aliases nested in aliases?"]


@pytest.mark.parametrize(
    ("text", "written"),
    [("no", "no"), ("3e-4", '"3e-4"'), ("", '""'), ("query: ", '"query: "'), ("a b", "a b"), ("null", '"null"')],
)
def test_texts_are_quoted_only_where_they_must(text: str, written: str) -> None:
    assert quoted(text) == written


@settings(deadline=None, max_examples=60)
@given(VALUES)
def test_flow_round_trip(value: object) -> None:
    assert read(f"a: {flow(value)}") == {"a": value}


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
def test_block_round_trip(value: dict[str, object]) -> None:
    assert read("".join(line + "\n" for line, _ in block_lines(value))) == value
