"""Questions of published sets: what is asked, how answers count, one look at an image, stops, processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.helpers import question_sets as sets
from tests.helpers import vision_language
from tests.helpers.answering_fakes import COLORS, ColorTeller
from tests.helpers.ranks import on_ranks
from vlkit.data.questions.question_records import ImageQuestion
from vlkit.distributed.collectives import Ranks
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.results.written import read_written
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import open_suite
from vlkit.evaluation.tasks.question_task import QuestionTask
from vlkit.spec.evaluation import SuiteSpec
from vlkit.spec.language import GenerationSpec
from vlkit.types import Question

SHORT = "Answer the question using a single word or phrase."


class Says(ColorTeller):
    """Answers what a function says of a question; ``weigh`` is the log-likelihood of an answer."""

    def __init__(
        self, say: Callable[[Question], str], weigh: Callable[[Question, str], float] = lambda question, answer: -1.0
    ) -> None:
        super().__init__()
        self.say, self.weigh = say, weigh

    def _named(self, question: Question) -> str:
        return self.say(question)

    def log_likelihoods(self, questions: Sequence[Question], answers: Sequence[str], *, batch_size: int = 16) -> Tensor:
        self.asked += questions
        pairs = zip(questions, answers, strict=True)
        return torch.tensor([[self.weigh(question, answer), len(answer) + 1.0] for question, answer in pairs])


def suite(source: dict[str, Any], **more: Any) -> SuiteSpec:
    task = {"kind": "questions", "name": "ask", "source": source, **more}
    return SuiteSpec.model_validate({"tasks": [task], "batch_size": 5})


def rows_of(model: ColorTeller, spec: SuiteSpec, **more: Any) -> dict[str, Any]:
    return {row.language: row for row in evaluate(model, spec, quiet=True, **more).rows}


def prompts(model: ColorTeller) -> list[str]:
    """What was asked about images, without what tells models apart."""
    return [one.text for one in model.asked if one.text != "?" and one.images]


def test_images_are_seen_once_for_all_questions_and_languages(tmp_path: Path) -> None:
    model = ColorTeller()  # says the colour in English, also where it is asked whether
    spec = suite(sets.xgqa(tmp_path / "set"), prompt="mblip")
    results = evaluate(model, spec, folder=tmp_path / "out", quiet=True)
    row = {one.language: one for one in results.rows}["de"]
    assert row["exact_match"] == row["relaxed_match"] == pytest.approx(2 / 3) and row["fidelity"] == 1
    assert row["exact_match_no_image"] == pytest.approx(1 / 3)  # without one it says red
    assert row["exact_match_over_no_image"] == pytest.approx(1 / 3)
    assert row["n_questions"] == 3 and row["n_images"] == 2 and row.headline.low < 2 / 3 < row.headline.high
    assert results.meta["work"] == {"images_encoded": 2, "texts_encoded": 0, "texts_asked": 0, "answers": 12}
    assert "Question: Ist es rot? Short answer in English:" in prompts(model)
    assert model.generations[-1] == GenerationSpec(max_tokens=10, beams=5, length_penalty=-1.0)
    assert all(one.language == "en" for one in model.asked)
    written = read_written(tmp_path / "out", "ask", "de")
    assert written is not None
    assert [(one.question, one.answer, one.references) for one in written][1] == ("Ist es rot?", "red", ("yes",))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "exact match gained by the image" in page and "What it says" in page
    again = evaluate(ColorTeller(), spec, folder=tmp_path / "out", resume=True, quiet=True)
    assert again.rows == results.rows and again.meta["work"]["images_encoded"] == 0


class Stops(ColorTeller):
    """Is stopped at a call."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def answer(self, questions: Sequence[Question], **settings: Any) -> list[str]:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().answer(questions, **settings)


def test_a_stopped_run_asks_nothing_twice(tmp_path: Path) -> None:
    spec = suite(sets.xgqa(tmp_path / "set"))
    whole = evaluate(ColorTeller(), spec, folder=tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Stops(4), spec, folder=tmp_path / "out", quiet=True)  # two for what the model is, one a language
    resumed = evaluate(ColorTeller(), spec, folder=tmp_path / "out", resume=True, quiet=True)
    assert resumed.rows == whole.rows and resumed.meta["work"]["answers"] == 6  # those without an image
    assert resumed.meta["work"]["images_encoded"] == 0


