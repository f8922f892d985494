"""Metrics of answers: by definition, and equal to sacrebleu's own figures."""

from __future__ import annotations

import math
import random
import sys
import unicodedata

import numpy as np
import pytest
import sacrebleu

from vlkit.errors import MissingPackage, UnknownName
from vlkit.evaluation.metrics import ngrams
from vlkit.evaluation.metrics.answer_figures import Wanted, estimates, measure
from vlkit.evaluation.metrics.caption_scores import CaptionReferences
from vlkit.evaluation.metrics.fidelity import (
    IDENTIFIERS,
    NearestNames,
    Py3LangId,
    identified,
    nearest,
    nearest_of_image,
)
from vlkit.evaluation.metrics.intervals import bootstrap_interval, paired_comparison, paired_means, resampled_sums
from vlkit.evaluation.metrics.segmentation import caption_words
from vlkit.evaluation.metrics.text_match import exact_match, keywords_found, normalized, token_f1, tokens

ANSWERS = ["a dog runs over the grass", "two cats", "the red bus", "a man with a hat and a dog"]
REFERENCES = [
    ["a dog is running over green grass", "the dog runs over the grass"],
    ["two cats sleep"],
    ["a red bus in the street", "the red bus stops", "bus"],
    ["a man with a hat", "a man and his dog"],
]
CAPTIONS = CaptionReferences(REFERENCES, caption_words("en"))


def _words(rng: random.Random, letters: str = "abc d") -> str:
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, 14)))


@pytest.mark.parametrize(
    ("text", "language", "found"),
    [
        ("Ein HUND, im Garten!", "de", ["ein", "hund", "im", "garten"]),
        ("STRASSE straße", "de", ["strasse", "strasse"]),
        ("İ I", "tr", ["i\u0307", "i"]),
        ("一只黑猫。", "zh", ["一", "只", "黑", "猫"]),
        ("T恤 衫", "zh-Hant", ["t", "恤", "衫"]),
        ("ที่นี่", "th", ["ที่", "นี่"]),  # marks stay with their base
        ("검은 고양이", "ko", ["검은", "고양이"]),
        ("?!", "en", []),
        ("5 × 3 = 15", "en", ["5", "3", "15"]),
    ],
)
def test_tokens(text: str, language: str, found: list[str]) -> None:
    assert tokens(text, language=language) == found
    assert tokens(unicodedata.normalize("NFD", text), language=language) == found


def test_exact_match_is_blind_to_case_punctuation_and_form() -> None:
    assert exact_match(unicodedata.normalize("NFD", "Caf\u00e9!"), ["tea", "CAFÉ"])
    assert not exact_match("cafe", ["café"]) and not exact_match("", ["café"])
    assert normalized("  A\u00a0 b—c ") == "a b c"


def test_token_f1_is_that_of_the_nearest_reference() -> None:
    assert token_f1("a black cat", ["the black cat", "dog"], language="en") == pytest.approx(2 * 2 / 6)
    assert token_f1("a a a", ["a"], language="en") == pytest.approx(2 * 1 / 4)  # a bag, not a set
    assert token_f1("黑猫", ["白猫"], language="zh") == 0.5 and token_f1("黑猫", ["白猫"], language="en") == 0
    assert token_f1("", ["cat"], language="en") == 0 and token_f1("!", ["?"], language="en") == 1


def test_keywords_stand_as_whole_words() -> None:
    said = "The Brandenburg Gate in Berlin, lit up"
    assert keywords_found(said, ["brandenburg gate", "Berlin", "lit down", "gat", "?"], language="en") == 2
    assert keywords_found("柏林的勃兰登堡门", ["勃兰登堡门", "巴黎"], language="zh") == 1


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf_is_sacrebleus(word_order: ngrams.WordOrder) -> None:
    for answer, known in zip(ANSWERS, REFERENCES, strict=True):
        theirs = sacrebleu.sentence_chrf(answer, known, word_order=word_order).score / 100
        assert ngrams.chrf(answer, known, word_order=word_order) == pytest.approx(theirs, abs=1e-12)
        assert theirs == max(sacrebleu.sentence_chrf(answer, [one], word_order=word_order).score for one in known) / 100
    columns = [[one[place] if place < len(one) else None for one in REFERENCES] for place in range(3)]
    theirs = sacrebleu.corpus_chrf(ANSWERS, columns, word_order=word_order).score / 100  # type: ignore[arg-type]
    assert ngrams.corpus_chrf(ANSWERS, REFERENCES, word_order=word_order) == pytest.approx(theirs, abs=1e-12)
    assert ngrams.chrf(unicodedata.normalize("NFD", "é"), ["é"]) == 1


@pytest.mark.parametrize("language", ["en", "zh", "th"])
def test_bleu_out_of_sums_is_sacrebleus_of_all(language: str) -> None:
    rng = random.Random(0)
    letters = {"en": "ab cd", "zh": "红蓝黄猫。", "th": "กขค "}[language]
    answers = [_words(rng, letters) for _ in range(30)]
    references = [[one[:-1], _words(rng, letters)][: 1 + number % 2] for number, one in enumerate(answers)]
    rows = ngrams.bleu_statistics(answers, references, language=language)
    columns = [[one[place] if place < len(one) else None for one in references] for place in range(2)]
    tokenizer = {"en": "13a", "zh": "zh", "th": "char"}[language]
    assert ngrams.bleu_tokenizer(language) == tokenizer
    for some in (range(30), range(0, 30, 3)):  # any subset, as the bootstrap takes them
        chosen = [[None if column[n] is None else column[n] for n in some] for column in columns]
        theirs = sacrebleu.corpus_bleu([answers[n] for n in some], chosen, tokenize=tokenizer).score / 100  # type: ignore[arg-type]
        assert ngrams.bleu(rows[list(some)].sum(0, keepdims=True))[0] == pytest.approx(theirs, abs=1e-12)


