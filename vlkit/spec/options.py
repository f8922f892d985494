"""Settings that a user of the Python API gives by name, checked as a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from vlkit.errors import VlkitError
from vlkit.spec.base import Spec

S = TypeVar("S", bound=Spec)


def checked_options(kind: type[S], given: Mapping[str, Any], *, what: str) -> S:
    """The spec of settings; ``what`` they are begins the message of an error.

    Raises:
        VlkitError: A setting that is none, or a value that cannot be.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))} = {one['input']!r}: {one['msg']}" for one in error.errors())
        raise VlkitError(f"{what}: {told}; there are: {', '.join(kind.model_fields)}") from None
