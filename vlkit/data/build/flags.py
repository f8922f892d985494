"""OpenMoji's country flags with CLDR's territory names in 150+ languages."""

from __future__ import annotations

from collections.abc import Sequence

from vlkit.data.build.cldr import territory_names
from vlkit.data.build.concepts import held_out
from vlkit.data.build.openmoji import Entry, choose
from vlkit.data.build.rendering import Drawings
from vlkit.errors import DataError

_MIN_SHARE = 0.75  # a language with fewer of the names is left out: its gaps would skew any comparison
_SALT = "flags:"
_FIRST = 0x1F1E6  # regional indicator A


def region_of(code: str) -> str | None:
    """ISO 3166 region of a flag's hex code ("1F1E9-1F1EA" -> "DE"); None for anything else, subdivisions too."""
    points = [int(part, 16) - _FIRST for part in code.split("-")]
    if len(points) != 2 or not all(0 <= point < 26 for point in points):
        return None
    return "".join(chr(ord("A") + point) for point in points)


def flag_entries(drawings: Drawings, *, holdout: int, languages: Sequence[str] | None = None) -> list[Entry]:
    """One entry a country or territory; its concept is the ISO region.

    Raises:
        MissingPackage: babel is not installed.
        DataError: A language that has no names, or more flags to keep back than there are.
    """
    codes = {region: code for code in drawings if (region := region_of(code)) is not None}
    if holdout >= len(codes):
        raise DataError(f"{holdout} flags cannot be held out of {len(codes)}")
    names = territory_names(sorted(codes), min_names=max(1, round(_MIN_SHARE * len(codes))))
    kept_back = held_out(codes, holdout, salt=_SALT)
    entries = []
    for region, code in sorted(codes.items()):
        captions = {language: (by_region[region],) for language, by_region in names.items() if region in by_region}
        if chosen := choose(captions, languages):
            entries.append(
                Entry(region, code, chosen, concept=region, split="test" if region in kept_back else "train")
            )
    if not entries:
        raise DataError(f"languages: no territory names in {', '.join(languages or ())}; there are: {', '.join(names)}")
    return entries
