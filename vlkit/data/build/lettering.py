"""Text onto pictures: letters joined and marks placed as the script wants it, from right to left where it is so."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from PIL import ImageDraw, ImageFont, features

from vlkit import languages
from vlkit.data.build.fonts import Face, FontPair, coverage
from vlkit.errors import DataError

# A letter a sign, from left to right, whatever stands beside it.
_SIMPLE = frozenset(
    ("Armn", "Bopo", "Cans", "Cher", "Cyrl", "Ethi", "Geor", "Grek", "Hang", "Hani", "Hans", "Hant", "Hira", "Jpan",
     "Kana", "Kore", "Latn", "Lisu", "Tfng", "Vaii", "Yiii")
)  # fmt: skip
_OPENTYPE = {"zh": "zh-Hans"}  # which forms of shared characters a font takes
_PARTS, _BLANK = re.compile(r"\S+|\s+"), re.compile(r"\s+")
_Run: TypeAlias = tuple[str, Face]


def check_shaping(language: str, text: str) -> None:
    """Refuses a text that this Pillow would draw with letters apart, marks beside or in the wrong order.

    Raises:
        DataError: Its script, or marks in it, need HarfBuzz, which Pillow reaches by raqm.
    """
    about = languages.get(language)
    marks = sorted({sign for sign in text if unicodedata.combining(sign)})
    if features.check("raqm") or (about.script in _SIMPLE and not marks):
        return
    why = f"marks ({', '.join(f'U+{ord(mark):04X}' for mark in marks[:5])})" if about.script in _SIMPLE else "letters"
    raise DataError(
        f"{about.name} ({language}, script {about.script}) has {why} that HarfBuzz must place, and Pillow finds no "
        f"raqm here; install its library fribidi (apt-get install libfribidi0; macOS: brew install fribidi) "
        f"or leave {language} out"
    )


@dataclass(frozen=True)
class Lettering:
    """Draws texts of one language with its fonts; sizes are in pixels per em."""

    fonts: FontPair
    language: str

    def width(self, text: str, size: int) -> float:
        """How far a text leads, in pixels."""
        return sum(self._length(run, size) for run in self._runs(text))

    def box(self, text: str, size: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is drawn, from where it begins on its base line."""
        boxes = []
        for start, (piece, face) in self._placed(text, size):
            left, top, right, bottom = _opened(face, size).getbbox(piece, anchor="ls", **self._way())
            boxes.append((start + left, top, start + right, bottom))
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        return min(lefts), min(tops), max(rights), max(bottoms)

    def line(self, size: int) -> tuple[int, int]:
        """How far a line reaches above and below its base line."""
        return _opened(self.fonts.main, size).getmetrics()

    def draw(
        self, onto: ImageDraw.ImageDraw, at: tuple[float, float], text: str, *, size: int, fill: Any
    ) -> None:  # fmt: skip
        """Draws one line of text from its left end on its base line; ``fill`` is a colour of the picture's mode."""
        for start, (piece, face) in self._placed(text, size):
            onto.text((at[0] + start, at[1]), piece, fill=fill, font=_opened(face, size), anchor="ls", **self._way())

    def _placed(self, text: str, size: int) -> list[tuple[float, _Run]]:
        """The runs of a text with where each begins, from the left end of all."""
        runs = self._runs(text)
        if languages.get(self.language).rtl:
            runs.reverse()
        placed, start = [], 0.0
        for run in runs:
            placed.append((start, run))
            start += self._length(run, size)
        return placed

    def _length(self, run: _Run, size: int) -> float:
        return float(_opened(run[1], size).getlength(run[0], **self._way()))

    def _runs(self, text: str) -> list[_Run]:
        """Pieces of a text that one face draws, in the order in which they are read."""
        main, beside = self.fonts.main, self.fonts.beside
        if beside is None or all(self.fonts.face_of(sign) is main for sign in text):
            return [(text, main)]
        faces: list[Face] = []
        for part in _PARTS.findall(text):
            own = [self.fonts.face_of(sign) or main for sign in part]
            # A number or a foreign word is drawn by one face, so that it keeps its order within a text from the right.
            whole = beside in own and all(ord(sign) in coverage(beside) for sign in part)
            faces += [beside] * len(part) if whole else own
        for gap in _BLANK.finditer(text):  # between two foreign words
            start, end = gap.span()
            if start > 0 and end < len(text) and faces[start - 1] is beside is faces[end]:
                faces[start:end] = [beside] * (end - start)
        runs: list[_Run] = []
        for sign, face in zip(text, faces, strict=True):
            if runs and runs[-1][1] is face:
                runs[-1] = runs[-1][0] + sign, face
            else:
                runs.append((sign, face))
        return runs

    def _way(self) -> dict[str, Any]:
        if not features.check("raqm"):
            return {}
        about = languages.get(self.language)
        return {"direction": "rtl" if about.rtl else "ltr", "language": _OPENTYPE.get(about.tag, about.tag)}


@lru_cache(maxsize=256)
def _opened(face: Face, size: int) -> ImageFont.FreeTypeFont:
    layout = ImageFont.Layout.RAQM if features.check("raqm") else ImageFont.Layout.BASIC
    font = ImageFont.truetype(str(face.path), size, index=face.index, layout_engine=layout)
    try:
        axes = font.get_variation_axes()
    except OSError:  # not variable
        return font
    # The first instance of some is hair-thin.
    font.set_variation_by_axes([400.0 if axis["name"] == b"Weight" else float(axis["default"] or 0) for axis in axes])
    return font