def test_nearest_names_are_found_by_the_chrf_of_sacrebleu() -> None:
    rng = random.Random(1)
    names = {tag: [_words(rng) for _ in range(20)] for tag in ("en", "de", "fr")}
    names["fr"].append(names["en"][0])
    answers = [*(_words(rng) for _ in range(80)), names["en"][0], "", "zzz", "banana nana"]
    found = NearestNames(names).best(answers)
    for tag, listed in names.items():
        theirs = [max(ngrams.chrf(one, [name]) for name in listed if name.strip()) for one in answers]
        np.testing.assert_allclose(found[tag], theirs, atol=1e-12)


def test_an_answer_is_faithful_where_no_other_language_is_nearer() -> None:
    names = NearestNames({"en": ["dog", "taxi", "cat"], "de": ["Hund", "Taxi", "Katze"], "fr": ["chien", "taxi"]})
    best = names.best(["Hunde", "taxi", "dogs", "猫", ""])
    faithful = {tag: nearest(best, language=tag)[0].tolist() for tag in ("en", "de", "fr")}
    assert nearest(best, language="de")[1].tolist() == [False, True, True, False, False]  # nearer to another language
    assert faithful["de"] == [True, False, False, False, False]
    assert faithful["en"] == [False, True, True, False, False]  # a name that two languages share counts for both
    assert faithful["fr"] == [False, True, False, False, False]
    captions = {"en": ["dog"], "de": ["Hund", "Dogge"], "ru": ["собака"]}
    for answer in ("dogs", "Doggen", "Hund", "собаки", "猫", ""):
        one = {tag: np.array([ngrams.chrf(answer, texts)]) for tag, texts in captions.items()}
        for tag in captions:
            assert nearest_of_image(answer, captions, language=tag) == nearest(one, language=tag)[0][0]
    alone = NearestNames({"en": ["dog"]}).best(["dot", "猫"])
    assert nearest(alone, language="en")[0].tolist() == [True, False]


def test_sentences_are_told_by_an_identifier() -> None:
    identifier = IDENTIFIERS.get_object("py3langid")()
    said = ["Ein schwarzer Hund läuft über die Wiese.", "A black dog runs over the grass.", ""]
    found = identified(identifier, said, language="de")
    assert found is not None and found[0].tolist() == [True, False, False]
    assert found[1].tolist() == [False, True, False]  # an empty answer is in no language
    chinese = identified(identifier, ["一隻黑貓睡在沙發上。"], language="zh-Hant")  # scripts are not told apart
    assert chinese is not None and chinese[0].tolist() == [True]
    assert identified(identifier, said, language="haw") is None
    assert "nb" in identifier.languages and "" not in identifier.languages


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(MissingPackage, match="scoring answers by chrF and BLEU needs the package 'sacrebleu'"):
        ngrams.check_sacrebleu()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(MissingPackage, match="telling the language of sentences needs the package 'py3langid'"):
        Py3LangId()
    with pytest.raises(UnknownName, match="'py3langit'"):
        IDENTIFIERS.get_object("py3langit")


def test_resampled_sums_draw_as_the_other_intervals_do() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(30, size=200)
    hits, others = rng.random(200) < 0.5, rng.random(200) < 0.4
    sums = resampled_sums(np.stack([hits, np.ones(200)], 1), classes, seed=1, replicates=4000)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    ours = bootstrap_interval(hits, classes, seed=2, replicates=4000)
    assert low == pytest.approx(ours.low, abs=0.01) and high == pytest.approx(ours.high, abs=0.01)
    one, other = paired_means(hits, others, classes), paired_comparison(hits, others, classes)
    assert one.difference == other.difference
    assert one.low == pytest.approx(other.low, abs=0.02) and one.high == pytest.approx(other.high, abs=0.02)
    each = resampled_sums(np.ones((5, 1)), range(5), seed=0, replicates=50)
    assert (each == 5).all()  # as many images as there are, where each is a class of its own


def test_figures_of_all_are_those_of_each_and_differences_are_paired() -> None:
    wanted = Wanted("en", REFERENCES, [("dog", "grass"), (), ("bus",), ()], range(4), captions=CAPTIONS)
    ours, blank = (measure(answers, wanted, {}) for answers in (ANSWERS, ["a dog"] * 4))
    own, gaps = estimates(ours, range(4), against={"blank": blank}, seed=0)
    assert own["chrf"].value == pytest.approx(
        np.mean([ngrams.chrf(*pair) for pair in zip(ANSWERS, REFERENCES, strict=True)])
    )
    assert own["keyword_accuracy"].value == 1.0 and gaps["blank"]["keyword_accuracy"].value == pytest.approx(2 / 3)
    columns = [[one[place] if place < len(one) else None for one in REFERENCES] for place in range(3)]
    assert own["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(ANSWERS, columns).score / 100)  # type: ignore[arg-type]
    for name, one in own.items():
        assert math.isnan(one.value) or one.interval.low <= one.value <= one.interval.high, name
    same, nothing = estimates(ours, range(4), against={"itself": ours}, seed=0)
    assert same == own
    assert all(gap.value == 0 and gap.interval == (0, 0) for gap in nothing["itself"].values())
