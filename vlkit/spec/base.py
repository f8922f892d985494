"""The root of all specs: frozen, strict, documented field by field."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen description of one buildable thing.

    Unknown keys are errors, every default lives here and nowhere else, and the docstring under a field is its help text
    in ``vlkit explain``.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
