"""How well each class is known: from answers, through a stop, and without a name that may not be written."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.test_suite import images, labels, suite, zero_shot
from tests.helpers.evaluate_fakes import CountingModel
from vlkit.data.names.imagenet import english_names, wordnet_ids
from vlkit.evaluation.results.answers import Answers
from vlkit.evaluation.results.class_scores import ClassTable, language_classes, worst_first
from vlkit.evaluation.results.results_file import Results
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import open_suite, read_suite
from vlkit.evaluation.tasks.engine import score_task
from vlkit.foreign import from_spreadsheet_cell


def _answers(classes: list[int], ranks: list[int], given: list[int]) -> Answers:
    return Answers(np.arange(len(classes)), np.array(classes), np.array(ranks), np.array(given))


def test_scores_by_definition() -> None:
    found = language_classes(_answers([3, 3, 3, 7, 7, 9], [1, 2, 4, 3, 3, 1], [3, 7, 9, 9, 9, 9]), "de", titles=())
    assert list(found) == [3, 7, 9]
    assert (found[3].accuracy, found[3].n_images) == (pytest.approx(1 / 3), 3)
    assert found[3].reciprocal_rank == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert (found[3].confused_with, found[3].confused_share) == (7, pytest.approx(1 / 3))  # of equals the lower
    assert (found[7].confused_with, found[7].confused_share) == (9, 1.0)
    assert found[9].confused_with is None and math.isnan(found[9].confused_share)
    assert [one.class_id for one in worst_first(found.values())] == [7, 3, 9]


def test_languages_weigh_equally_and_english_is_left_out() -> None:
    titles = ("tench", "shark", "eagle")
    by_language = {
        "en": language_classes(_answers([0, 1, 2], [1, 1, 1], [0, 1, 2]), "en", titles=titles),
        "de": language_classes(_answers([0, 0, 0, 1], [1, 1, 1, 2], [0, 0, 0, 2]), "de", titles=titles),
        "sw": language_classes(_answers([0, 1], [2, 2], [2, 2]), "sw", titles=titles),
    }
    table = ClassTable("fish", "mine", by_language, titles)
    shark, tench = table.overall()
    assert (shark.title, shark.accuracy, shark.languages, shark.confused_title) == ("shark", 0.0, ("de", "sw"), "eagle")
    assert (tench.accuracy, tench.n_images, tench.confused_with, tench.confused_share) == (0.5, 3, 2, 0.5)
    only = ClassTable("fish", "mine", {"en": by_language["en"]}, titles)
    assert len(only.overall()) == 3  # English alone is better than nothing
    lines = list(csv.DictReader(table.csv().splitlines()))
    assert len(lines) == 3 + 2 + 2
    assert lines[4] | {"mean_reciprocal_rank": ""} == {
        "task": "fish", "variant": "mine", "language": "de", "class": "1", "title": "shark", "n_images": "1",
        "acc1": "0.0", "mean_reciprocal_rank": "", "most_often": "2", "most_often_title": "eagle",
        "most_often_share": "1.0",
    }  # fmt: skip


def test_names_from_elsewhere_are_text_in_every_file(tmp_path: Path) -> None:
    names = ["=HYPERLINK(0)", "@a", "[x](javascript:alert(1))", "<img src=x onerror=alert(1)>"]
    spec = zero_shot(tmp_path)
    labels(tmp_path / "labels.json", {"en": [*names]})
    evaluate(CountingModel(), suite(spec, languages=["en"]), name="-1+1", folder=tmp_path / "out", quiet=True)
    texts = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("re*.*")}
    rows = list(csv.DictReader(texts["results-classes.csv"].splitlines()))
    assert [row["variant"] for row in rows] == ["'-1+1"] * 4
    assert {row["title"] for row in rows} == {"'=HYPERLINK(0)", "'@a", *names[2:]}
    assert [from_spreadsheet_cell(row["title"]) for row in rows] == names
    assert Results.load(tmp_path / "out" / "results.json").variants == ("-1+1",)
    assert next(csv.DictReader(texts["results.csv"].splitlines()))["variant"] == "'-1+1"
    assert "[x\\](javascript:alert(1))" in texts["results.md"] and "[x](javascript" not in texts["results.md"]
    assert "<img" not in texts["results.md"] + texts["report.html"]


def test_answers_that_were_not_kept_are_not_known() -> None:
    found = language_classes(_answers([0, 1], [2, 1], [-1, -1]), "de")
    assert found[0].confused_with is None and found[0].accuracy == 0.0


def test_the_answer_is_the_best_class_and_agrees_with_the_rank(tmp_path: Path) -> None:
    task = open_suite(suite(zero_shot(tmp_path))).tasks[0]
    for tag, scores in score_task(CountingModel(), task).languages.items():
        found = scores.answers()
        assert scores.answer_N.tolist() == scores.best_NM[:, 0].tolist(), tag
        assert ((found.rank_N == 1) == (found.answer_N == found.class_N)).all()
        by_class = {number: one.accuracy for number, one in language_classes(found, tag).items()}
        assert by_class == pytest.approx(scores.class_accuracy())


def test_classes_are_the_same_after_a_stop(tmp_path: Path) -> None:
    spec = suite(zero_shot(tmp_path))
    evaluate(CountingModel(), spec, folder=tmp_path / "out", quiet=True)
    names = ("results-classes.csv", "results.md", "report.html")
    before = {name: (tmp_path / "out" / name).read_text(encoding="utf-8") for name in names[:2]}
    for name in names:
        (tmp_path / "out" / name).unlink()
    again = CountingModel()
    work = evaluate(again, spec, folder=tmp_path / "out", resume=True, quiet=True).meta["work"]
    assert again.images_seen == work["texts_asked"] == 0  # every row was read back
    assert {name: (tmp_path / "out" / name).read_text(encoding="utf-8") for name in before} == before
    assert "polar bear" in before["results-classes.csv"] and "### Worst classes" in before["results.md"]
    assert "Worst classes" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_names_under_a_license_that_forbids_copies_are_in_no_file(tmp_path: Path) -> None:
    images(tmp_path / "val", (wordnet_ids()[0], wordnet_ids()[2]), each=2)
    babel = {"DE": [[0, 2], ["Schleie", "Weisshai"]], "FY": [[0, 2], ["Seelt", "Wythaai"]]}
    (tmp_path / "babel.json").write_text(json.dumps(babel))
    given = {"images.path": tmp_path / "val", "images.classes": "present", "templates.kind": "none"}
    given |= {"labels.paths": f"[{tmp_path / 'babel.json'}]"}
    spec = read_suite("babel_imagenet", [f"tasks.0.{key}={value}" for key, value in given.items()])
    task = open_suite(spec).tasks[0]
    assert task.private and task.titles == english_names()
    evaluate(CountingModel(), spec, folder=tmp_path / "out", quiet=True)
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    for name in ("Schleie", "Weisshai", "Seelt", "Wythaai"):
        assert name.encode() not in written
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert english_names()[0] in page and english_names()[2] in page  # OpenAI's names are free
