"""Says what is wrong with a recipe: every fault at its place, in plain words, with what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vlkit.errors import nearest
from vlkit.spec.base import Spec
from vlkit.spec.schema import Shape, kind_of, leaves, shape_of_map, step
from vlkit.spec.yaml12 import Node, problem, quoted, scalar


def problems_of(error: ValidationError, root: Node, spec: type[Spec]) -> list[str]:
    """One entry for each fault that pydantic found in ``root``.

    Below a map of the wrong kind nothing else is judged; a fault that follows from one further down is left out.
    """
    faults = [_Fault(details, root, spec) for details in error.errors(include_url=False)]
    unknown = [fault.keys[:-1] for fault in faults if fault.is_fixed_kind()]
    judged = [
        one for one in faults if one.is_fixed_kind() or not any(one.keys[: len(keys)] == keys for keys in unknown)
    ]
    told = (fault.describe() for fault in judged if not any(other.is_below(fault) for other in judged))
    return list(dict.fromkeys(told))  # the branches of a plain union tell the same


def unfinite(root: Node, keys: tuple[str, ...] = ()) -> Iterator[str]:
    """A problem for every infinite number or not-a-number of a tree."""
    children: Sequence[tuple[str, Node]] = ()
    if isinstance(root.value, dict):
        children = list(root.value.items())
    elif isinstance(root.value, list):
        children = [(str(index), child) for index, child in enumerate(root.value)]
    elif isinstance(root.value, float) and not math.isfinite(root.value):
        yield problem(root.where, "should be a finite number", key=_dotted(keys), value=root.value)
    for key, child in children:
        yield from unfinite(child, (*keys, key))


class _Fault:
    """One pydantic error, led back to what the user wrote."""

    def __init__(self, details: ErrorDetails, root: Node, spec: type[Spec]) -> None:
        self.details, self.type = details, details["type"]
        self.keys: list[str] = []
        self.shape: Shape | None = shape_of_map(spec)  # of the faulty value; None for an unknown key
        self.owner: Shape = shape_of_map(spec)  # the innermost map or list on the way
        self.kinds: Mapping[str, type[Spec]] = {}  # of the innermost map, where it varies by kind
        self.node: Node | None = root  # None when it is missing
        self.where = root.where
        for part in details["loc"]:
            self._walk(str(part))

    def _walk(self, part: str) -> None:
        if self.shape is not None and self.shape.kinds and part in self.shape.kinds:
            self.kinds = self.shape.kinds
            self.shape = shape_of_map(self.shape.kinds[part])  # the tag of a union, which the user never typed
            self.owner = self.shape
            return
        below = step(self.shape, part)
        if self.shape is not None and not (self.shape.spec or self.shape.item or self.shape.values):
            return  # the branch of a plain union, which the user never typed either
        if self.shape is not None and self.shape.spec not in self.kinds.values():
            self.kinds = {}
        children = self.node.value if self.node is not None else None
        if isinstance(children, list) and part.isdecimal() and int(part) >= len(children):
            return  # an item too few: the list is what is wrong
        self.owner, self.shape = self.shape or self.owner, below
        self.keys.append(part)
        if isinstance(children, dict):
            self.node = children.get(part)
        elif isinstance(children, list) and part.isdecimal():
            self.node = children[int(part)]
        else:
            self.node = None
        self.where = self.node.where if self.node is not None else self.where

    def is_below(self, other: _Fault) -> bool:
        """Whether it lies further down the same branch."""
        return len(self.keys) > len(other.keys) and self.keys[: len(other.keys)] == other.keys

    def describe(self) -> str:
        """The entry: place, key and value, and what is wrong below."""
        if self.type in ("union_tag_invalid", "union_tag_not_found") or self.is_fixed_kind():
            return self._bad_kind()
        text = self._unknown_key() if self.type == "extra_forbidden" else self._sentence()
        return problem(
            self.where, text, key=_dotted(self.keys) or "recipe", value=self.node.plain() if self.node else ...
        )

    def is_fixed_kind(self) -> bool:
        """Whether it is the `kind` of a map that has but one."""
        return self.type == "literal_error" and self.keys[-1] == "kind"

    def _bad_kind(self) -> str:
        node, keys = self.node, self.keys
        kinds = [str(choice) for choice in self.shape.kinds or self.shape.choices] if self.shape else []
        if not self.is_fixed_kind():
            keys = [*keys, "kind"]
            children = node.value if node is not None and isinstance(node.value, dict) else {}
            node = children.get("kind")
        if node is None:
            return problem(self.where, f"missing; kinds: {', '.join(kinds)}", key=_dotted(keys))
        close = nearest(str(node.value), kinds)
        guess = f" did you mean {' or '.join(map(repr, close))}? " if close else ""
        return problem(
            node.where, f"no such kind;{guess} kinds: {', '.join(kinds)}", key=_dotted(keys), value=node.plain()
        )

    def _unknown_key(self) -> str:
        spec, key = self.owner.spec, self.keys[-1]
        if spec is None:
            return "no such key"
        takes = [name for name in spec.model_fields if name != "kind"]
        listed = f"{kind_of(spec)} takes: {', '.join(takes) or 'no keys'}"
        if key in spec.renamed:
            return f"no such key; it is called {_dotted([*self.keys[:-1], spec.renamed[key]])} now.  {listed}"
        if close := nearest(key, [*takes, *(["extends"] if len(self.keys) == 1 else [])], count=1):
            return f"no such key; did you mean {close[0]!r}?  {listed}"
        if siblings := [kind for kind, other in self.kinds.items() if key in other.model_fields]:
            return f"no such key; it belongs to kind {' and '.join(siblings)}.  {listed}"
        prefix = "".join(part + "." for part in self.keys[:-1])
        if deeper := {
            path for path in leaves(shape_of_map(spec), prefix) if path.endswith("." + key) and ".0." not in path
        }:
            return f"no such key; did you mean {' or '.join(map(repr, sorted(deeper)))}?  {listed}"
        return f"no such key; {listed}"

    def _sentence(self) -> str:
        if self.type == "value_error":
            return str(self.details["msg"]).removeprefix("Value error, ")
        words = _with_article(self.shape) if self.shape is not None else "left out"
        if self.node is None:
            return f"missing; should be {words}"
        return f"should be {words}{self._hint()}"

    def _hint(self) -> str:
        value, shape = self.node.value if self.node else None, self.shape
        if shape is None:
            return ""
        if shape.choices and (close := nearest(str(value), map(str, shape.choices))):
            return f"; did you mean {' or '.join(map(repr, close))}?"
        wanted = shape.words.partition(" ")[0]
        if wanted == "text" and isinstance(value, int | float) and not isinstance(value, bool):
            quotes = "'\"{}\"'" if self.where == "command line" else '"{}"'
            return f"; in quotes it is one: {quotes.format(value)}"
        if wanted in ("int", "number", "true") and isinstance(value, str):
            if value.lower() in ("yes", "no", "on", "off") and wanted == "true":
                return f"; {value} is a text"
            if scalar(value) is not None and not isinstance(scalar(value), str):
                return "; leave out the quotes"
        if shape.item is not None and not isinstance(value, dict | list) and value is not None:
            return f"; a list of one is written [{value}]"
        return ""


def _dotted(keys: Sequence[str]) -> str:
    return ".".join(key if key and key.isprintable() else quoted(key) for key in keys)


def _with_article(shape: Shape) -> str:
    first = shape.words.partition(" ")[0]
    article = {"int": "an ", "number": "a ", "list": "a ", "map": "a "}.get(first, "")
    return f"{article}{shape}"
