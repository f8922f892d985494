"""YAML 1.2 (core schema) read into a tree in which every value knows where it was written, and written back.

`no` stays a text and `3e-4` is a number. There are no tags: reading a file can build texts, numbers, booleans, nulls,
lists and maps, and nothing else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from vlkit.errors import SpecError

Scalar = str | int | float | bool | None

_SCALARS: tuple[tuple[str, Callable[[str], Scalar]], ...] = (
    (r"null|Null|NULL|~|", lambda text: None),
    (r"true|True|TRUE", lambda text: True),
    (r"false|False|FALSE", lambda text: False),
    (r"(?=.{1,399}\Z)[-+]?[0-9]+", int),  # longer ones are infinite floats; int() refuses them
    (r"0o[0-7]+|0x[0-9a-fA-F]+", lambda text: int(text, 0)),
    (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
    (r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", lambda text: float(text.replace(".", ""))),
)
_PLAIN = re.compile(r"[\w./][\w./+-]*( [\w./+-]+)*")
_MAX_DEPTH = 64
_MAX_NODES = 100_000  # aliases are shared in memory but not in what is checked and printed
_MAX_SHOWN = 72


@dataclass(frozen=True)
class Node:
    """A value with the place it comes from: ``file:line``, ``command line`` or ``default``."""

    value: Scalar | dict[str, Node] | list[Node]
    where: str

    def plain(self) -> Any:
        """The value alone: scalars, dicts and lists."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def from_plain(value: Any, where: str) -> Node:
    """A tree of one origin out of scalars, dicts, lists and tuples."""
    if isinstance(value, dict):
        return Node({key: from_plain(child, where) for key, child in value.items()}, where)
    if isinstance(value, list | tuple):
        return Node([from_plain(child, where) for child in value], where)
    return Node(value, where)


def problem(where: str, text: str, *, key: str = "", value: Any = ...) -> str:
    """One entry of a SpecError: the place, the key with its value (none for ``...``), and below it what is wrong."""
    shown = "" if value is ... else f" = {shorten(flow(value))}"
    head = f"{where}  {key}{shown}" if key else where
    return f"{head}\n  {text}"


def scalar(text: str) -> Scalar:
    """What an unquoted scalar means in the core schema of YAML 1.2 (section 10.3.2)."""
    return next((meant(text) for pattern, meant in _SCALARS if re.fullmatch(pattern, text)), text)


