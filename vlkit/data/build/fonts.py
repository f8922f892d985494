"""Fonts for drawing text: which there are, whether they have every character of a text, and which suits a language."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vlkit import languages
from vlkit.errors import DataError, MissingPackage, some

_log = logging.getLogger(__name__)
FONT_FILES = (".ttf", ".otf", ".ttc", ".otc")
_OUTLINES = ("glyf", "CFF ", "CFF2")
# Of Chinese, Japanese and Korean fonts, the forms that a region writes; other regions' forms would be wrong, not tofu.
_REGIONS = {"Hans": {"SC", "CN", "GB"}, "Hant": {"TC", "TW", "HK"}, "Jpan": {"JP"}, "Kore": {"KR"}}
_ALL_REGIONS = frozenset().union(*_REGIONS.values())
_PARTS = {"Hans": ("Hani",), "Hant": ("Hani",), "Jpan": ("Hani", "Hira", "Kana"), "Kore": ("Hang",)}
# Scripts whose letters change with their neighbours by the font's own rules; without these the shapes are wrong.
_SHAPED = frozenset(
    ("Adlm", "Arab", "Beng", "Deva", "Gujr", "Guru", "Khmr", "Knda", "Mlym", "Mong", "Mymr", "Nkoo", "Orya", "Rohg",
     "Sinh", "Syrc", "Taml", "Telu", "Tibt")
)  # fmt: skip
_NO_TEXT = re.compile(r"last ?resort|adobe ?blank|emoji|unifont|rashi", re.IGNORECASE)  # boxes, pictures, bitmaps
_SERIF = re.compile(r"serif|naskh|nastaliq|roman|times|mincho|ming|song|batang", re.IGNORECASE)
_SANS = re.compile(r"sans", re.IGNORECASE)
_MONO = re.compile(r"mono|courier|typewriter", re.IGNORECASE)
_UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")
_ASCII = frozenset(range(0x20, 0x7F))
_CJK_PACKAGE = "fonts-noto-cjk"


@dataclass(frozen=True)
class Face:
    """One face of a font file: ``index`` in a collection, weight 1 to 1000 (400 is regular), ``width`` 1 to 9 (5)."""

    path: Path
    index: int
    family: str
    weight: int
    width: int
    italic: bool

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.family} ({self.path.name})"

    @property
    def plain(self) -> tuple[int, ...]:
        """Sorts faces that are easy to read first: sans serif, regular in weight and width, no typewriter's."""
        kind = 0 if _SANS.search(self.family) else 2 if _SERIF.search(self.family) else 1
        return kind, int(bool(_MONO.search(self.family))), abs(self.weight - 400), abs(self.width - 5)


