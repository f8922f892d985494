"""Which pictures show one and the same thing, and which things are kept back for testing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

# skin tones, hair; variation selector, joiner, gender signs, "facing right"
_DROPPED = {*range(0x1F3FB, 0x1F400), *range(0x1F9B0, 0x1F9B4), 0xFE0F, 0x200D, 0x2640, 0x2642, 0x27A1}
_ADULT, _CHILD, _ELDER, _HEART, _KISS = 0x1F9D1, 0x1F9D2, 0x1F9D3, 0x2764, 0x1F48B
_NEUTRAL = {
    0x1F468: _ADULT,  # man
    0x1F469: _ADULT,  # woman
    0x1F471: _ADULT,  # blond hair
    0x1F9D4: _ADULT,  # beard
    0x1F466: _CHILD,  # boy
    0x1F467: _CHILD,  # girl
    0x1F474: _ELDER,  # old man
    0x1F475: _ELDER,  # old woman
    0x1F930: 0x1FAC4,  # pregnant woman -> pregnant person
    0x1FAC3: 0x1FAC4,  # pregnant man
    0x1F934: 0x1FAC5,  # prince -> person with crown
    0x1F478: 0x1FAC5,  # princess
    0x1F57A: 0x1F483,  # man dancing -> woman dancing
}
_WHOLE: dict[tuple[int, ...], tuple[int, ...]] = {
    (0x1F46B,): (_ADULT, 0x1F91D, _ADULT),  # woman and man holding hands -> people holding hands
    (0x1F46C,): (_ADULT, 0x1F91D, _ADULT),
    (0x1F46D,): (_ADULT, 0x1F91D, _ADULT),
    (_ADULT, _HEART, _ADULT): (0x1F491,),  # couple with heart
    (_ADULT, _HEART, _KISS, _ADULT): (0x1F48F,),  # kiss
    (0x1F385,): (_ADULT, 0x1F384),  # Santa Claus -> Mx Claus
    (0x1F936,): (_ADULT, 0x1F384),  # Mrs. Claus
    (0x1FAF1, 0x1FAF2): (0x1F91D,),  # handshake in two skin tones
}


def emoji_concept(emoji: str) -> str:
    """The concept an emoji shows: its code points with gender, hair, skin tone and direction folded.

    Man, woman and person firefighter, in any skin tone, are one concept; so are all families, all couples, all hair
    styles. It is code points in upper-case hex joined by ``-``, mostly those of the neutral emoji ("1F9D1-1F692").
    """
    points = [ord(character) for character in emoji]
    kept = [point for point in points if point not in _DROPPED]
    if not kept:  # a lone modifier or sign stands for itself
        kept = [point for point in points if point not in (0xFE0F, 0x200D)] or points
    folded = tuple(_NEUTRAL.get(point, point) for point in kept)
    if len(folded) > 1 and set(folded) <= {_ADULT, _CHILD}:
        folded = (0x1F46A,)  # family
    return hexcode("".join(map(chr, _WHOLE.get(folded, folded))))


def hexcode(emoji: str) -> str:
    """Code points in upper-case hex joined by ``-``: "1F44B-1F3FD"."""
    return "-".join(f"{ord(character):04X}" for character in emoji)


def neutral(members: Sequence[str], *, concept: str) -> str:
    """The emoji that stands for a concept: the one of its own code points, else the shortest, else the first."""
    bare = {member: hexcode(member.replace("\ufe0f", "").replace("\u200d", "")) for member in members}
    return min(members, key=lambda member: (bare[member] != concept, len(member), member))


def held_out(concepts: Iterable[str], count: int, *, salt: str = "") -> frozenset[str]:
    """The ``count`` concepts with the smallest SHA-256 of ``salt + concept``.

    The choice depends on neither order nor repetition, and a new concept displaces at most one old one.
    """
    ranked = sorted(set(concepts), key=lambda concept: hashlib.sha256((salt + concept).encode()).digest())
    return frozenset(ranked[:count])
