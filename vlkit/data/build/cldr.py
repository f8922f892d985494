"""Names out of Unicode CLDR: emoji annotations from its JSON files, territories from ``babel``."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from vlkit.data.formats.caption_forms import CaptionError, tag
from vlkit.errors import DataError, MissingPackage

_TERRITORY = re.compile(r"[A-Z]{2}|\d{3}")
_FOLDERS = ("annotations", "annotationsDerived")


def annotation_names(folder: Path, wanted: Iterable[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Emoji -> BCP 47 tag -> names (the text-to-speech names), of the emoji in ``wanted``, with variation selectors.

    ``folder`` is an unpacked ``cldr-annotations-full`` (its ``package`` folder or what holds it); if
    ``annotationsDerived`` lies beside ``annotations`` it is read too.

    Raises:
        DataError: No annotations there, or a file of another form.
    """
    roots = [root / name for root in (folder, folder / "package") for name in _FOLDERS if (root / name).is_dir()]
    if not any(root.name == "annotations" for root in roots):
        raise DataError(
            f"{folder}: no 'annotations' folder; --cldr takes an unpacked cldr-annotations-full (npm pack, tar -xzf)"
        )
    spelled = {emoji.replace("\ufe0f", ""): emoji for emoji in wanted}
    names: dict[str, dict[str, tuple[str, ...]]] = {}
    for root in roots:
        for path in sorted(root.glob("*/annotations.json")):
            language = language_of(path.parent.name)
            if language is None:
                continue
            for symbol, name in _read(path, root.name).items():
                emoji = spelled.get(symbol.replace("\ufe0f", ""))
                if emoji is not None:
                    names.setdefault(emoji, {}).setdefault(language, (name,))
    return names


def _read(path: Path, kind: str) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        annotations = content[kind]["annotations"]
        return {symbol: clean(entry["tts"][0]) for symbol, entry in annotations.items() if entry.get("tts")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{path}: not a CLDR annotations file ({type(error).__name__}: {error})") from error


def language_of(locale: str) -> str | None:
    """The BCP 47 tag of a CLDR locale, or None for regional variants, the root and languages that the table lacks."""
    parts = locale.replace("_", "-").split("-")
    if parts[0] == "root" or any(_TERRITORY.fullmatch(part) for part in parts[1:]):
        return None
    try:
        return tag("-".join(parts))
    except CaptionError:
        return None


def territory_names(
    regions: list[str], *, min_names: int, languages: Collection[str] | None = None
) -> dict[str, dict[str, str]]:
    """BCP 47 tag -> region -> name, of the languages in which at least ``min_names`` of the regions have one.

    ``languages`` are BCP 47 tags, None for all.

    Raises:
        MissingPackage: babel is not installed.
    """
    try:
        from babel import Locale, localedata
    except ImportError:
        raise MissingPackage("babel", purpose="naming flags", extra="data") from None
    found: dict[str, dict[str, str]] = {}
    # Shorter identifiers first: "sr" stands for its usual script, and "sr_Cyrl" then adds nothing.
    for identifier in sorted(localedata.locale_identifiers(), key=lambda name: (len(name), name)):
        language = language_of(identifier)
        if language is None or language in found or (languages is not None and language not in languages):
            continue
        territories = Locale.parse(identifier).territories
        names = {region: clean(territories[region]) for region in regions if territories.get(region)}
        if len(names) >= min_names:
            found[language] = names
    return dict(sorted(found.items()))


def clean(name: str) -> str:
    """One line, in Unicode's composed form."""
    return " ".join(unicodedata.normalize("NFC", name).split())