def _rows_here(plain: dict[str, Any]) -> list[Any]:
    spec = SuiteSpec.model_validate(plain)
    return [row.flat() for row in evaluate(ColorTeller(), spec, ranks=Ranks.world(), quiet=True).rows]


def test_processes_share_the_questions(tmp_path: Path) -> None:
    spec = suite(sets.xgqa(tmp_path)).model_dump(mode="json")
    alone = [repr(row) for row in _rows_here(spec)]
    assert [[repr(row) for row in rows] for rows in on_ranks(2, _rows_here, spec)] == [alone] * 2


def test_two_images_are_shown_with_one_statement(tmp_path: Path) -> None:
    seen: list[list[list[float]]] = []

    def say(question: Question) -> str:
        seen.append([[round(value, 1) for value in one[0].tolist()] for one in question.images])
        return "Yes, it is" if question.images else "no"

    model = Says(say)
    rows = rows_of(model, suite(sets.marvl(tmp_path), prompt="centurio"))
    assert (rows["sw"]["accuracy"], rows["sw"]["exact_match"], rows["sw"]["relaxed_match"]) == (0.5, 0, 0.5)
    assert rows["zh"]["accuracy"] == 1 and rows["zh"]["chance"] == 0.5 and rows["zh"]["accuracy_no_image"] == 0
    assert model.images_seen == 4 and rows["sw"]["n_images"] == 2  # each once, though two statements show it
    red, blue = [[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]]
    assert [red, blue] in seen
    assert prompts(model)[0] == (
        'Given the two images <image><image>, is it correct to say "Kuna dawati"? Answer yes or no.'
    )
    bare = [one.text for one in model.asked if not one.images]
    assert 'Given the two images, is it correct to say "Kuna dawati"? Answer yes or no.' in bare


