from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from vlkit.data.build.concepts import emoji_concept, held_out, hexcode, neutral


def test_variants_of_one_thing_are_one_concept() -> None:
    groups = {
        "1F44B": "👋 👋🏻 👋🏼 👋🏽 👋🏾 👋🏿",
        "1F9D1-1F692": "🧑‍🚒 👨‍🚒 👩‍🚒 👩🏿‍🚒",
        "1F9D1": "🧑 👨 👩 👨‍🦰 👩‍🦰 🧑‍🦰 👩‍🦱 👨‍🦲 👩🏽‍🦳 👱 👱‍♀️ 👱‍♂️ 🧔 🧔‍♂️ 🧔‍♀️",
        "1F9D2": "🧒 👦 👧 👧🏾",
        "1F9D3": "🧓 👴 👵",
        "1F3C3": "🏃 🏃‍♀️ 🏃‍♂️ 🏃‍➡️ 🏃‍♀️‍➡️ 🏃🏿‍♂️‍➡️",
        "1F575": "🕵️ 🕵️‍♂️ 🕵️‍♀️ 🕵🏽‍♀️",
        "1F46A": "👪 👨‍👩‍👦 👩‍👩‍👧‍👧 👨‍👦 🧑‍🧑‍🧒‍🧒",
        "1F9D1-1F91D-1F9D1": "🧑‍🤝‍🧑 👫 👬 👭 👩🏻‍🤝‍👨🏿",
        "1F491": "💑 👩‍❤️‍👨 👨‍❤️‍👨 👩🏿‍❤️‍👩🏻",
        "1F48F": "💏 👩‍❤️‍💋‍👨 👨‍❤️‍💋‍👨",
        "1FAC4": "🫄 🤰 🫃",
        "1FAC5": "🫅 🤴 👸",
        "1F9D1-1F384": "🧑‍🎄 🎅 🤶",
        "1F91D": "🤝 🤝🏽 🫱🏻‍🫲🏿",
        "1F46F": "👯 👯‍♀️ 👯‍♂️",
    }
    for concept, emojis in groups.items():
        assert {emoji_concept(emoji) for emoji in emojis.split()} == {concept}


def test_different_things_stay_apart() -> None:
    emojis = [
        "👋",
        "🤚",
        "🧑\u200d🚒",
        "🧑\u200d🍳",
        "🧑",
        "🧒",
        "🧓",
        "👶",
        "❤️",
        "❤️\u200d🔥",
        "🐻",
        "🐻\u200d❄️",
        "⬛",
        "🐈",
        "🐈\u200d⬛",
        "♀️",
        "♂️",
        "🏻",
        "🏼",
        "🍎",
        "🍏",
        "➡️",
        "🫱",
        "🫲",
        "🧑\u200d🦯",
        "🧑\u200d🦽",
    ]
    assert len({emoji_concept(emoji) for emoji in emojis}) == len(emojis)


def test_the_neutral_image_is_the_persons() -> None:
    members = ["👩\u200d🚒", "👨\u200d🚒", "🧑\u200d🚒"]
    assert neutral(members, concept=emoji_concept(members[0])) == "🧑‍🚒"
    assert neutral(["🕵️‍♀️", "🕵️", "🕵️‍♂️"], concept="1F575") == "🕵️"
    assert neutral(["🕺", "💃"], concept="1F483") == "💃"
    assert neutral(["🎅", "🤶"], concept="1F9D1-1F384") == min("🎅", "🤶")
    assert hexcode("👋🏽") == "1F44B-1F3FD"


@given(st.sets(st.text(min_size=1), min_size=1), st.integers(0, 30), st.integers())
def test_held_out_depends_on_the_set_alone(concepts: set[str], count: int, seed: int) -> None:
    shuffled = [*concepts, *concepts]
    random.Random(seed).shuffle(shuffled)
    chosen = held_out(concepts, count)
    assert chosen == held_out(shuffled, count) and chosen <= concepts and len(chosen) == min(count, len(concepts))
    # Stable: a new concept takes at most one place.
    assert len(chosen - held_out({*concepts, "a new one"}, count)) <= 1
    assert held_out(concepts, max(0, count - 1)) <= chosen


def test_held_out_is_the_same_on_every_machine_and_another_with_another_salt() -> None:
    concepts = [f"c{n}" for n in range(50)]
    assert held_out(concepts, 4) == {"c18", "c23", "c36", "c4"}
    assert held_out(concepts, 10) != held_out(concepts, 10, salt="x")
