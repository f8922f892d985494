"""Puts recipes together: defaults under a parent under a file under the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from vlkit.errors import SpecError
from vlkit.spec.base import Spec
from vlkit.spec.schema import Shape, kind_of, shape_of_field
from vlkit.spec.yaml12 import Node, encodable, from_plain, parse, problem, scalar

COMMAND_LINE = "command line"
DEFAULT = "default"


def merge(base: Node, over: Node) -> Node:
    """``over`` laid on ``base``: maps key by key, lists and scalars replaced; another `kind` clears the base's map."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)) or _kind_changes(
        base.value, over.value.get("kind")
    ):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, over.where)


def _kind_changes(base: dict[str, Node], kind: Node | None) -> bool:
    return kind is not None and "kind" in base and base["kind"].value != kind.value


def fill(node: Node, shape: Shape | None, *, default: Any = None) -> Node:
    """``node`` with every missing key that has a default, so that each value of a recipe has an origin.

    ``shape`` None leaves the node as it is. ``default`` is the field's own: a spec fills in its `kind` where the map
    does not say it.
    """
    if shape is None:
        return node
    if isinstance(node.value, list) and shape.item is not None:
        return Node([fill(child, shape.item) for child in node.value], node.where)
    if not isinstance(node.value, dict):
        return node
    if shape.values is not None:
        return Node({key: fill(child, shape.values) for key, child in node.value.items()}, node.where)
    written = node.value
    usual = kind_of(type(default)) if isinstance(default, Spec) else shape.usual_kind
    if shape.kinds and "kind" not in written and usual:
        written = {"kind": Node(usual, DEFAULT), **written}
    spec = shape.spec
    if shape.kinds and "kind" in written and isinstance(written["kind"].value, str):
        spec = shape.kinds.get(written["kind"].value)
    if spec is None:
        return Node(written, node.where)
    filled: dict[str, Node] = {}
    for name, info in spec.model_fields.items():
        if isinstance(default, spec):
            value = getattr(default, name)
        else:
            value = ... if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
        if name in written:
            filled[name] = fill(written[name], shape_of_field(info), default=value)
        elif value is not ...:
            filled[name] = from_plain(to_jsonable_python(value), DEFAULT)
    return Node({**filled, **{key: child for key, child in written.items() if key not in filled}}, node.where)


@dataclass(frozen=True)
class Override:
    """One ``key=value`` of the command line."""

    keys: tuple[str, ...]
    node: Node


def parse_overrides(overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
    """The overrides that ``key=value`` arguments stand for, in their order, and the problems.

    A value that starts with a bracket, a brace or a quote is YAML; any other is one scalar as it stands, so that colons
    and hashes need no quotes. A map is the same as one override for each of its keys.
    """
    read: list[Override] = []
    problems: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if fault := _fault(text, key, equals, value):
            problems.append(f"{COMMAND_LINE}  {text}\n  {fault}")
            continue
        try:
            read += _flatten(tuple(key.split(".")), _value(value))
        except SpecError as error:
            reason = error.problems[0].rpartition("\n  ")[2]
            problems.append(f"{COMMAND_LINE}  {text}\n  {reason}")
    return read, problems


def _fault(text: str, key: str, equals: str, value: str) -> str:
    checks = (
        (equals, "no '='; write key=value, e.g. optim.lr=3e-4"),
        (key, "no key before '='; write key=value, e.g. optim.lr=3e-4"),
        (all(key.split(".")), "an empty part in the dotted key"),
        (value.strip(), f"no value after '='; write {key}=null for none or {key}='\"\"' for an empty text"),
        (encodable(text), "this is not valid UTF-8"),
    )
    return next((fault for fine, fault in checks if not fine), "")


def _value(text: str) -> Node:
    bare = text.strip()
    if bare[0] not in "[{'\"":
        read = scalar(bare)
        return Node(text if isinstance(read, str) else read, COMMAND_LINE)
    return parse(bare, source=COMMAND_LINE, numbered=False) or Node(None, COMMAND_LINE)


def _flatten(keys: tuple[str, ...], node: Node) -> Iterable[Override]:
    if isinstance(node.value, dict) and node.value:
        for key, child in node.value.items():
            yield from _flatten((*keys, key), child)
    else:
        yield Override(keys, node)


def apply_override(root: Node, override: Override) -> Node:
    """``root`` with one value set.

    Another `kind` clears its map but for what the command line itself has set there, so that the order of the arguments
    does not matter.

    Raises:
        SpecError: An index leads nowhere.
    """
    return _set(root, override, 0)


def _set(node: Node | None, override: Override, depth: int) -> Node:
    if depth == len(override.keys):
        return merge(node, override.node) if node is not None else override.node
    key = override.keys[depth]
    if node is not None and isinstance(node.value, list):
        if not key.isdecimal() or int(key) >= len(node.value):
            raise SpecError([_no_item(override, depth, len(node.value))])
        items = list(node.value)
        items[int(key)] = _set(items[int(key)], override, depth + 1)
        return Node(items, node.where)
    children = node.value if node is not None and isinstance(node.value, dict) else {}
    where = node.where if children and node is not None else COMMAND_LINE
    if key == "kind" and depth + 1 == len(override.keys) and _kind_changes(children, override.node):
        kept = {name: child for name, child in children.items() if name != "kind"}
        return Node({"kind": override.node, **_from_command_line(kept)}, where)
    return Node({**children, key: _set(children.get(key), override, depth + 1)}, where)


def _from_command_line(children: dict[str, Node]) -> dict[str, Node]:
    kept: dict[str, Node] = {}
    for key, child in children.items():
        if isinstance(child.value, dict) and (below := _from_command_line(child.value)):
            kept[key] = Node(below, child.where)
        elif not isinstance(child.value, dict) and child.where == COMMAND_LINE:
            kept[key] = child
    return kept


def _no_item(override: Override, depth: int, count: int) -> str:
    name = ".".join(override.keys[:depth])
    few = ("is an empty list", "has one item: 0")
    there = few[count] if count < len(few) else f"has {count} items: 0 to {count - 1}"
    text = f"no item {override.keys[depth]!r}; {name} {there}. Or give the whole list: {name}=[...]"
    return problem(COMMAND_LINE, text, key=".".join(override.keys), value=override.node.plain())
