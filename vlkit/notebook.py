"""What results look like in a notebook: tables, bars, curves and pictures in plain HTML, on light and on dark grounds.

Whatever comes from elsewhere is escaped, and each text runs in its own direction. No script is run, and styles stand at
each element, since notebooks drop style sheets.
"""

from __future__ import annotations

import base64
import importlib
import io
import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from vlkit.foreign import printable

if TYPE_CHECKING:
    from PIL.Image import Image

# told apart on white as on black, and by colour-blind readers
FILL, OTHER = "#3f8fd2", "#e08a3c"
_RULE, _TRACK = "1px solid rgba(128,128,128,.35)", "rgba(128,128,128,.22)"
_SMALL = 96  # a picture of at most so many pixels is drawn with hard edges where it is enlarged


def in_notebook() -> bool:
    """Whether what is shown goes to a cell of a notebook; nothing is imported to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def put(html: str, *, text: str, place: Any = None) -> Any:
    """Shows something in the cell that is running; gives its place, where something else can be put later.

    ``text`` stands for it where there is no HTML.
    """
    bundle = {"text/plain": text, "text/html": html}
    if place is None:
        return importlib.import_module("IPython.display").display(bundle, raw=True, display_id=True)
    place.update(bundle, raw=True)
    return place


class Markup(str):
    """HTML that stands as it is; any other text is escaped."""

    __slots__ = ()


def said(value: object) -> str:
    """A value as HTML: numbers with a point get three digits, what is not known is empty."""
    if isinstance(value, Markup):
        return str(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    return escape(printable(str(value)))


def quiet(value: object) -> Markup:
    """What stands beside a figure, less strong."""
    return Markup(f'<span style="opacity:.65;white-space:nowrap">{said(value)}</span>')


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[str] = (),
    strong: Collection[int] = (),
    below: str = "",
) -> str:
    """A table; numbers and the columns ``right`` are aligned to the right, rows of the numbers ``strong`` are bold.

    ``below`` is a line below it.
    """
    sides = [name in right for name in headers]
    head = "".join(f"<th{_style(side)}>{said(name)}</th>" for name, side in zip(headers, sides, strict=True))
    body = []
    for number, row in enumerate(rows):
        bold = ";font-weight:600" if number in strong else ""
        cells = (
            f"<td{_style(side or _number(one), bold)}>{said(one)}</td>" for one, side in zip(row, sides, strict=True)
        )
        body.append(f"<tr>{''.join(cells)}</tr>")
    whole = (
        f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    )
    return f'<div style="overflow-x:auto">{whole}{f"<p>{said(below)}</p>" if below else ""}</div>'


def _number(value: object) -> bool:
    return isinstance(value, int | float)


def _style(right: bool, more: str = "") -> str:
    side = "right" if right else "start"
    digits = ";font-variant-numeric:tabular-nums" if right else ""
    place = "" if right else ' dir="auto"'
    return f'{place} style="text-align:{side};padding:.2em .7em;border-bottom:{_RULE}{digits}{more}"'


def bar(
    value: float,
    *,
    low: float = math.nan,
    high: float = math.nan,
    start: float = 0.0,
    end: float = 1.0,
    color: str = FILL,
) -> Markup:
    """A bar from 0 to ``value`` on a track from ``start`` to ``end``, and its interval as a line across the end."""

    def place(x: float) -> float:
        return 100 * min(max((x - start) / (end - start), 0.0), 1.0)

    left, right = sorted((place(0.0), place(0.0 if math.isnan(value) else value)))
    pieces = [_piece(left, right, f"top:0;height:100%;background:{color}")]
    if not math.isnan(low + high):
        pieces.append(_piece(place(low), place(high), "top:40%;height:20%;background:currentColor"))
    if start < 0:
        pieces.append(_piece(place(0.0), place(0.0), "top:-15%;height:130%;border-left:1px solid currentColor"))
    track = f"display:inline-block;position:relative;width:9em;height:.75em;background:{_TRACK}"
    return Markup(f'<span dir="ltr" style="{track}">{"".join(pieces)}</span>')


def _piece(left: float, right: float, style: str) -> str:
    return f'<span style="position:absolute;left:{left:.1f}%;width:{right - left:.1f}%;{style}"></span>'


def curve(points: Sequence[tuple[float, float]], *, color: str = FILL) -> Markup:
    """A line through points, with its first and last height beside it; nothing for fewer than two points."""
    if len(points) < 2:
        return Markup("")
    xs, ys = zip(*points, strict=True)
    wide, high = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
    drawn = " ".join(f"{240 * (x - min(xs)) / wide:.1f},{50 * (max(ys) - y) / high + 5:.1f}" for x, y in points)
    line = f'<polyline points="{drawn}" fill="none" stroke="{color}" stroke-width="2"/>'
    svg = f'<svg viewBox="0 0 240 60" width="240" height="60" style="vertical-align:middle">{line}</svg>'
    return Markup(f'<span dir="ltr">{ys[0]:.3g} {svg} {ys[-1]:.3g}</span>')


def picture(image: Image, *, size: int = 96) -> Markup:
    """An image, at most ``size`` pixels wide and high."""
    small = image.convert("RGB")
    hard = max(small.size) <= _SMALL
    if not hard:
        small.thumbnail((2 * size, 2 * size))  # sharp on screens of twice the pixels
    scale, stream = size / max(small.size), io.BytesIO()
    small.save(stream, **({"format": "PNG"} if hard else {"format": "JPEG", "quality": 88}))
    width, height = (max(1, round(side * scale)) for side in small.size)
    edges, kind = (";image-rendering:pixelated", "png") if hard else ("", "jpeg")
    source = f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return Markup(f'<img src="{source}" width="{width}" height="{height}" alt="" style="margin:0{edges}">')


@dataclass(frozen=True, repr=False)
class Gallery:
    """Images side by side, each with what is said of it below: the last value of a cell is shown so.

    Attributes:
        images: PIL images.
        texts: For each a text, several, or some by name (``{"de": "ein Kreis"}``); () for none.
        size: Of an image, in pixels of the screen.
    """

    images: Sequence[Image]
    texts: Sequence[str | Sequence[str] | Mapping[str, str]] = ()
    size: int = 112

    def __repr__(self) -> str:
        return f"Gallery({len(self.images)} images)"

    def _repr_html_(self) -> str:
        texts = self.texts or [""] * len(self.images)
        card = f"display:inline-block;vertical-align:top;width:{max(self.size, 72)}px;margin:.4em;text-align:center"
        cards = (
            f'<div style="{card};overflow-wrap:anywhere">{picture(image, size=self.size)}{_lines(text)}</div>'
            for image, text in zip(self.images, texts, strict=True)
        )
        return f"<div>{''.join(cards)}</div>"


def _lines(text: str | Sequence[str] | Mapping[str, str]) -> str:
    if isinstance(text, Mapping):
        named = [Markup(f"{quiet(name)} <bdi>{said(one)}</bdi>") for name, one in text.items()]
        return "".join(f'<div style="line-height:1.35">{one}</div>' for one in named)
    listed = [text] if isinstance(text, str) else text
    return "".join(f'<div dir="auto" style="line-height:1.35">{said(one)}</div>' for one in listed)
