"""One table of languages, keyed by BCP 47 tag, with the codes that tokenizers and data sets use for them."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, cast

from vlkit.errors import UnknownName
from vlkit.files import packaged

Tier = Literal["high", "mid", "low"]
System = Literal["iso639_3", "flores", "nllb", "xm3600", "babelnet", "omw"]

# Where two systems use one code for two languages, the earlier one is meant: als is Albanian, not BabelNet's Alemannic.
_SYSTEMS: tuple[System, ...] = ("iso639_3", "flores", "nllb", "xm3600", "omw", "babelnet")

# language [-script] [-region] [-variant] [-extensions and private use]
_TAG = re.compile(
    r"(?P<language>[a-z]{2,3})(?:-(?P<script>[a-z]{4}))?(?:-(?P<region>[a-z]{2}|\d{3}))?"
    r"(?:-(?P<variant>[a-z\d]{5,8}|\d[a-z\d]{3}))?(?:-[a-z\d](?:-[a-z\d]{1,8})+)*"
)


@dataclass(frozen=True, slots=True)
class Language:
    """One row of the table.

    Args:
        tag: BCP 47, shortest form: ``de``, ``zh`` (Simplified), ``zh-Hant``, ``sr`` (Cyrillic), ``sr-Latn``, ``nb``.
        name: English name (CLDR).
        autonym: The language's name for itself; the English name where none is known.
        script: ISO 15924 code, e.g. ``Latn``.
        rtl: Written from right to left.
        tier: Of lexicons, not of speakers or texts: how many of ImageNet's 1000 classes BabelNet names (as counted by
            Babel-ImageNet): ``high`` from 667, ``mid`` from 334, else ``low``.
        iso639_3: Shared by the rows that differ in script or orthography alone.
        flores: FLORES-200 code, e.g. ``deu_Latn``.
        nllb: Code in the NLLB tokenizer (differs from ``flores`` for Santali).
        xm3600: Crossmodal-3600 code.
        babelnet: BabelNet code, upper case, as in Babel-ImageNet.
        omw: Open Multilingual Wordnet file code.
    """

    tag: str
    name: str
    autonym: str
    script: str
    rtl: bool
    tier: Tier
    iso639_3: str | None
    flores: str | None
    nllb: str | None
    xm3600: str | None
    babelnet: str | None
    omw: str | None


class _Table(NamedTuple):
    languages: tuple[Language, ...]
    codes: dict[str, Language]
    names: dict[str, Language]
    systems: dict[System, dict[str, Language]]


def get(tag_or_code: str, *, system: System | None = None) -> Language:
    """Finds a language by its tag, a code of any system in the table, or its name; case, ``_`` and ``-`` do not matter.

    Codes go before names: ``Ga`` is Irish and ``Mon`` Mongolian, the languages of these names are ``gaa`` and ``mnw``.
    A region or variant without a row of its own is dropped: ``pt-BR`` is ``pt``, ``es-MX`` is ``es``; but ``zh-TW`` is
    ``zh-Hant``. A script without a row is an error, since it would change every text.

    Args:
        tag_or_code: For example ``de``, ``ger``, ``deu_Latn``, ``ZH_YUE``, ``iw``, ``zh-CN``, ``German``, ``Deutsch``.
        system: Whose code it is; only needed where two systems use one code differently (BabelNet's ``ALS``).

    Raises:
        UnknownName: No such language; the message offers the nearest tags and names.
    """
    key = _fold(tag_or_code)
    table = _table()
    found = table.systems[system].get(key) if system else None
    found = found or table.codes.get(key) or table.names.get(key) or _from_parts(key, table.codes)
    if found is None:
        known = (text for row in table.languages for text in (row.tag, row.name, row.autonym))
        raise UnknownName("language", tag_or_code, allowed=set(known), hint="See vlkit list languages.")
    return found


def normalize(code: str) -> str:
    """The BCP 47 tag under which vlkit knows a language; takes all that ``get`` takes.

    Raises:
        UnknownName: No such language.
    """
    return get(code).tag


def variety(code: str) -> str:
    """What stands behind the language in a code (``br`` of ``pt-BR``), in which codes of one tag may still differ."""
    return _fold(code).partition("-")[2]


def all_languages() -> tuple[Language, ...]:
    """Every row of the table, sorted by tag."""
    return _table().languages


def _from_parts(key: str, codes: dict[str, Language]) -> Language | None:
    """Reads a tag that is not in the table as a whole, most telling part first."""
    parts = _TAG.fullmatch(key)
    base = codes.get(parts["language"]) if parts else None
    if parts is None or base is None:
        return None
    if script := parts["script"]:
        return codes.get(_fold(f"{base.tag}-{script}")) or (base if base.script.casefold() == script else None)
    for part in (parts["variant"], parts["region"]):
        if part and (found := codes.get(_fold(f"{base.tag}-{part}"))):
            return found
    return base


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip().replace("_", "-").casefold()


@lru_cache(maxsize=1)
def _table() -> _Table:
    languages: list[Language] = []
    aliases: list[tuple[str, Language]] = []
    for row, others in _rows():
        languages.append(row)
        aliases += [(other, row) for other in others]
    systems = {system: _index(system, languages) for system in _SYSTEMS}
    codes = {_fold(row.tag): row for row in languages}
    for other, row in aliases:
        codes.setdefault(_fold(other), row)
    for system in _SYSTEMS:
        codes = systems[system] | codes
    names = _index("autonym", languages) | _index("name", languages)
    return _Table(tuple(languages), codes, names, systems)


def _index(column: str, languages: list[Language]) -> dict[str, Language]:
    index: dict[str, Language] = {}
    for row in languages:
        if value := getattr(row, column):
            index.setdefault(_fold(value), row)  # rows are sorted: sr stands before sr-Latn
    return index


def _rows() -> Iterator[tuple[Language, list[str]]]:
    with (packaged("data") / "languages.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            language = Language(
                tag=row["tag"],
                name=row["name"],
                autonym=row["autonym"],
                script=row["script"],
                rtl=row["rtl"] == "1",
                tier=cast("Tier", row["tier"]),
                **{system: row[system] or None for system in _SYSTEMS},
            )
            yield language, [alias for alias in row["aliases"].split(";") if alias]
