"""What `vlkit explain` shows: every key of a recipe with its type, default and help, read from the specs."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from vlkit.errors import UnknownName
from vlkit.spec.base import Spec
from vlkit.spec.recipe import Recipe
from vlkit.spec.schema import Shape, kind_of, shape_of_field, shape_of_map
from vlkit.spec.yaml12 import flow


class KeyRow(NamedTuple):
    """One key: ``default`` is empty where a map's keys have their own, ``required`` where there is none."""

    key: str
    type: str
    default: str
    help: str


class _Spot(NamedTuple):
    """Where a dotted key leads: a shape, or a field with its owner where the key names a value."""

    key: str
    shape: Shape
    field: FieldInfo | None = None


def explain(path: str = "") -> tuple[KeyRow, ...]:
    """The keys of a recipe below a dotted key.

    ``""`` is the whole recipe, ``"optim"`` a map, ``"model.image"`` gives its kinds, ``"model.image.timm"`` the keys of
    one kind, ``"optim.lr"`` one key. A list may be indexed or not: ``"stages.0.lr"``, ``"stages.lr"``.

    Raises:
        UnknownName: There is no such key.
    """
    return tuple(row for place in _walk(path) for row in _rows(place))


def summary(path: str = "") -> str:
    """The first paragraph of what a dotted key stands for; ``""`` for a single value.

    Raises:
        UnknownName: There is no such key.
    """
    shapes = [place.shape.item or place.shape for place in _walk(path)]
    return doc(shapes[0].spec) if len(shapes) == 1 and shapes[0].spec else ""


def doc(spec: type[Spec]) -> str:
    """The first paragraph of a spec's docstring, on one line."""
    return " ".join((inspect.getdoc(spec) or "").partition("\n\n")[0].split())


def _walk(path: str) -> list[_Spot]:
    places = [_Spot("", shape_of_map(Recipe))]
    walked = ""
    for part in path.split(".") if path else []:
        found = [below for place in places for below in _step(place, part)]
        if not found:
            shapes = [place.shape.item or place.shape for place in places]
            names = {
                name for shape in shapes for name in (*shape.kinds, *(shape.spec.model_fields if shape.spec else ()))
            }
            raise UnknownName("key", part, allowed=names, hint=f"(see: {' '.join(['vlkit explain', walked]).rstrip()})")
        places, walked = found, f"{walked}.{part}" if walked else part
    return places


def _step(place: _Spot, part: str) -> list[_Spot]:
    shape = place.shape
    key = f"{place.key}.{part}" if place.key else part
    if shape.item is not None:
        if part.isdecimal():
            return [_Spot(key, shape.item)]
        return _step(_Spot(f"{place.key}.0", shape.item), part)
    if shape.values is not None:
        return [_Spot(key, shape.values)]
    if part in shape.kinds:
        return [_Spot(key, shape_of_map(shape.kinds[part]))]
    if shape.usual_kind and part in shape.kinds[shape.usual_kind].model_fields:
        return _step(_Spot(place.key, shape_of_map(shape.kinds[shape.usual_kind])), part)
    if shape.kinds:
        return [below for kind in shape.kinds for below in _step(_step(place, kind)[0], part)]
    if shape.spec is None or part not in shape.spec.model_fields:
        return []
    field = shape.spec.model_fields[part]
    return [_Spot(key, shape_of_field(field), field)]


def _rows(place: _Spot) -> list[KeyRow]:
    shape, key = place.shape, place.key
    if shape.item is not None and (shape.item.spec or shape.item.kinds):
        return _rows(_Spot(f"{key}.0", shape.item))
    if shape.values is not None:
        return _rows(_Spot(f"{key}.NAME", shape.values))
    if shape.kinds:
        default = place.field.default if place.field is not None else None
        chosen = kind_of(type(default)) if isinstance(default, Spec) else shape.usual_kind
        return [
            KeyRow(f"{key}.{kind}", "kind", "default" if kind == chosen else "", doc(spec))
            for kind, spec in shape.kinds.items()
        ]
    if shape.spec is not None:
        prefix = key + "." if key else ""
        return [_row(prefix + name, field) for name, field in shape.spec.model_fields.items()]
    return [_row(key, place.field)] if place.field is not None else [KeyRow(key, str(shape), "", "")]


def _row(key: str, field: FieldInfo) -> KeyRow:
    default = "required" if field.is_required() else _shown(field.default)
    return KeyRow(key, str(shape_of_field(field)), default, " ".join((field.description or "").split()))


def _shown(default: Any) -> str:
    if isinstance(default, Spec):
        return f"kind {kind_of(type(default))}" if "kind" in type(default).model_fields else ""
    return flow(to_jsonable_python(default))
