"""The root of all specs: frozen, strict, documented field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from vlkit.paths import local

LocalPath = Annotated[str, AfterValidator(local)]
"""A path in a recipe or suite; what ``~`` stands for is put in here, once."""


class Spec(BaseModel):
    """A frozen description of one buildable thing.

    Unknown keys are errors, every default lives here and nowhere else, and the docstring under a field is its help text
    in ``vlkit explain``.

    Attributes:
        renamed: Keys that were once called otherwise: old name to new.
    """

    renamed: ClassVar[dict[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class Kinds:
    """A family of specs told apart by `kind`, open to further ones: the annotation of a field that takes any of them.

    Each spec has a `kind` of its own as that field's default; ``usual`` is the kind of a map that does not say it.
    """

    def __init__(self, *specs: type[Spec], usual: str = "") -> None:
        self.usual = usual
        self.specs: dict[str, type[Spec]] = {spec.model_fields["kind"].default: spec for spec in specs}

    def add(self, spec: type[Spec]) -> None:
        """Takes one more spec in; recipes and suites can name its kind from now on."""
        self.specs[spec.model_fields["kind"].default] = spec
        for known in _below(Spec):
            known.model_rebuild(force=True)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A tagged union; not a validator around one, in which JSON would no longer count as JSON."""
        choices = {kind: handler.generate_schema(spec) for kind, spec in self.specs.items()}
        return core_schema.tagged_union_schema(choices, self._kind_of)

    def _kind_of(self, value: Any) -> Any:
        return value.get("kind", self.usual or None) if isinstance(value, dict) else getattr(value, "kind", None)


def _below(spec: type[Spec]) -> Iterator[type[Spec]]:
    """All specs, in the order in which they were defined: those that hold others come after them."""
    for child in spec.__subclasses__():
        yield child
        yield from _below(child)
