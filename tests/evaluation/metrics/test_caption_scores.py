"""CIDEr-D, ROUGE-L and COCO's BLEU: numbers of pycocoevalcap 1.2, pinned and live, and the definitions, slowly."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from vlkit.errors import DataError
from vlkit.evaluation.metrics.answer_figures import Wanted, estimates, measure
from vlkit.evaluation.metrics.caption_scores import CaptionReferences, coco_bleu
from vlkit.evaluation.metrics.intervals import resampled_sums
from vlkit.evaluation.metrics.segmentation import caption_words

REFERENCES = [
    ["A man riding a wave on top of a surfboard.", "A surfer's riding a big wave.", "The man surfs."],
    ["Two dogs are playing with a red frisbee in the park.", "Two dogs play in a park!"],
    ["A bowl of fruit sits on a wooden table.", "Some bananas, apples & oranges in a bowl", "A bowl of fruit."],
    ["A black cat doesn't want to get off the laptop.", "A black-and-white cat on a laptop"],
    ["A red double-decker bus on a street in London, U.K.", "The red bus drives down the street."],
    ["A young girl brushes her teeth (in the bathroom).", "A girl is brushing her teeth"],
    ["Several people stand at a bus stop.", "People wait for a bus in the rain.", "A group of people at a bus stop"],
    ["A plate with a slice of pizza and a fork.", "A slice of pizza on a white plate", "Pizza on a plate."],
]
ANSWERS = [
    "a man riding a wave on a surfboard",
    "Two dogs are playing with a red frisbee in the park.",
    "a bowl bowl bowl of of fruit",
    "cat",
    "A red bus in the middle of a very long street with many people and many other red buses on both sides of it.",
    "",
    "a bus",
    "zebras graze",
]
# of pycocoevalcap 1.2, of the words of its own PTBTokenizer
BLEU = [0.574819078732, 0.494952796361, 0.413122508567, 0.371163406615]
CIDER = [2.8977936344, 5.6546958657, 1.5390031731, 0.6094783978, 0.0271003302, 0.0, 1.1187793589, 0.0]
ROUGE = [0.8714285714, 1.0, 0.7648902821, 0.2531120332, 0.3333333333, 0.0, 0.4039735099, 0.0]


def theirs(answers: list[str], references: list[list[str]]) -> tuple[list[float], list[float], list[float]]:
    """BLEU-1 to 4 of all, CIDEr and ROUGE-L of each, of words between blanks."""
    said: dict[int, Any] = {place: [one] for place, one in enumerate(answers)}
    wanted: dict[int, Any] = dict(enumerate(references))
    bleu, _ = Bleu(4).compute_score(wanted, said, verbose=0)
    return bleu, Cider().compute_score(wanted, said)[1].tolist(), Rouge().compute_score(wanted, said)[1].tolist()


def some_texts(seed: int, *, images: int) -> tuple[list[str], list[list[str]]]:
    rng = random.Random(seed)

    def text(least: int) -> str:
        return " ".join(rng.choice("aaabbcdefg") for _ in range(rng.randint(least, 12)))

    references = [[text(1) for _ in range(rng.randint(1, 4))] for _ in range(images)]
    answers = [rng.choice([text(0), rng.choice(known), rng.choice(known) + " a b"]) for known in references]
    return answers, references


def test_pinned_numbers_of_the_package_on_english() -> None:
    captions = CaptionReferences(REFERENCES, caption_words("en"))
    np.testing.assert_allclose(captions.cider(ANSWERS), CIDER, atol=1e-6)
    np.testing.assert_allclose(captions.rouge_l(ANSWERS), ROUGE, atol=1e-6)
    sums = captions.bleu_statistics(ANSWERS).sum(0, keepdims=True)
    np.testing.assert_allclose(coco_bleu(sums)[0], BLEU, atol=1e-6)


@pytest.mark.parametrize(("seed", "images"), [(0, 1), (1, 2), (2, 7), (3, 40)])
def test_the_package_itself_gives_the_same(seed: int, images: int) -> None:
    answers, references = some_texts(seed, images=images)
    captions, (bleu, cider, rouge) = CaptionReferences(references, str.split), theirs(answers, references)
    np.testing.assert_allclose(captions.cider(answers), cider, atol=1e-12)
    np.testing.assert_allclose(captions.rouge_l(answers), rouge, atol=1e-12)
    rows = captions.bleu_statistics(answers)
    np.testing.assert_allclose(coco_bleu(rows.sum(0, keepdims=True))[0], bleu, atol=1e-12)
    each = Bleu(4).compute_score(dict(enumerate(references)), {n: [one] for n, one in enumerate(answers)}, verbose=0)[1]
    np.testing.assert_allclose(coco_bleu(rows), np.array(each).T, atol=1e-12)


def slow_cider(answers: list[str], references: list[list[str]]) -> list[float]:
    """Section 5.2 of the paper with whole vectors over all n-grams that there are."""
    texts = {one: one.split() for one in [*answers, *itertools.chain(*references)]}

    def grams(text: str, order: int) -> list[tuple[str, ...]]:
        return list(zip(*(texts[text][start:] for start in range(order)), strict=False))

    scores = np.zeros(len(answers))
    for order in range(1, 5):
        vocabulary = sorted({gram for text in texts for gram in grams(text, order)})
        seen = [sum(any(gram in grams(one, order) for one in known) for known in references) for gram in vocabulary]
        rarity = np.log(len(references) / np.maximum(1, seen)) if vocabulary else np.zeros(0)

        def vector(text: str, order: int = order, vocabulary: Any = vocabulary, rarity: Any = rarity) -> Any:
            return np.array([grams(text, order).count(gram) for gram in vocabulary]) * rarity

        for place, (answer, known) in enumerate(zip(answers, references, strict=True)):
            for one in known:
                said, wanted = vector(answer), vector(one)
                below = np.linalg.norm(said) * np.linalg.norm(wanted)
                gap = len(grams(answer, 2)) - len(grams(one, 2))
                cosine = np.minimum(said, wanted) @ wanted / below if below else 0
                scores[place] += 10 / 4 / len(known) * cosine * math.exp(-(gap**2) / (2 * 6**2))
    return scores.tolist()


def slow_rouge(answer: str, references: list[str]) -> float:
    """F of the best precision and the best recall, over all subsequences of the answer."""
    said = answer.split()
    parts = {part for size in range(len(said) + 1) for part in itertools.combinations(said, size)}

    def longest(text: str) -> int:
        return max(len(part) for part in parts if all(word in rest for rest in [iter(text.split())] for word in part))

    if not said:
        return 0.0
    found = [(longest(one) / len(said), longest(one) / len(one.split())) for one in references]
    precision, recall = (max(column) for column in zip(*found, strict=True))
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if precision else 0.0


def test_figures_by_definition() -> None:
    answers, references = some_texts(4, images=12)
    captions = CaptionReferences(references, str.split)
    np.testing.assert_allclose(captions.cider(answers), slow_cider(answers, references), atol=1e-12)
    short = [" ".join(one.split()[:9]) for one in answers]
    slow = [slow_rouge(*pair) for pair in zip(short, references, strict=True)]
    np.testing.assert_allclose(captions.rouge_l(short), slow, atol=1e-12)


def test_intervals_are_of_resampled_concepts_with_the_weights_of_all() -> None:
    answers, references = some_texts(5, images=30)
    captions = CaptionReferences(references, str.split)
    concepts = [place // 2 for place in range(30)]
    wanted = Wanted("en", references, [()] * 30, concepts, captions=captions)
    figures, blank = measure(answers, wanted, {}), measure(["a b"] * 30, wanted, {})
    own, gaps = estimates(figures, concepts, against={"blank": blank}, seed=3)
    cider, others = captions.cider(answers), captions.cider(["a b"] * 30)
    assert own["cider"].value == pytest.approx(cider.mean())
    assert own["rouge_l"].value == pytest.approx(captions.rouge_l(answers).mean())
    rows = np.column_stack([np.ones(30), cider, cider - others, captions.bleu_statistics(answers)])
    drawn = resampled_sums(rows, concepts, seed=3)
    for name, column in (("cider", drawn[:, 1] / drawn[:, 0]), ("bleu_coco_4", coco_bleu(drawn[:, 3:])[:, 3])):
        np.testing.assert_allclose(own[name].interval, np.quantile(column, [0.025, 0.975]), atol=1e-12)
    assert gaps["blank"]["cider"].value == pytest.approx((cider - others).mean())
    np.testing.assert_allclose(
        gaps["blank"]["cider"].interval, np.quantile(drawn[:, 2] / drawn[:, 0], [0.025, 0.975]), atol=1e-12
    )
    bleu = theirs(answers, references)[0]
    assert [own[f"bleu_coco_{order}"].value for order in (1, 2, 3, 4)] == pytest.approx(bleu)


def test_an_image_without_references_is_told() -> None:
    with pytest.raises(DataError, match=r"^image 1 of 2 has no reference; leave it out$"):
        CaptionReferences([["a dog"], []], str.split)