def parse(text: str, *, source: str, numbered: bool = True) -> Node | None:
    """Reads one YAML document; None when it holds nothing but comments.

    ``source`` is what its values are said to come from, a file's name or ``command line``; ``numbered`` adds the line
    (``source:3``).

    Raises:
        SpecError: It is no YAML, writes a key twice, or uses tags.
    """
    builder = _Builder(source, numbered)
    try:
        root = builder.document(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SpecError([problem(builder.at(mark.line if mark else 0), _syntax(error, text))]) from error
    except ReaderError as error:
        where = builder.at(text.count("\n", 0, error.position))
        said = f"the character {text[error.position]!r} is not allowed in YAML"
        raise SpecError([problem(where, said)]) from error
    except YAMLError as error:
        raise SpecError([problem(builder.at(0), f"this is no YAML: {error}")]) from error
    if builder.problems:
        raise SpecError(builder.problems)
    return root


def _syntax(error: MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        return "a tab cannot indent YAML; use spaces"
    words = error.problem or "unreadable"
    words = words.replace("<stream end>", "the end of the text").replace("<block end>", "the next key")
    if "cannot start any token" in words:
        words += "; put the text in quotes"
    if words.startswith("mapping values are not allowed"):
        words = "a second ':' in one line; put the text in quotes, or start a new line"
    return f"this is no YAML: {words}"


class _Builder:
    """Turns parse events into nodes; collects what is wrong but readable."""

    def __init__(self, source: str, numbered: bool) -> None:
        self.source, self.numbered = source, numbered
        self.problems: list[str] = []
        self.total = 0
        self.anchors: dict[str, tuple[Node, int]] = {}  # with the number of values in it

    def at(self, line: int) -> str:
        return f"{self.source}:{line + 1}" if self.numbered else self.source

    def document(self, stream: Iterator[Any]) -> Node | None:
        root = None
        for event in stream:
            if isinstance(event, events.DocumentStartEvent) and root is not None:
                self.problems.append(problem(self.at(event.start_mark.line), "a second document; one file holds one"))
                break
            if isinstance(event, events.NodeEvent):
                root = self.node(event, stream, path=(), where=None)
        return root

    def node(self, event: Any, stream: Iterator[Any], *, path: tuple[str, ...], where: str | None) -> Node:
        where, key = where or self.at(event.start_mark.line), ".".join(path)
        if isinstance(event, events.AliasEvent):
            if event.anchor not in self.anchors:
                text = f"the alias *{event.anchor} comes before its anchor is complete"
                raise SpecError([problem(where, text, key=key)])
            node, size = self.anchors[event.anchor]
            self.count(size)
            return Node(node.value, where)
        before = self.total
        self.count(1)
        if len(path) > _MAX_DEPTH:
            raise SpecError([problem(where, f"more than {_MAX_DEPTH} levels deep")])
        if event.tag is not None:
            self.problems.append(problem(where, f"tags ({event.tag}) are not allowed; write the plain value", key=key))
        if isinstance(event, events.MappingStartEvent):
            built = Node(self.mapping(stream, path), where)
        elif isinstance(event, events.SequenceStartEvent):
            built = Node(self.sequence(stream, path), where)
        else:
            built = Node(event.value if event.style else scalar(event.value), where)
            if isinstance(built.value, str) and not encodable(built.value):
                self.problems.append(problem(where, "half of a surrogate pair is no text", key=key))
        if event.anchor:
            self.anchors[event.anchor] = built, self.total - before
        return built

    def count(self, more: int) -> None:
        self.total += more
        if self.total > _MAX_NODES:
            raise SpecError([problem(self.at(0), f"more than {_MAX_NODES} values; are aliases nested in aliases?")])

    def mapping(self, stream: Iterator[Any], path: tuple[str, ...]) -> dict[str, Node]:
        children: dict[str, Node] = {}
        while not isinstance(key := next(stream), events.MappingEndEvent):
            where = self.at(key.start_mark.line)
            if not isinstance(key, events.ScalarEvent):
                raise SpecError([problem(where, "a key is a word, not a list, a map or an alias", key=".".join(path))])
            name = str(key.value)
            if name in children:
                text = f"this key is already written at {children[name].where}; keep one of them"
                self.problems.append(problem(where, text, key=".".join((*path, name))))
            children[name] = self.node(next(stream), stream, path=(*path, name), where=where)
        return children

    def sequence(self, stream: Iterator[Any], path: tuple[str, ...]) -> list[Node]:
        children: list[Node] = []
        while not isinstance(item := next(stream), events.SequenceEndEvent):
            children.append(self.node(item, stream, path=(*path, str(len(children))), where=None))
        return children


def encodable(text: str) -> bool:
    """Whether a text is free of halves of surrogate pairs, which UTF-8 cannot hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def quoted(text: str) -> str:
    """A text as YAML: bare where it then reads back as the same text, else in double quotes on one line."""
    if _PLAIN.fullmatch(text) and isinstance(scalar(text), str) and text.isprintable():
        return text
    escaped = json.dumps(text, ensure_ascii=False)
    return "".join(character if character.isprintable() else _escape(character) for character in escaped)


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def flow(value: Any) -> str:
    """Any plain value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)}: {flow(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(child) for child in value) + "]"
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return repr(value)


def shorten(text: str) -> str:
    """At most 72 characters, the rest as an ellipsis."""
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def block_lines(value: dict[str, Any], *, indent: str = "", prefix: str = "") -> Iterator[tuple[str, str]]:
    """The lines of a map as block YAML, each with the dotted key of its value ("" where it only opens a level)."""
    for key, child in value.items():
        path = prefix + key
        if isinstance(child, dict) and child:
            yield f"{indent}{quoted(key)}:", ""
            yield from block_lines(child, indent=indent + "  ", prefix=path + ".")
        elif isinstance(child, list | tuple) and any(isinstance(item, dict) for item in child):
            yield f"{indent}{quoted(key)}:", ""
            for index, item in enumerate(child):
                yield from _item_lines(item, indent=indent + "  ", path=f"{path}.{index}")
        else:
            yield f"{indent}{quoted(key)}: {flow(child)}", path


def _item_lines(item: Any, *, indent: str, path: str) -> Iterator[tuple[str, str]]:
    if not (isinstance(item, dict) and item):
        yield f"{indent}- {flow(item)}", path
        return
    for number, (line, key) in enumerate(block_lines(item, indent=indent + "  ", prefix=path + ".")):
        yield (f"{indent}- {line[len(indent) + 2 :]}" if number == 0 else line), key
