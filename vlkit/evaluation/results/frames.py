"""Rows as a data frame of pandas, or as a table in a notebook."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vlkit.errors import MissingPackage
from vlkit.foreign import printable

HTML_ROWS = 50
"""So many rows a notebook shows."""


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
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_cell(row.get(name, '')) for name in names)}</tr>" for row in rows)
    more = f"<p>{shown} of {total:,} {what}</p>" if shown < total else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td style="text-align:right">{value:.3f}</td>'
    return f"<td>{escape(printable(str(value)))}</td>"
