"""Finds what a name stands for: one lazy table a kind, nothing imported until asked for; and names by pattern."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

from vlkit.errors import UnknownName


class Registry(Mapping[str, str]):
    """A table from name to ``"module:attribute"``.

    ``kind`` is what is in it, for error messages ("image encoder"); ``hint`` says where a user finds the allowed names.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], *, hint: str = "") -> None:
        self.kind, self.hint = kind, hint
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        if name not in self._entries:
            raise UnknownName(self.kind, name, allowed=self._entries, hint=self.hint)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, name: str, path: str) -> None:
        """Takes one more thing in, as ``"module:attribute"``."""
        self._entries[name] = path

    def get_object(self, name: str) -> Any:
        """Imports and returns what ``name`` stands for.

        Raises:
            UnknownName: The name is not in the table.
        """
        module, _, attribute = self[name].partition(":")
        return getattr(importlib.import_module(module), attribute)


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern is a part of a name or, with ``*``, ``?`` or ``[``, fits all of it; case does not matter."""
    wanted = pattern.casefold()
    return fnmatch(name.casefold(), wanted if any(sign in wanted for sign in "*?[") else f"*{wanted}*")
