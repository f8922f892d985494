"""Languages that name different numbers of classes, made comparable; and which names may be written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import vlkit
from tests.evaluation.test_suite import NAMES, images, labels, suite, zero_shot
from tests.helpers.evaluate_fakes import CountingModel, sample
from vlkit.errors import DataError, VlkitError
from vlkit.evaluation.metrics.intervals import subset_accuracy
from vlkit.evaluation.run import evaluate, size_of
from vlkit.evaluation.suite import open_suite
from vlkit.evaluation.tasks.class_names import check_class_names, write_class_names
from vlkit.evaluation.tasks.engine import score_task
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask, shared_classes
from vlkit.spec.evaluation import ComparableSpec


def test_by_default_all_are_scored_as_if_they_had_as_few_as_the_smallest(tmp_path: Path) -> None:
    task = open_suite(suite(zero_shot(tmp_path))).tasks[0]
    assert isinstance(task, ZeroShotTask) and task.subset_size == 3  # Swahili has no polar bear
    rows = {row.language: row for row in evaluate_task(CountingModel(), task)}
    for tag, scores in score_task(CountingModel(), task).languages.items():
        expected = subset_accuracy(scores.rank_N, scores.target_N, num_classes=len(scores.classes), size=3)
        assert (rows[tag]["acc1_subset"], rows[tag]["subset_size"]) == (expected, 3)
    assert rows["sw"]["acc1_subset"] == pytest.approx(rows["sw"]["mean_per_class_recall"])  # just its own classes
    assert rows["de"]["acc1_subset"] >= rows["de"]["acc1"]


@pytest.mark.parametrize(("wanted", "size"), [(None, 0), (4, 4), ("smallest", 3)])
def test_the_size_is_what_was_asked_for(tmp_path: Path, wanted: object, size: int) -> None:
    spec = suite(zero_shot(tmp_path, comparable={"size": wanted}))
    task = open_suite(spec).tasks[0]
    assert task.subset_size == size
    (row,) = evaluate_task(CountingModel(), task, languages=["sw"])
    assert row["subset_size"] == size and math.isnan(row["acc1_subset"]) == (size in (0, 4))  # 4 are more than it has


def test_where_all_languages_have_the_same_classes_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert open_suite(suite(zero_shot(tmp_path), languages=["en", "de"])).tasks[0].subset_size == 0


def test_shared_classes_are_a_task_of_their_own(tmp_path: Path) -> None:
    spec = suite(zero_shot(tmp_path, comparable={"shared": True}))
    model = CountingModel()
    results = evaluate(model, spec, folder=tmp_path / "out", quiet=True)
    assert results.tasks == ("pets", "pets-shared") and model.images_seen == 16  # encoded for both at once
    for row in results.of("model", task="pets-shared").values():
        assert (row["num_classes"], row["n_images"]) == (3, 12)
    # the same as the task without polar bears in the first place
    names = {tag: [None if name == NAMES[tag][2] else name for name in each] for tag, each in NAMES.items()}
    few = labels(tmp_path / "few.json", names)
    again = evaluate(
        CountingModel(), suite(zero_shot(tmp_path, labels={"kind": "files", "paths": [str(few)]})), quiet=True
    )
    shared = results.of("model", task="pets-shared")
    assert {tag: row["acc1"] for tag, row in shared.items()} == {row.language: row["acc1"] for row in again.rows}
    assert (tmp_path / "out" / "report-pets-shared.html").exists()


def test_languages_that_share_nothing_and_a_name_that_is_taken(tmp_path: Path) -> None:
    plain = zero_shot(tmp_path)
    labels(tmp_path / "labels.json", {"en": ["cat", "dog", None, None], "de": [None, None, "Eisbär", "Tasse"]})
    task = open_suite(suite(plain)).tasks[0]
    with pytest.raises(DataError, match="its 2 languages share 0 classes"):
        shared_classes(task, ("en", "de"))
    labels(tmp_path / "labels.json")
    twice = [{**plain, "comparable": {"shared": True}}, {**plain, "name": "pets-shared"}]
    with pytest.raises(VlkitError, match="makes a task 'pets-shared', which the suite has already"):
        open_suite(suite(*twice))
    with pytest.raises(ValueError, match="size"):
        ComparableSpec(size=1)


def test_median_rank_is_that_of_the_ranks(tmp_path: Path) -> None:
    task = open_suite(suite(zero_shot(tmp_path))).tasks[0]
    scores = score_task(CountingModel(), task).languages["de"]
    ranks = sorted(scores.rank_N.tolist())
    assert scores.values(task)["median_rank"] == (ranks[7] + ranks[8]) / 2


def test_class_names_are_written_when_asked_for(tmp_path: Path) -> None:
    task = open_suite(suite(zero_shot(tmp_path))).tasks[0]
    path, notices = write_class_names(tmp_path, [task])
    found = json.loads(path.read_text(encoding="utf-8"))["pets"]
    assert found["names"]["sw"] == {"0": ["paka"], "1": ["mbwa"], "3": ["kikombe"]} and notices == ()


def test_private_names_need_a_promise(tmp_path: Path) -> None:
    images(tmp_path / "val", ("0", "2"), each=1)
    (tmp_path / "babel.json").write_text(json.dumps({"DE": [[0, 2], ["Schleie", "Weisshai"]]}))
    spec = suite(
        {
            "kind": "zero_shot",
            "name": "babel",
            "images": {"kind": "imagenet", "path": str(tmp_path / "val"), "classes": "present"},
            "labels": {"kind": "files", "paths": [str(tmp_path / "babel.json")]},
        }
    )
    tasks = open_suite(spec).tasks
    with pytest.raises(DataError, match=r"task 'babel' may not be passed on.*BabelNet Non-Commercial.*--own-use"):
        check_class_names(tasks)
    with pytest.raises(DataError, match="may not be passed on"):
        write_class_names(tmp_path / "out", tasks)
    assert not (tmp_path / "out").exists()
    path, notices = write_class_names(tmp_path / "out", tasks, own_use=True)
    assert "Weisshai" in path.read_text(encoding="utf-8") and "BabelNet" in notices[0]


def test_facts_for_provenance(tmp_path: Path) -> None:
    spec = suite(zero_shot(tmp_path))
    model = CountingModel()
    meta = vlkit.evaluate(model, spec, quiet=True).meta
    assert meta["parameters"] == sum(one.numel() for one in model.parameters()) and meta["precision"] == "float32"
    assert size_of(object()) == {} and size_of(model.half())["precision"] == "float16"
    facts = open_suite(spec).tasks[0].facts
    assert {key: meta[key]["pets"] for key in facts} == facts
    labels(tmp_path / "labels.json", {**NAMES, "de": ["Kater", *NAMES["de"][1:]]})
    other = open_suite(spec).tasks[0].facts
    assert {tag for tag, found in other["label_sets"].items() if found != facts["label_sets"][tag]} == {"de"}
    assert other["class_sets"] == facts["class_sets"]
    assert other["template_sets"] == facts["template_sets"]


def test_private_names_are_no_titles() -> None:
    samples = [sample(number, en=f"name {number}") for number in range(2)]
    names = {"en": (("name 0",), None), "de": (("Name 0",), ("Name 1",))}
    task = ZeroShotTask("mine", samples, names)
    assert task.titles == ("name 0", "")
    assert ZeroShotTask("mine", samples, names, private=True).titles == ()
    assert ZeroShotTask("mine", samples, names, private=True, known_titles=("a", "b")).titles == ("a", "b")
    assert ZeroShotTask("mine", samples, {"de": names["de"]}).titles == ()
