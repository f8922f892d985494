"""Yes and no by words: the table of words is whole, the longest words come first, anything else is neither."""

from __future__ import annotations

import unicodedata

import pytest

from vlkit.evaluation.metrics.text_match import tokens
from vlkit.evaluation.metrics.yes_no import YesNoJudge, other_language, yes_no_words
from vlkit.image_prompts import _tables
from vlkit.languages import normalize


def test_every_language_that_is_asked_in_has_words_and_no_word_says_both() -> None:
    words = yes_no_words()
    assert set(_tables(None)["presence"].native) <= set(words)
    for tag, one in words.items():
        assert normalize(tag) == tag
        yes, no = ([tuple(tokens(text, language=tag)) for text in side] for side in (one.yes, one.no))
        assert len(set(yes) | set(no)) == len(yes) + len(no) and all(yes) and all(no), tag
        assert all(text == unicodedata.normalize("NFC", text) for text in (*one.yes, *one.no))


def test_the_plainest_words_are_those_that_the_question_offers() -> None:
    for tag, (question, *_) in _tables(None)["presence"].native.items():
        asked = question.replace("{question}", " ")
        judge = YesNoJudge(yes_no_words()[tag], language=tag)
        assert judge(yes_no_words()[tag].yes[0]) == "yes" and judge(yes_no_words()[tag].no[0]) == "no"
        if tag not in ("te", "th"):  # these ask with a form of the verb
            said = {"ml": ("ഉണ്ട", "ഇല്ല")}.get(tag, (yes_no_words()[tag].yes[0], yes_no_words()[tag].no[0]))
            assert all(word.casefold() in asked.casefold() for word in said), tag


@pytest.mark.parametrize(
    ("language", "answer", "verdict"),
    [
        ("de", "Ja.", "yes"),
        ("de", "Nein, das ist keine Katze", "no"),
        ("de", "Ja, nein, vielleicht", "yes"),  # the first word counts
        ("de", "Das ist ja ein Hund", "yes"),
        ("de", "Jagd", ""),
        ("de", "Entweder ja oder nein", ""),
        ("de", "yes", ""),
        ("de", "", ""),
        ("en", "YES!", "yes"),
        ("en", "There is no dog", "no"),
        ("en", "It does not", "no"),
        ("zh", "不是。", "no"),
        ("zh", "是的", "yes"),
        ("zh", "图中没有狗", ""),  # 没 and then 有
        ("zh", "没有", "no"),
        ("ja", "はい、写っています", "yes"),
        ("ja", "いいえ", "no"),
        ("th", "ไม่ใช่", "no"),
        ("th", "ใช่", "yes"),
        ("hi", "जी नहीं", "no"),
        ("tr", "HAYIR", ""),  # capital I folds to a dotted i outside Turkish
        ("vi", "Không có", "no"),
        ("ko", "아니요", "no"),
    ],
)
def test_words_decide(language: str, answer: str, verdict: str) -> None:
    assert YesNoJudge(yes_no_words()[language], language=language)(answer) == verdict


def test_words_of_another_language() -> None:
    assert other_language("yes", language="de") and other_language("Nein.", language="ja")
    assert not other_language("ein Hund", language="en") and not other_language("", language="en")
    assert not other_language("oui", language="fr")
