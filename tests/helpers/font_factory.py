"""Small fonts that have some characters only, each drawn as a square."""

from __future__ import annotations

from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen


def small_font(path: Path, text: str, *, family: str = "Small Sans", weight: int = 400) -> Path:
    """A TrueType font with the characters of a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {ord(sign): f"u{ord(sign):04X}" for sign in sorted(set(text))}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    pen = TTGlyphPen(None)
    for number, place in enumerate(((50, 0), (50, 700), (450, 700), (450, 0))):
        (pen.lineTo if number else pen.moveTo)(place)
    pen.closePath()
    square = pen.glyph()
    builder.setupGlyf(dict.fromkeys(builder.font.getGlyphOrder(), square))
    builder.setupHorizontalMetrics(dict.fromkeys(builder.font.getGlyphOrder(), (500, 50)))
    builder.setupHorizontalHeader(ascent=900, descent=-250)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=weight)
    builder.setupPost()
    builder.save(path)
    return path
