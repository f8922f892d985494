"""Reads specs as a tree of shapes: what a key may hold, in plain words."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as limits
from pydantic.fields import FieldInfo

from vlkit.spec.base import Kinds, Spec

_WORDS = {int: "int", float: "number", str: "text", bool: "true or false"}
_PLURALS = {"int": "ints", "number": "numbers", "text": "texts", "map": "maps"}


@dataclass(frozen=True)
class Shape:
    """What one key may hold.

    Args:
        words: In plain words, null left out: ``"int >= 1"``, ``"one of a, b"``, ``"list of texts"``.
        spec: The spec of a map with fixed keys.
        kinds: The specs of a map that varies by its `kind`.
        usual_kind: The kind of such a map that does not say it; "" where it must.
        item: The shape of a list's items.
        values: The shape of the maps that stand under free keys.
    """

    words: str
    nullable: bool = False
    spec: type[Spec] | None = None
    kinds: Mapping[str, type[Spec]] = field(default_factory=dict)
    usual_kind: str = ""
    item: Shape | None = None
    values: Shape | None = None
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.words}, or null" if self.nullable else self.words


def shape_of_map(spec: type[Spec]) -> Shape:
    """The shape of a whole spec."""
    return Shape("map", spec=spec)


def shape_of_field(info: FieldInfo) -> Shape:
    """The shape of one field of a spec."""
    return shape_of(info.annotation, info.metadata)


def shape_of(annotation: Any, metadata: Sequence[Any] = ()) -> Shape:
    """The shape of a type as fields are annotated with it: of a family of specs, say; ``metadata`` is the field's."""
    if family := [extra for extra in metadata if isinstance(extra, Kinds)]:
        specs = family[0].specs
        return Shape(f"map with kind {_either(specs)}", kinds=specs, usual_kind=family[0].usual)
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        found = [item for extra in more for item in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
        return shape_of(inner, [*metadata, *found])
    if get_origin(annotation) in (Union, types.UnionType):
        return _union([option for option in get_args(annotation) if option is not type(None)], annotation, metadata)
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        return Shape("one of " + ", ".join(map(str, choices)) if len(choices) > 1 else str(choices[0]), choices=choices)
    if get_origin(annotation) in (tuple, list):
        return _list(get_args(annotation), metadata)
    if get_origin(annotation) is dict:
        values = shape_of(get_args(annotation)[1])
        return Shape(f"map of names, each with a {values}", values=values if values.kinds else None)
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return shape_of_map(annotation)
    return Shape(_WORDS.get(annotation, getattr(annotation, "__name__", str(annotation))) + _range(metadata))


def _union(options: list[Any], annotation: Any, metadata: Sequence[Any]) -> Shape:
    nullable = len(options) < len(get_args(annotation))
    if len(options) == 1:
        return replace(shape_of(options[0], metadata), nullable=nullable)
    if all(isinstance(option, type) and issubclass(option, Spec) for option in options):
        kinds = {kind_of(option): option for option in options}
        return Shape(f"map with kind {_either(kinds)}", nullable=nullable, kinds=kinds)
    return Shape(_either([shape_of(option, metadata).words for option in options]), nullable=nullable)


def _list(arguments: tuple[Any, ...], metadata: Sequence[Any]) -> Shape:
    items = [shape_of(argument) for argument in arguments if argument is not Ellipsis]
    words = items[0].words
    several = _PLURALS.get(words) or (words.replace("map with", "maps with", 1) if items[0].kinds else words)
    if Ellipsis not in arguments and len(items) > 1:
        return Shape(f"list of {len(items)} {several}", item=items[0])
    least = [limit.min_length for limit in metadata if isinstance(limit, limits.MinLen)]
    return Shape(f"list of {several}" + "".join(f", at least {count}" for count in least), item=items[0])


def _range(metadata: Sequence[Any]) -> str:
    parts: list[str] = []
    for limit in metadata:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if isinstance(limit, limits.BaseMetadata) and hasattr(limit, name):
                bound = getattr(limit, name)
                parts.append(f"{sign} {bound}" if isinstance(bound, int) else f"{sign} {bound:g}")
    return (" " + " and ".join(parts)) if parts else ""


def _either(words: Any) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else str(last)


def kind_of(spec: type[Spec]) -> str:
    """The `kind` a spec answers to, else its name in a recipe: ``OptimSpec`` is ``optim``."""
    info = spec.model_fields.get("kind")
    return str(info.default) if info is not None else spec.__name__.removesuffix("Spec").lower()


def step(shape: Shape | None, key: str) -> Shape | None:
    """The shape one key further down, of a map or an index into a list; None where there is no such key.

    Nothing is found below a map that varies by kind but ``kind`` itself.
    """
    if shape is None:
        return None
    if shape.values is not None:
        return shape.values
    if shape.item is not None:
        return shape.item if key.isdecimal() else None
    if shape.spec is not None and key in shape.spec.model_fields:
        return shape_of_field(shape.spec.model_fields[key])
    if shape.kinds and key == "kind":
        return Shape("one of " + ", ".join(shape.kinds), choices=tuple(shape.kinds))
    return None


def leaves(shape: Shape, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values below a shape: of every kind where it varies by kind, of the items of a list."""
    if shape.item is not None and (shape.item.spec or shape.item.kinds):
        yield from leaves(shape.item, prefix + "0.")
        return
    specs = [shape.spec] if shape.spec else list(shape.kinds.values())
    for name, info in ((name, info) for spec in specs for name, info in spec.model_fields.items()):
        below = shape_of_field(info)
        if below.spec or below.kinds or (below.item and (below.item.spec or below.item.kinds)):
            yield from leaves(below, f"{prefix}{name}.")
        else:
            yield prefix + name
