"""OpenMoji's drawings with the names of the ``emoji`` package (and CLDR): pairs in 14 to 100+ languages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlkit.data.build.cldr import annotation_names, clean
from vlkit.data.build.concepts import emoji_concept, held_out, hexcode, neutral
from vlkit.data.build.rendering import Drawings
from vlkit.data.formats.caption_forms import tag
from vlkit.errors import DataError, MissingPackage

_TONES = frozenset("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
_FULLY_QUALIFIED = 2  # emoji.STATUS["fully_qualified"]
_SALT = "openmoji:"
Names = dict[str, dict[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Entry:
    """One image-to-be. ``drawing`` is its hex code in OpenMoji; ``captions`` maps BCP 47 tags to names."""

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
    kept_back = held_out(members, holdout, salt=_SALT)
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


def emoji_names() -> Names:
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
        if facts["status"] == _FULLY_QUALIFIED and not _TONES & set(symbol) and not is_flag(symbol)
    }


def spelled(name: str) -> str:
    """``:red_apple:`` -> ``red apple``, in Unicode's composed form."""
    return clean(name.strip(":").replace("_", " "))


def is_flag(emoji: str) -> bool:
    """Flags of countries (two regional indicators) and of subdivisions (tag characters)."""
    return 0x1F1E6 <= ord(emoji[0]) <= 0x1F1FF or any(0xE0020 <= ord(character) <= 0xE007F for character in emoji)
