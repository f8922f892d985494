"""Builds a part of any sort by its spec, and reads the names that stand for specs (``timm:NAME``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from vlkit.errors import UnknownName, VlkitError
from vlkit.parts.building import hold
from vlkit.registry import Registry
from vlkit.spec.parts import EncoderSpec

_S = TypeVar("_S", bound=EncoderSpec)


def build_part(kinds: Registry, spec: EncoderSpec, *, saved: Path | None, empty: bool) -> Any:
    """The part of a spec in eval mode, its weights in the precision that the spec asks for."""
    part = kinds.get_object(spec.kind).build(spec, saved=saved, empty=empty)
    hold(part, spec)
    return part.eval()


def spec_by_name(name: str, *, kinds: Registry, named: Mapping[str, type[_S]], **options: Any) -> _S:
    """The spec that ``KIND:NAME`` stands for; ``tiny`` stands alone.

    Args:
        name: As users write it.
        kinds: All kinds of such parts.
        named: The specs of those that have names.
        options: Values of the spec; None and what such a spec does not have are left out.

    Raises:
        UnknownName: There is no such kind.
        VlkitError: The name after the colon is missing, or the kind has no names.
    """
    what = kinds.kind
    kind, colon, rest = name.partition(":")
    if kind not in kinds:
        raise UnknownName(what, name if not colon else kind, allowed=kinds, hint=kinds.hint)
    if kind == "tiny":
        if rest:
            raise VlkitError(f"{what} {name!r}: tiny takes no name; write 'tiny'")
    elif not rest:
        raise VlkitError(f"{what} {name!r} lacks a name after the colon. {kinds.hint}")
    if kind not in named:
        raise VlkitError(f"a {kind} encoder has no weights to name; build it from its spec (vlkit.spec.parts)")
    fields = named[kind].model_fields
    values = {key: value for key, value in options.items() if value is not None and key in fields}
    return named[kind](**values if kind == "tiny" else {"name": rest, **values})
