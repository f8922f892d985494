"""Yes and no questions of presence: POPE's choices by definition, figures by hand, controls, stops, errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.evaluation.tasks.test_captioning import table
from tests.helpers.answering_fakes import COLORS, NAMES, ColorTeller, colored
from tests.helpers.ranks import on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.errors import DataError, SpecError
from vlkit.evaluation.compare.comparison import compare
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.metrics.yes_no import yes_no_words
from vlkit.evaluation.results.written import read_written
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import open_suite, read_suite
from vlkit.evaluation.tasks.presence_figures import Judged, presence_values
from vlkit.evaluation.tasks.presence_task import AskedThing, PresenceTask
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.evaluation.tasks.things import Things
from vlkit.spec.evaluation import SuiteSpec
from vlkit.spec.language import GenerationSpec
from vlkit.types import Question, Sample

SAMPLES = [colored(color, number) for color in COLORS for number in range(3)]
WORDS = {tag: yes_no_words()[tag] for tag in NAMES}


def task(samples: Sequence[Sample] = SAMPLES, *, several: bool = False, **more: Any) -> PresenceTask:
    things = Things.of(samples, several=several)
    more = {"words": WORDS, "negatives": things.kinds, **more}
    return PresenceTask("there", samples, things, dict.fromkeys(NAMES, "{thing}?"), **more)


class Checker(ColorTeller):
    """Answers whether the image has the colour that is asked for; without one it says no."""

    def answer(
        self,
        questions: Sequence[Question],
        *,
        generation: GenerationSpec | None = None,
        batch_size: int = 16,
        stream: Callable[[str], None] | None = None,
    ) -> list[str]:
        self.asked += questions
        self.generations.append(generation)
        return [self._said(question) for question in questions]

    def _said(self, question: Question) -> str:
        words = WORDS[self.confused.get(question.language or "", question.language or "")]
        return words.yes[0] if self._fits(question) else words.no[0]

    def _fits(self, question: Question) -> bool:
        name = question.text.removesuffix("?")
        best = self.names[question.language or ""][int(self._nearness(question).argmax())]
        return bool(question.images) and name == best

    def log_likelihoods(self, questions: Sequence[Question], answers: Sequence[str], *, batch_size: int = 16) -> Tensor:
        right = [answer == self._said(question) for question, answer in zip(questions, answers, strict=True)]
        return torch.tensor([[-1.0 if one else -2.0, 2.0] for one in right])


class Agrees(Checker):
    """Says yes to whatever is asked, and a colour in German."""

    def _said(self, question: Question) -> str:
        return "rot" if question.language == "de" else WORDS[question.language or ""].yes[0]


@pytest.mark.parametrize("by_likelihood", [False, True])
def test_one_that_looks_is_right_and_the_controls_are_not(by_likelihood: bool) -> None:
    model = Checker()
    rows = evaluate_task(model, task(by_likelihood=by_likelihood))
    assert model.images_seen == len(SAMPLES) + 1  # a grey one
    for row in rows:
        assert row["accuracy"] == row["f1"] == row["precision"] == row["recall"] == 1 == row["accuracy_random"]
        assert row["yes_share"] == 0.5 == row["chance"] and row["neither"] == 0 == row["wrong_language"]
        assert row["n_images"] == 12 and row["n_questions"] == 12 * 2 * 2  # a pair for random and for adversarial
        assert math.isnan(row["accuracy_popular"])  # all colours are in three images
        assert row["accuracy_no_image"] == 0.5 == row["accuracy_over_no_image"] and row["yes_share_no_image"] == 0
        assert row["f1_no_image"] == 0 and row["accuracy_other_image"] < 0.5
        assert row["accuracy_ci_low"] < 1 == row["accuracy_ci_high"]
        assert row["accuracy_over_no_image_ci_low"] <= 0.5 <= row["accuracy_over_no_image_ci_high"]


def test_one_that_agrees_is_at_chance_and_answers_that_are_neither_are_counted() -> None:
    rows = {row.language: row for row in evaluate_task(Agrees(), task())}
    english, german = rows["en"], rows["de"]
    assert english["accuracy"] == 0.5 == english["precision"] and english["recall"] == 1 == english["yes_share"]
    assert english["f1"] == pytest.approx(2 / 3) and english["accuracy_over_no_image"] == 0
    assert german["accuracy"] == 0 == german["recall"] and german["neither"] == 1 and german["wrong_language"] == 0
    assert math.isnan(german["precision"]) and german["f1"] == 0
    elsewhere = evaluate_task(Checker(confused={"de": "en"}), task(), languages=["de"])[0]
    assert elsewhere["neither"] == 1 == elsewhere["wrong_language"] and elsewhere["accuracy"] == 0


def test_figures_are_those_of_pope_by_hand() -> None:
    yes, no, none = (Judged(None, said, elsewhere=False) for said in ("yes", "no", ""))
    wrong, right = Judged("random", "yes", elsewhere=False), Judged("random", "no", elsewhere=False)
    other = Judged("popular", "", elsewhere=True)
    judged = [
        [yes, wrong, other],
        [yes, right, right._replace(kind="popular")],
        [no, right, other],
        [none, wrong, other],
    ]
    values = presence_values({"": judged}, range(4), kinds=("random", "popular"), seed=0)
    # random: 2 of 4 are found, 2 false alarms; popular: 2 of 4 and none
    assert (
        values["precision_random"] == 0.5 == values["recall_random"] == values["f1_random"] == values["accuracy_random"]
    )
    assert values["yes_share_random"] == 0.5 and values["yes_share_popular"] == 0.25
    assert values["precision_popular"] == 1 and values["accuracy_popular"] == 3 / 8
    assert values["f1_popular"] == pytest.approx(2 / 3) and values["n_questions"] == 16
    assert values["accuracy"] == pytest.approx(7 / 16) and values["precision"] == pytest.approx(4 / 6)
    assert values["f1"] == pytest.approx(2 * (4 / 6) * 0.5 / (4 / 6 + 0.5))
    assert values["neither"] == pytest.approx(5 / 16) and values["wrong_language"] == pytest.approx(3 / 16)
    assert values["accuracy_ci_low"] < 7 / 16 < values["accuracy_ci_high"]


def scene(key: str, *things: str) -> Sample:
    return Sample(key, SAMPLES[0].images, {"en": things, "de": tuple(f"{one}-de" for one in things)})


SCENES = [
    scene("1", "dog", "ball", "tree"), scene("2", "dog", "ball"), scene("3", "dog", "tree"), scene("4", "cat", "sofa"),
    scene("5", "cat", "sofa", "lamp"), scene("6", "dog"), scene("7", "lamp"),
]  # fmt: skip


def test_popular_and_adversarial_things_are_the_most_frequent_and_those_seen_together() -> None:
    things = Things.of(SCENES, several=True)
    number = {name: thing for thing, name in things.names["en"].items()}
    assert things.kinds == ("random", "popular", "adversarial")
    counts = {"dog": 4, "ball": 2, "tree": 2, "cat": 2, "sofa": 2, "lamp": 2}
    assert things.images == {number[name]: count for name, count in counts.items()}
    assert things.order(3, "popular", seed="")[0] == number["dog"]
    assert set(things.order(1, "adversarial", seed="")[:1]) == {
        number["tree"]
    }  # once with the dog and ball, once the dog
    assert things.order(6, "adversarial", seed="")[:2] in (
        [number["cat"], number["sofa"]],
        [number["sofa"], number["cat"]],
    )
    assert things.names["de"][number["cat"]] == "cat-de"
    for row, sample in enumerate(SCENES):
        for kind in things.kinds:
            order = things.order(row, kind, seed="x")
            assert not {things.names["en"][one] for one in order} & set(sample.captions["en"])
            assert sorted([*order, *things.present[row]]) == sorted(number.values())


def test_an_image_is_asked_for_as_much_that_is_there_as_that_is_not() -> None:
    opened = task(SCENES, several=True, questions=2)
    for seed in range(3):
        for tag in ("en", "de"):
            found = opened.probes(tag, seed=seed)
            assert found == opened.probes("en", seed=seed)
            for row, some in found.items():
                there = [one for one in some if one.kind is None]
                assert 1 <= len(there) == min(2, len(SCENES[row].captions["en"]))
                assert {one.thing for one in there} <= {*opened.things.present[row]}
                for kind in opened.negatives:
                    away = [one.thing for one in some if one.kind == kind]
                    assert len(set(away)) == len(there) and not {*away} & {*opened.things.present[row]}
    assert opened.probes("en", seed=0) != opened.probes("en", seed=1)


def test_where_images_show_one_thing_alike_names_are_confusing_but_not_parts_of_a_name() -> None:
    texts = ["red apple", "green apple", "apple", "tractor", "lamp"]
    samples = [Sample(text, SAMPLES[0].images, {"en": (text,)}, concept=text) for text in texts]
    things = Things.of(samples, several=False)
    opened = PresenceTask("there", samples, things, {"en": "{thing}?"}, {"en": WORDS["en"]}, negatives=("adversarial",))
    assert opened.probes("en")[0] == (
        AskedThing(0, None),
        AskedThing(1, "adversarial"),
    )  # no "apple"
    assert opened.probes("en")[1][1] == AskedThing(0, "adversarial")


def suite(folder: Path, **more: Any) -> SuiteSpec:
    one = {"kind": "presence", "name": "there", "source": table(folder), "template": "{thing}?", **more}
    return SuiteSpec.model_validate({"tasks": [one], "batch_size": 5})


def test_results_pages_resume_and_comparison(tmp_path: Path) -> None:
    spec = suite(tmp_path, languages=["de", "en"])
    first = evaluate(Checker(), spec, folder=tmp_path / "one", name="looks", quiet=True)
    again = evaluate(Checker(), spec, folder=tmp_path / "one", name="looks", resume=True)
    assert again.rows == first.rows and "answers" not in again.meta["work"]
    evaluate(Agrees(), spec, folder=tmp_path / "two", name="agrees", quiet=True)
    page = (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    assert "share of yes" in page and "accuracy with a grey picture" in page
    said = read_written(tmp_path / "one", "there", "de")
    assert said is not None and len(said) == 12
    assert said[0].references == ("rot",) and said[0].answer.startswith("rot: ja; ") and "nein" in said[0].answer
    assert first.meta["words"]["there"]["de"] == "ja, doch / nein, nicht"
    found = compare(tmp_path / "one", tmp_path / "two")
    assert {row.language for row in found.rows} == {"de", "en"}
    assert (tmp_path / "one" / "results-presence.csv").is_file()


def _on_rank(ranks: Ranks) -> list[dict[str, Any]]:
    rows = evaluate_task(Checker(), task(), encoding=Encoding(batch_size=2, ranks=ranks))
    return [row.flat() for row in rows]


def test_processes_that_share_the_images_find_the_same() -> None:
    alone = repr(_on_rank(Ranks()))
    assert [repr(one) for one in on_ranks(2, _ranked)] == [alone, alone]


def _ranked() -> list[dict[str, Any]]:
    return _on_rank(Ranks.world())


def test_what_cannot_be_asked_is_told(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"template": "What?"}, "'What?' must have one {thing}, for the name of what is asked for"),
        (
            {"template": "{thing} {x}"},
            "'{thing} {x}' has {x}; a template may have {language} and {autonym} and {thing}",
        ),
        ({"negatives": ["random", "random"]}, "negatives = random, random: each may stand once"),
    ]
    for more, message in cases:
        with pytest.raises((SpecError, ValueError)) as caught:
            suite(tmp_path, **more)
        assert message in str(caught.value)
    with pytest.raises(DataError) as popular:
        open_suite(suite(tmp_path, negatives=["popular"]))
    assert str(popular.value) == (
        "task 'there': all its things are in equally many images, and none is popular; leave popular out of negatives"
    )
    one = {"image": "images/red-0.png", "captions": {"en": ["red"]}, "concept": "red"}
    (tmp_path / "one.jsonl").write_text(json.dumps(one) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as alone:
        open_suite(suite(tmp_path, source={"kind": "folder", "path": str(tmp_path / "one.jsonl")}))
    assert str(alone.value) == "task 'there': all its images show one thing, and nothing is left that is not there"
    uneven = [Sample("a", SAMPLES[0].images, {"en": ("x", "y"), "de": ("x",)})]
    with pytest.raises(DataError) as unlike:
        Things.of(uneven, several=True)
    assert str(unlike.value) == (
        "sample 'a' has texts of 2 in en, 1 in de; with several: true, each image needs as many in each of its "
        "languages, in the same order, and some in en, which most images have"
    )
    welsh = {"image": "images/red-0.png", "captions": {"cy": ["coch"]}, "concept": "red"}
    more = {"image": "images/blue-0.png", "captions": {"cy": ["glas"]}, "concept": "blue"}
    (tmp_path / "cy.jsonl").write_text(json.dumps(welsh) + "\n" + json.dumps(more) + "\n", encoding="utf-8")
    source = {"kind": "folder", "path": str(tmp_path / "cy.jsonl")}
    with pytest.raises(DataError, match="cy left out: no words of yes and no are known; give them in the suite"):
        open_suite(suite(tmp_path, source=source))
    words = {"cy": {"yes": ["ydy"], "no": ["nac ydy"]}}
    (opened,) = open_suite(suite(tmp_path, source=source, words=words)).tasks
    assert opened.languages == ("cy",)


def test_the_shipped_suites_ask_natively() -> None:
    kinds = [task.kind for task in read_suite("vlm").tasks]  # type: ignore[attr-defined]
    assert kinds == ["captioning", "choices", "presence", "questions", "questions"]
    (one,) = read_suite("presence_openmoji").tasks
    assert one.name == "openmoji-presence" and one.wording == "native"  # type: ignore[attr-defined]
