"""Words as CoreNLP 3.4.1 gives them: what is expected here was written by pycocoevalcap 1.2 (its PTBTokenizer)."""

from __future__ import annotations

import unicodedata

import pytest

from vlkit.evaluation.metrics.ptb_words import ptb_words

THEIRS = [
    (
        "A man's dog, who doesn't bark (much), can't run -- \"really\"!",
        "a man 's dog who does n't bark -lrb- much -rrb- ca n't run really",
    ),
    (
        "The 5-year-old boy in a T-shirt; he's got 3.5 apples, 1,000 men and $5.00.",
        "the 5-year-old boy in a t-shirt he 's got 3.5 apples 1,000 men and $ 5.00",
    ),
    (
        "Mr. Smith's house at St. Mary Ave. in Washington D.C. is half-eaten.",
        "mr. smith 's house at st. mary ave. in washington d.c. is half-eaten",
    ),
    (
        "We're gonna see what they've got, but cannot wanna gimme lemme.",
        "we 're gon na see what they 've got but can not wan na gim me lem me",
    ),
    (
        "Black-and-white photo of the U.S. Army's B-52, circa 1980's and/or '50s...",
        "black-and-white photo of the u.s. army 's b-52 circa 1980 's and/or '50s",
    ),
    (
        "rock'n'roll O'Neill o'clock 'em ma'am y'all c'mon d'Artagnan Xi'an",
        "rock 'n' roll o'neill o'clock 'em ma'am y' all c'mon d'artagnan xi'an",
    ),
    ("‘single’ “double” don’t it’s dogs’ «a» …—", "single double do n't it 's dogs a"),
    (
        "10:30am p.m. a.m. 12/25/2012 50% #1 #7 @user 6'2\" 1/2 ½ 2nd £6 €7 ¢5",
        "10:30 am p.m. a.m. 12/25/2012 50 % # 1 # 7 @user 6 2 1/2 1/2 2nd # 6 $ 7 cents 5",
    ),
    (
        "AT&T Q&A R&B C++ C# e.g. i.e. etc., vs. No. 5 no. of Fig. 3 Jan. Corp.",
        "at&t q&a r&b c++ c# e.g. i.e. etc. vs. no. 5 no of fig. 3 jan. corp.",
    ),
    (
        "http://www.a.com/b?c=d, foo@bar.com. wwww [cut] {brace} <b>bold</b> & &amp;",
        "http://www.a.com/b?c=d foo@bar.com wwww -lsb- cut -rsb- -lcb- brace -rcb- <b> bold </b> & &",
    ),
    (
        "plan b. The dog, vitamin C. A cat. J. K. Rowling, J.R.R. Tolkien",
        "plan b the dog vitamin c a cat j. k. rowling j.r.r. tolkien",
    ),
    ("Two  dogs\tplay , run !! Really?! :) ;-) :D <3 ^_^", "two dogs play run !! really ?! :-rrb- ;--rrb- :d < 3 ^_^"),
    (
        "a.b yes!no x-y/z 24/7 w/o 4x4 2,000-pound 10,000m +1 -5 1+1=2 ~ * _ | \\ /",
        "a.b yes!no x-y/z 24/7 w/o 4x4 2,000-pound 10,000 m +1 -5 1 +1 = 2 ~ * _ | \\ /",
    ),
    ("café naïve crème brûlée — façade; Zürich's jalapeño", "café naïve crème brûlée façade zürich 's jalapeño"),
    ("the end.: or the dogs., and Ca., TX", "the end. or the dogs. and ca. tx"),
    (
        "'tis the season; 'twas nor'easter, more'n ain't SHE'S JOE'S DON'T CAN'T",
        "'t is the season 't was nor'easter more 'n ai n't she 's joe 's do n't ca n't",
    ),
    ("A woman wearing a net on her head cutting a cake.", "a woman wearing a net on her head cutting a cake"),
    (
        "STOP sign (with graffiti) near a 'do not enter' sign.",
        "stop sign -lrb- with graffiti -rrb- near a do not enter sign",
    ),
    ("Мальчик бежит по траве, «быстро».", "мальчик бежит по траве быстро"),
    ("الولد يركض على العشب، هل تراه؟", "الولد يركض على العشب ، هل تراه ؟"),
    ("एक लड़का घास पर दौड़ रहा है।", "एक लड़का घास पर दौड़ रहा है ।"),
    ("L'homme qu'il a vu n'est pas d'ici aujourd'hui.", "l'homme qu'il a vu n'est pas d'ici aujourd hui"),
    ("Ein Mädchen läuft übers Grün: schön!", "ein mädchen läuft übers grün schön"),
    ("고양이가 소파 위에서 자고 있다.", "고양이가 소파 위에서 자고 있다"),
    ("一只 黑猫 坐在 草地 上 。 ， ！", "一只 黑猫 坐在 草地 上 。 ， ！"),
    ("แมว ดำ นั่ง อยู่ บน หญ้า", "แมว ดำ นั่ง อยู่ บน หญ้า"),
    ("μια γάτα κάθεται στο γρασίδι.", "μια γάτα κάθεται στο γρασίδι"),
    ("một con mèo đen ngồi trên cỏ.", "một con mèo đen ngồi trên cỏ"),
]


@pytest.mark.parametrize(("text", "words"), THEIRS)
def test_words_are_those_of_the_coco_evaluation(text: str, words: str) -> None:
    assert ptb_words(text) == words.split(" ")
    assert ptb_words(unicodedata.normalize("NFD", text)) == words.split(" ")  # which they do not make NFC


def test_numbers_and_sentences_that_follow_decide_about_a_period() -> None:
    assert ptb_words("No. 5, no. five") == ["no.", "5", "no", "five"]
    assert ptb_words("plan B. He") == ["plan", "b", "he"] and ptb_words("plan B. he") == ["plan", "b.", "he"]


def test_letters_that_they_lose_are_kept_and_emoji_are_not() -> None:
    assert ptb_words("မြန်မာ ခွေး") == ["မြန်မာ", "ခွေး"]  # theirs: ["မ", "န", "မ", "ခ"]
    assert ptb_words("ខ្មែរ ឆ្មា ፈረስ።") == ["ខ្មែរ", "ឆ្មា", "ፈረስ", "።"]
    assert ptb_words("a 🐶 dog\u200b☺️") == ["a", "dog", "☺"]
    assert ptb_words("1 1/2 cups") == ["1", "1/2", "cups"]


def test_nothing_but_punctuation_is_no_word() -> None:
    assert ptb_words("") == ptb_words(" \n\t") == ptb_words(".,;: -- … '' ``“”") == []