def font_folders() -> list[Path]:
    """Where this system keeps fonts, and matplotlib's own, as far as they are there."""
    home = Path.home()
    if sys.platform == "darwin":
        usual = [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    elif sys.platform == "win32":
        usual = [
            Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts",
            Path(os.environ.get("LOCALAPPDATA", str(home))) / "Microsoft/Windows/Fonts",
        ]
    else:
        own = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "fonts"
        usual = [own, home / ".fonts", Path("/usr/local/share/fonts"), Path("/usr/share/fonts")]
    return [folder for folder in (*usual, packaged_fonts()) if folder.is_dir()]


def packaged_fonts() -> Path:
    """The folder of matplotlib's fonts, which vlkit requires: DejaVu, for Latin, Cyrillic, Greek and their like."""
    package = importlib.util.find_spec("matplotlib")  # not imported: it would look for fonts itself
    return Path((package.origin if package else "") or "").parent / "mpl-data/fonts/ttf"


def find_faces(folder: Path | None = None) -> list[Face]:
    """The upright faces in a folder, or of this system (see font_folders); what cannot be read is left out.

    Raises:
        MissingPackage: fontTools is not installed.
        DataError: ``folder`` is none, or there is no font in it.
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"--fonts {folder}: no such folder; give one with {', '.join(FONT_FILES)} files")
    found: dict[tuple[str, int], Face] = {}
    for place in font_folders() if folder is None else [folder]:
        paths = sorted(path for path in place.rglob("*") if path.suffix.lower() in FONT_FILES)
        for face in (face for path in paths for face in _faces_in(path)):
            found.setdefault((face.path.name, face.index), face)
    if not found:
        where = f"--fonts {folder}" if folder else "on this system"
        raise DataError(
            f"{where}: no fonts found; give a folder of {', '.join(FONT_FILES)} files with --fonts DIR, or install "
            f"some (Debian, Ubuntu: apt-get install fonts-noto-core {_CJK_PACKAGE})"
        )
    return sorted(found.values(), key=lambda face: (face.plain, face.family, face.path.name, face.index))


def _faces_in(path: Path) -> list[Face]:
    try:
        from fontTools.ttLib import TTCollection, TTFont
    except ImportError:
        raise MissingPackage("fonttools", purpose="drawing text", extra="data") from None
    try:
        is_collection = path.suffix.lower() in (".ttc", ".otc")
        fonts = TTCollection(path, lazy=True).fonts if is_collection else [TTFont(path, lazy=True)]
        return [face for index, font in enumerate(fonts) if (face := _face(path, index, font)) is not None]
    except Exception as error:  # what fontTools raises for a damaged file is of any kind
        _log.info("%s is left out: no font that can be read (%s: %s)", path, type(error).__name__, error)
        return []


def _face(path: Path, index: int, font: Any) -> Face | None:
    if not any(table in font for table in _OUTLINES) or "cmap" not in font or "OS/2" not in font:
        return None
    family = str(font["name"].getBestFamilyName() or path.stem)
    about = font["OS/2"]
    italic = bool(about.fsSelection & 1) or bool(re.search(r"italic|oblique|slanted", path.stem + family, re.I))
    if italic or _NO_TEXT.search(family):
        return None
    weight = 400 if "fvar" in font else about.usWeightClass  # a variable one is drawn in the regular weight
    return Face(path, index, family, weight, about.usWidthClass or 5, italic)


@lru_cache(maxsize=512)
def coverage(face: Face) -> frozenset[int]:
    """The code points that a face has a glyph for."""
    font = _open(face)
    font.setGlyphOrder([str(number) for number in range(font["maxp"].numGlyphs)])  # their real names take seconds
    return frozenset(font.getBestCmap() or ())


@lru_cache(maxsize=512)
def _scripts(face: Face) -> frozenset[str]:
    """OpenType tags of the scripts whose letters a face shapes."""
    font = _open(face)
    records = font["GSUB"].table.ScriptList.ScriptRecord if "GSUB" in font and font["GSUB"].table.ScriptList else ()
    return frozenset(record.ScriptTag.strip() for record in records)


def _open(face: Face) -> Any:
    from fontTools.ttLib import TTFont

    return TTFont(face.path, lazy=True, fontNumber=face.index)


@dataclass(frozen=True)
class FontPair:
    """A face for a script, and where it has no digits, Latin letters and signs one ``beside`` it that has them."""

    main: Face
    beside: Face | None
    script: str

    def missing(self, text: str) -> str:
        """The characters of a text that neither face has, each once; marks that nobody sees need no glyph.

        Letters and marks of the script itself have to be in the main face: beside each other they are shaped together.
        """
        return "".join(sign for sign in sorted(set(text)) if self.face_of(sign) is None)

    def face_of(self, sign: str) -> Face | None:
        """The face that draws a character; None where neither can."""
        code, has = ord(sign), coverage(self.main)
        if code in has or (sign != " " and unicodedata.category(sign) in _UNSEEN):
            return self.main
        if all(ord(part) in has for part in unicodedata.normalize("NFD", sign)):
            return self.main
        if self.beside is None or code in _letters(self.script) or unicodedata.combining(sign):
            return None
        return self.beside if code in coverage(self.beside) else None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.main.name if self.beside is None else f"{self.main.name} with {self.beside.name}"


@lru_cache(maxsize=64)
def _letters(script: str) -> frozenset[int]:
    """The code points of a script."""
    from fontTools.unicodedata import Scripts

    wanted = _PARTS.get(script, (script,))
    ends = [*Scripts.RANGES[1:], sys.maxunicode + 1]
    spans = zip(Scripts.RANGES, ends, Scripts.VALUES, strict=True)
    return frozenset(code for start, end, name in spans if name in wanted for code in range(start, end))


def suits(face: Face, script: str) -> bool:
    """Whether a face is made for a script: its shapes, and its region's forms of Chinese characters."""
    from fontTools.unicodedata import ot_tags_from_script

    regions = _ALL_REGIONS.intersection(face.family.split())
    if regions and not regions & _REGIONS.get(script, set()):
        return False
    return script not in _SHAPED or not _scripts(face).isdisjoint(ot_tags_from_script(script))


def best_pair(faces: Sequence[Face], language: str, text: str) -> FontPair:
    """The plainest fonts of those with every character of a text in a language (BCP 47 tag).

    Raises:
        DataError: There are none; the message names the best ones, the script, what they lack and what to install.
    """
    return pairs_for(faces, language, text)[0]


def pairs_for(faces: Sequence[Face], language: str, text: str) -> list[FontPair]:
    """All fonts with every character of a text in a language and most letters of its script, the plainest first.

    Raises:
        DataError: See best_pair.
    """
    made = pairs(faces, language)
    whole = [pair for pair in made if not pair.missing(text)]
    if not whole:
        raise DataError(_refusal(made, len(faces), language, text))
    letters = _letters(languages.get(language).script)
    counts = {pair: len(coverage(pair.main) & letters) for pair in whole}
    most = max(counts.values())
    kept = [pair for pair in whole if 2 * counts[pair] >= most]
    return sorted(kept, key=lambda pair: (pair.main.plain, -counts[pair], pair.main.path.name, pair.main.index))


def pairs(faces: Sequence[Face], language: str) -> list[FontPair]:
    """The faces that suit a language's script, each with one beside it where it lacks Latin letters and digits."""
    script = languages.get(language).script
    latin = _letters("Latn")
    able = [face for face in faces if suits(face, "Latn") and coverage(face) >= _ASCII]
    able.sort(key=lambda face: (face.plain, -len(coverage(face) & latin), face.path.name, face.index))
    found = []
    for main in (face for face in faces if suits(face, script)):
        like = [face for face in able if face.plain[0] == main.plain[0]] or able
        needs = bool(like) and not coverage(main) >= _ASCII
        found.append(FontPair(main, like[0] if needs else None, script))
    return found


def _refusal(made: Sequence[FontPair], count: int, language: str, text: str) -> str:
    from fontTools.unicodedata import script_name

    about = languages.get(language)
    if about.script in _REGIONS:
        family, package = f"Noto Sans CJK {sorted(_REGIONS[about.script])[-1]}", _CJK_PACKAGE
    else:
        plain = "" if about.script in ("Latn", "Cyrl", "Grek") else " " + script_name(about.script).replace("_", " ")
        family, package = f"Noto Sans{plain}", "fonts-noto-core"
    hint = f"give a folder with one (--fonts DIR; {family} is one), or install it: apt-get install {package}"
    who = f"{about.name} ({language}, script {about.script})"
    if not made:
        return f"none of {count} fonts is made for {who}; {hint}"
    best = min(made, key=lambda pair: len(pair.missing(text)))
    signs = some((f"{sign} (U+{ord(sign):04X})" for sign in best.missing(text)), most=8)
    return f"none of {count} fonts has every character of {who}; the best, {best.name}, lacks {signs}; {hint}"