@pytest.mark.parametrize(
    ("said", "figures"),
    [
        ("C", {"accuracy": 1, "exact_match": 1, "relaxed_match": 1, "unclear": 0}),
        (" (c). ", {"accuracy": 1, "exact_match": 1, "relaxed_match": 1, "unclear": 0}),
        ("C. biru", {"accuracy": 1, "exact_match": 0, "relaxed_match": 1, "unclear": 0}),
        ("Biru", {"accuracy": 1, "exact_match": 0, "relaxed_match": 0, "unclear": 0}),
        ("The answer is C", {"accuracy": 1, "exact_match": 0, "relaxed_match": 0, "unclear": 0}),
        ("Certainly", {"accuracy": 0, "exact_match": 0, "relaxed_match": 1, "unclear": 1}),
        ("B", {"accuracy": 0, "exact_match": 0, "relaxed_match": 0, "unclear": 0}),
    ],
)
def test_answers_by_letter(said: str, figures: dict[str, float], tmp_path: Path) -> None:
    model = Says(lambda question: said)
    row = rows_of(model, suite(sets.cvqa(tmp_path), prompt="centurio"))["id"]
    assert {name: row[name] for name in figures} == figures and row["chance"] == 0.25
    assert prompts(model)[0] == (
        "Apa warnanya?\nA. merah\nB. hijau\nC. biru\nD. kuning\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_answers_by_likelihood(tmp_path: Path) -> None:
    def weigh(question: Question, answer: str) -> float:
        if not question.images:
            return {"merah": -1.0, "rojo": -9.0}.get(answer, -3.0)
        return {"biru": -2.0, "merah": -1.5, "rojo": -1.0, "azul": -1.0}.get(answer, -8.0)

    model = Says(lambda question: "", weigh)
    rows = rows_of(model, suite(sets.cvqa(tmp_path), answer="likelihood"))
    assert (rows["id"]["accuracy"], rows["id"]["accuracy_gain"], rows["id"]["accuracy_no_image"]) == (0, 1, 0)
    assert rows["es"]["accuracy"] == 0 and rows["es"]["accuracy_per_token"] == 0  # as likely as another one
    assert rows["es"]["accuracy_gain"] == 1 and "exact_match" not in rows["es"].values
    brief = {"Apa warnanya? Answer briefly in Indonesian.", "¿De qué color? Answer briefly in Spanish."}
    assert set(prompts(model)) == brief
    ground = suite(sets.smpqa(tmp_path), answer="likelihood", categories=["ground"])
    assert rows_of(Says(str, lambda q, answer: -float(len(answer))), ground)["ko"]["accuracy"] == 0  # yes is longer


def test_of_five_pictures_a_letter_is_named(tmp_path: Path) -> None:
    model = Says(lambda question: "The answer is C." if question.images else "none")
    row = rows_of(model, suite(sets.m5(tmp_path, "m5_vlod", ["C", "A"]), prompt="m5"))["zgh"]
    assert (row["accuracy"], row["exact_match"], row["unclear"], row["chance"]) == (0.5, 0, 0, 0.2)
    assert row["accuracy_no_image"] == 0


@pytest.mark.parametrize("architecture", ["llama", "mt5"])
def test_a_model_answers_as_it_does_one_by_one(architecture: str, tmp_path: Path) -> None:
    model = vision_language.tiny("qformer", architecture)
    source = sets.marvl(tmp_path / "set")
    generation = {"max_tokens": 6}
    spec = suite(source, template="{question}", generation=generation, languages=["sw"])
    evaluate(model, spec, folder=tmp_path / "out", quiet=True)
    written = read_written(tmp_path / "out", "ask", "sw")
    pair = tuple(str(path) for path in sorted((tmp_path / "set" / "images" / "sw").rglob("*.jpg"), reverse=True))
    assert written is not None and [Path(one).name for one in pair] == ["81-5.jpg", "81-11.jpg"]
    for one in written:
        said = model.answer([Question(one.question, pair, "en")], generation=GenerationSpec(**generation))
        assert said[0].strip() == one.answer


def test_prompts_in_english_and_native_side_by_side(tmp_path: Path) -> None:
    model = ColorTeller({"en": ("?",) * 4, "fr": ("rouge", "vert", "bleu", "jaune"), "he": ("?",) * 4})
    spec = suite(sets.maxm(tmp_path), prompt="centurio", wording="both")
    rows = {(row.task, row.language): row for row in evaluate(model, spec, quiet=True).rows}
    assert rows["ask-english", "fr"]["exact_match"] == rows["ask-native", "fr"]["exact_match"] == 1
    assert rows["ask-native", "he"]["fidelity"] == 0
    asked = prompts(model)
    assert f"De quelle couleur ?\n{SHORT}\nAnswer in French." in asked
    assert any(one.startswith("De quelle couleur ?") and "French" not in one for one in asked)
    words = {"sw": ["ndiyo", "hapana"]}
    model = Says(lambda question: "Hapana.")
    native = suite(sets.marvl(tmp_path / "marvl"), wording="native", words=words)
    row = rows_of(model, native)["sw"]
    assert (
        row["accuracy"] == 0.5 and row["relaxed_match"] == 0.5 and {one.language for one in model.asked[2:]} == {"sw"}
    )


def colors_asked_for(controls: tuple[Any, ...]) -> QuestionTask:
    """Two questions about a red picture, one about each of three others."""
    shown = ("red", "red", "green", "blue", "yellow")
    pictures = {name: lambda name=name: Image.new("RGB", (8, 8), COLORS[name]) for name in COLORS}
    questions = [
        ImageQuestion(
            f"{number}", "en", f"Colour {number}?", (name,), (pictures[name],), answer_language="en", group=name
        )
        for number, name in enumerate(shown)
    ]
    return QuestionTask("ask", questions, {"en": "{question}"}, controls=controls)


def test_a_model_that_does_not_look_has_the_same_figures_in_all_controls() -> None:
    (row,) = colors_asked_for(("no_image", "blank_image", "other_image")).score(Says(lambda question: "red"), ["en"])
    for control in ("no_image", "blank_image", "other_image"):
        assert row.values[f"exact_match_{control}"] == row.values["exact_match"] == 0.4
        assert row.values[f"exact_match_over_{control}"] == 0


def test_another_image_is_never_right_for_who_looks() -> None:
    model = ColorTeller()
    (row,) = colors_asked_for(("blank_image", "other_image")).score(model, ["en"])
    assert (row.values["exact_match"], row.values["exact_match_other_image"]) == (1, 0)
    assert row.values["exact_match_over_other_image"] == 1
    assert row.values["exact_match_blank_image"] in (0, 0.2, 0.4)  # one colour for all
    assert np.isnan(row.values["exact_match_no_image"]) and model.images_seen == 5  # the grey one once


def test_where_one_image_has_most_questions_there_is_no_other(tmp_path: Path) -> None:
    row = rows_of(ColorTeller(), suite(sets.xgqa(tmp_path), prompt="mblip", controls=["other_image"]))["de"]
    assert np.isnan(row["exact_match_other_image"]) and np.isnan(row["exact_match_over_other_image"])


def test_categories_limits_and_text_alone(tmp_path: Path) -> None:
    plots = sets.smpqa(tmp_path)
    row = rows_of(Says(lambda question: "책"), suite(plots, prompt="centurio", categories=["name"]))["ko"]
    assert row["exact_match"] == row["fidelity"] == row["n_questions"] == 1
    model = Says(lambda question: "A" if question.images else "B")
    exam = {**sets.kaleidoscope(tmp_path), "with_images_only": False}
    row = rows_of(model, suite(exam))["pt"]
    assert row["accuracy"] == 1 and row["n_questions"] == 2 and row["accuracy_no_image"] == 0.5
    assert model.images_seen == 1
    one = open_suite(suite(sets.xgqa(tmp_path / "g"), limit=1)).tasks[0]
    assert len({question.key for question in one.questions}) == 1 and len(one.questions) == 2  # type: ignore[attr-defined]


def test_marks_inside_of_questions_stand_for_their_images(tmp_path: Path) -> None:
    model = Says(lambda question: "B")
    rows = rows_of(model, suite(sets.m3exam(tmp_path), prompt="centurio", controls=[]))
    assert rows["zh"]["accuracy"] == 1 and np.isnan(rows["zh"]["accuracy_no_image"])
    asked = next(one for one in model.asked if "颜色" in one.text)
    assert asked.text.count("<image>") == 2 == len(asked.images)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"prompt": "m5"}, "prompt: m5 has none for xgqa, whose questions are of the form open (it has pair, outlier); "
                           "take another, or give a template"),
        ({"answer": "letters"}, "answer: letters are for sets with options to choose from, not for xgqa"),
        ({"answer": "likelihood"}, "answer: likelihood needs options, and the questions of xgqa are open"),
        ({"template": "Say it"}, "'Say it' has no {question}"),
        ({"template": "{question} {lang}"}, "'{question} {lang}' has {lang}; a template may have question, language,"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_files_are_read(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        suite({"kind": "xgqa", "path": "p", "images": "i"}, **more)
    assert message in str(caught.value)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    source = sets.xgqa(tmp_path)
    with pytest.raises(UnknownName, match="no category in the questions of task ask 'queries'; did you mean 'query'"):
        open_suite(suite(source, categories=["queries"]))
    with pytest.raises(UnknownName, match="no language of task ask 'fr'"):
        open_suite(suite(source, languages=["fr"]))
    with pytest.raises(DataError, match="task 'ask': no language can be asked in itself; de: there is no prompt in it"):
        open_suite(suite(source, wording="native", languages=["de"]))
    with pytest.raises(DataError, match=r"words has 3 for sw \(a, b, c\), and the options are yes, no; give one word"):
        open_suite(suite(sets.marvl(tmp_path / "m"), wording="native", words={"sw": ["a", "b", "c"]}))
    with pytest.raises(DataError, match="task 'ask': template has none for en; add them"):
        open_suite(suite(source, template={"de": "{question}"}))
