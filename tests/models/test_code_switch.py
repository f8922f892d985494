"""Captions of two languages: cut at a clause near the middle, in any script, as often as asked."""

from __future__ import annotations

import pytest

from vlkit.models.code_switch import CodeSwitch, halves, switched

ENGLISH = "A red fox runs through the snow, looking for its den."


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        (ENGLISH, "A red fox runs through the snow, ", "looking for its den."),
        ("Ein roter Fuchs läuft durch Schnee", "Ein roter Fuchs ", "läuft durch Schnee"),
        ("Yes, a red fox runs through snow", "Yes, a red fox ", "runs through snow"),  # that clause is not near
        ("一只红狐狸在雪地里奔跑，寻找它的窝。", "一只红狐狸在雪地里奔跑，", "寻找它的窝。"),
        ("红狐狸在雪地", "红狐狸", "在雪地"),
        ("لومڑی برف میں دوڑتی ہے، اپنا گھر ڈھونڈتی ہے۔", "لومڑی برف میں دوڑتی ہے، ", "اپنا گھر ڈھونڈتی ہے۔"),
        ("लाल लोमड़ी दौड़ती है। वह घर खोजती है।", "लाल लोमड़ी दौड़ती है। ", "वह घर खोजती है।"),
        ("  a  b ", "a  ", "b"),
    ],
)
def test_a_text_is_cut_at_the_clause_nearest_its_middle_or_else_the_word(text: str, first: str, second: str) -> None:
    assert halves(text) == (first, second)


@pytest.mark.parametrize("text", ["", "   ", "mushroom", "Pilz.", "\u200b"])
def test_what_has_one_word_is_not_cut(text: str) -> None:
    assert halves(text) is None
    assert switched(text, ENGLISH, english_first=True) == text
    assert switched("ein Haus", text, english_first=False) == "ein Haus"


def test_halves_are_the_whole_and_no_sign_is_torn() -> None:
    for text in ("यह एक लाल लोमड़ी है", "แม่น้ำเก่าไหลผ่านเมือง", "👩‍👩‍👧 eine Familie", "قارچ\u200cهای سرخ در جنگل"):
        cut = halves(text)
        assert cut is not None and "".join(cut) == text and min(map(len, cut)) > 0
        assert cut[1][0] not in "\u200c\u200d\u0947\u094d\u0e49"


def test_english_comes_first_or_second() -> None:
    german = "Ein roter Fuchs läuft durch den Schnee, er sucht seinen Bau."
    assert switched(german, ENGLISH, english_first=True) == "A red fox runs through the snow, er sucht seinen Bau."
    assert (
        switched(german, ENGLISH, english_first=False) == "Ein roter Fuchs läuft durch den Schnee, looking for its den."
    )


def test_a_share_of_captions_is_mixed_half_of_them_english_first() -> None:
    german = "Ein Fuchs, er sucht"
    mixes = [CodeSwitch(0.3)(german, "A fox, it seeks", seed=seed) for seed in range(4000)]
    counts = {one: mixes.count(one) / len(mixes) for one in set(mixes)}
    assert counts == {
        german: pytest.approx(0.7, abs=0.03),
        "A fox, er sucht": pytest.approx(0.15, abs=0.02),
        "Ein Fuchs, it seeks": pytest.approx(0.15, abs=0.02),
    }
    assert mixes[:50] == [CodeSwitch(0.3)(german, "A fox, it seeks", seed=seed) for seed in range(50)]


def test_what_has_no_translation_or_is_english_stays() -> None:
    for english in ("", ENGLISH):
        assert CodeSwitch(1.0)(ENGLISH, english, seed=3) == ENGLISH
    assert CodeSwitch(0.0)("Ein Fuchs, er sucht", "A fox, it seeks", seed=3) == "Ein Fuchs, er sucht"
