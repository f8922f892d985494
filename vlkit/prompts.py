"""Prompt templates: the frames into which class names are put before a text encoder reads them."""

from __future__ import annotations

from functools import lru_cache

from vlkit.errors import DataError
from vlkit.files import packaged
from vlkit.languages import normalize

SLOT = "{}"
_BARE = (SLOT,)


def templates(language: str) -> tuple[str, ...]:
    """The templates of a language, each with one ``{}``, the plainest photo frame first and the bare ``{}`` last.

    A language without a table of its own gets ``("{}",)``.

    Raises:
        UnknownName: No such language.
    """
    return _tables().get(normalize(language), _BARE)


def check_template(template: str) -> None:
    """Checks a template a user wrote.

    Raises:
        DataError: It is blank, or has no slot, or more than one.
    """
    fix = None
    if not template.strip():
        fix = "is blank; write '{}' for the bare class name"
    elif SLOT not in template:
        fix = "has no slot; write {} where the class name goes, as in 'a photo of a {}.'"
    elif (slots := template.count(SLOT)) > 1:
        fix = f"has {slots} slots; keep one {{}}, where the class name goes"
    if fix:
        raise DataError(f"the template {template!r} {fix}")


@lru_cache(maxsize=1)
def _tables() -> dict[str, tuple[str, ...]]:
    from ruamel.yaml import YAML  # YAML 1.2, where `no:` is a string

    raw = YAML(typ="safe", pure=True).load(packaged("data") / "templates.yaml")
    return {tag: tuple(lines) for tag, lines in raw.items()}
