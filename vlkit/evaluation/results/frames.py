"""Rows as a data frame of pandas, or as a table in a notebook."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from vlkit.errors import MissingPackage
from vlkit.notebook import table

HTML_ROWS = 50
"""So many rows a notebook shows."""
RowT = TypeVar("RowT")


class RowSequence(Generic[RowT]):
    """Results that are a sequence of their rows, a data frame and a table of a notebook."""

    def _items(self) -> tuple[RowT, ...]:
        raise NotImplementedError

    def records(self) -> list[dict[str, Any]]:
        """The rows flat, as in files; shares are in 0..1, what is not known is NaN."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[RowT]:
        return iter(self._items())

    @overload
    def __getitem__(self, which: int) -> RowT: ...

    @overload
    def __getitem__(self, which: slice) -> tuple[RowT, ...]: ...

    def __getitem__(self, which: int | slice) -> RowT | tuple[RowT, ...]:
        """One row by its number, or several by a slice."""
        return self._items()[which]

    def to_pandas(self) -> Any:
        """``records`` as a ``pandas.DataFrame``.

        Raises:
            MissingPackage: pandas is not installed.
        """
        return data_frame(self.records())

    def _repr_html_(self) -> str:
        """The first rows with what is known of them, for notebooks."""
        rows = [
            {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
            for row in self.records()[:HTML_ROWS]
        ]
        return html_table(rows, total=len(self), shown=len(rows), what="rows")


def data_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A ``pandas.DataFrame`` of rows, columns in the order of their first appearance.

    Raises:
        MissingPackage: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        raise MissingPackage("pandas", purpose="a data frame", extra="pandas") from None
    return pandas.DataFrame(list(rows), columns=list(dict.fromkeys(name for row in rows for name in row)))


def html_table(rows: Sequence[Mapping[str, Any]], *, total: int, shown: int, what: str) -> str:
    """A plain HTML table, numbers with three digits; below it how many of ``what`` there are, if not all are shown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return table(
        names, [[row.get(name, "") for name in names] for row in rows], below=how_many(shown, total, what=what)
    )


def how_many(shown: int, total: int, *, what: str) -> str:
    """Says that not all of them are shown; "" where they are."""
    return f"{shown} of {total:,} {what}" if shown < total else ""
