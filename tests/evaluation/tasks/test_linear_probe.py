"""A linear classifier on embeddings from few or all labelled images, and zero-shot beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlkit
from tests.helpers.evaluate_fakes import CountingModel
from vlkit.evaluation.suite import open_suite, read_suite
from vlkit.evaluation.tasks.linear_probe_task import LinearProbeTask, shots_worth, shuffled
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.spec.evaluation import SuiteSpec

CLASSES = ("circle", "dog", "tree")


def photos(folder: Path, *, count: int, seed: int, classes: tuple[str, ...] = CLASSES, noise: int = 35) -> Path:
    """Images of one colour a class, with noise that makes few of them hard to learn from."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for image in range(count):
            base = np.array([(90, 120, 120), (120, 90, 120), (120, 120, 90)][number])
            pixels = np.clip(base + rng.normal(0, noise, (4, 4, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{image}.png")
    return folder


def suite(images: Path, **more: Any) -> SuiteSpec:
    task = {"kind": "linear_probe", "name": "probe", "images": {"kind": "folder", "path": str(images)}, **more}
    return SuiteSpec.model_validate({"tasks": [task]})


def opened(images: Path, **more: Any) -> LinearProbeTask:
    task = open_suite(suite(images, **more)).tasks[0]
    assert isinstance(task, LinearProbeTask)
    return task


def test_more_images_teach_more_and_figures_are_those_of_their_hits(tmp_path: Path) -> None:
    test, train = photos(tmp_path / "test", count=40, seed=0), photos(tmp_path / "train", count=60, seed=1)
    task = opened(test, train={"kind": "folder", "path": str(train)}, shots=[1, 8, 32], draws=3, templates="none")
    (found,) = task.score(CountingModel(), ["en"])
    values, hits = found.values, found.detail
    assert {name: len(hits_DM) for name, hits_DM in hits.items()} == {
        "zero_shot": 1, "shots_1": 3, "shots_8": 3, "shots_32": 3, "all_images": 1,
    }  # fmt: skip
    for name, hits_DM in hits.items():
        assert hits_DM.shape[1] == 120 and values[name] == pytest.approx(hits_DM.mean())
        assert values[f"{name}_low"] <= values[name] <= values[f"{name}_high"]
    assert 1 / 3 < values["shots_1"] < values["shots_8"] < values["shots_32"] and values["all_images"] > 0.8
    assert (values["n_images"], values["n_train"], values["num_classes"], values["n_shared"]) == (120, 180, 3, 0)
    assert task.measures.headline == "all_images"
    assert values == next(task.score(CountingModel(), ["en"])).values  # the same seed, the same figures
    assert values["shots_1"] != next(task.score(CountingModel(), ["en"], seed=7)).values["shots_1"]


def test_zero_shot_is_that_of_the_classifier_for_the_same_names(tmp_path: Path) -> None:
    model, images = CountingModel(), photos(tmp_path / "images", count=6, seed=0)
    task = opened(images, shots=[1], full=False, draws=1, test_share=0.5, templates="none")
    assert (len(task.train.samples), len(task.test.samples)) == (9, 9)
    (found,) = task.score(model, ["en"])
    classifier = vlkit.ZeroShotClassifier(model, list(CLASSES), templates="{}")
    said = classifier.classify([sample.image() for sample in task.test.samples])
    right = [one.label == CLASSES[number] for one, number in zip(said, task.test.targets, strict=True)]
    assert found.detail["zero_shot"][0].tolist() == right
    assert task.measures.headline == "shots_1" and "all_images" not in found.values


def test_what_is_learned_from_is_never_told_apart_and_copies_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = photos(tmp_path / "images", count=10, seed=0)
    task = opened(images, shots=[2], full=False)
    again = opened(images, shots=[2], full=False)
    assert [one.key for one in task.samples] == [one.key for one in again.samples]  # a stable split
    sides = [{one.key for one in side.samples} for side in (task.train, task.test)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 30
    (tmp_path / "images" / "dog" / "copy.png").write_bytes((images / "dog" / "1.png").read_bytes())
    copied = opened(images, train={"kind": "folder", "path": str(images)}, shots=[2], full=False)
    (found,) = copied.score(CountingModel(), ["en"])
    assert found.values["n_shared"] == 31 and "31 of 31 images are copies of some" in caplog.text


def test_few_images_are_drawn_per_class_and_nested() -> None:
    targets = [0, 1, 0, 1, 0, 1, 1]
    order = shuffled(targets, seed=3)
    assert [sorted(one) for one in order] == [[0, 2, 4], [1, 3, 5, 6]]
    assert order == shuffled(targets, seed=3) and order != shuffled(targets, seed=4)


def test_what_names_are_worth_in_images() -> None:
    accuracies = {1: 0.2, 2: 0.4, 8: 0.6}
    assert shots_worth(accuracies, 0.4) == pytest.approx(2) and shots_worth(accuracies, 0.5) == pytest.approx(4)
    assert math.isnan(shots_worth(accuracies, 0.1)) and math.isnan(shots_worth(accuracies, 0.7))
    assert math.isnan(shots_worth({}, 0.5))


def test_a_suite_writes_rows_and_a_page_and_goes_on(tmp_path: Path) -> None:
    images = photos(tmp_path / "images", count=12, seed=0)
    model, out = CountingModel(), tmp_path / "out"
    spec = suite(images, shots=[1, 2], draws=2)
    results = vlkit.evaluate(model, spec, folder=out, quiet=True)
    seen = model.images_seen
    assert seen == 36  # each image once
    assert "shots_1" in (out / "results-probe.csv").read_text(encoding="utf-8")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "1 shot" in page and "zero-shot" in page and "all images" in page and "Names are worth" in page
    again = vlkit.evaluate(model, spec, folder=out, resume=True, quiet=True)
    assert model.images_seen == seen and again.rows[0].values["shots_1"] == results.rows[0].values["shots_1"]
    Image.new("RGB", (4, 4), (9, 9, 9)).save(images / "dog" / "0.png")
    task = open_suite(spec).tasks[0]
    (row,) = evaluate_task(model, task, resume=out / "rows")
    assert model.images_seen > seen and row.task == "probe"  # another image, another row


def test_languages_that_do_not_name_all_classes_are_left_out(tmp_path: Path) -> None:
    images, labels = photos(tmp_path / "images", count=4, seed=0), tmp_path / "labels.tsv"
    labels.write_text(
        "language\tclass\tname\nen\t0\tcircle\nen\t1\tdog\nen\t2\ttree\nde\t0\tKreis\nde\t2\tBaum\n", encoding="utf-8"
    )
    files = {"kind": "files", "paths": [str(labels)]}
    task = opened(images, shots=[1], full=False, labels=files)
    assert task.choose(None) == ("en",) and task.left_out == {"de": "2 of 3 classes have names"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {},
            r"3 classes have fewer than 20 images .*: 3, 2: 3\), which shots: 16 .* needs; set shots: \[1\]",
        ),
        ({"shots": [2, 1]}, r"shots = \[2, 1\]: give each number once, the smallest first"),
        ({"shots": [], "full": False}, r"shots is empty and full is false"),
    ],
)
def test_what_cannot_be_learned_is_told(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    images = photos(tmp_path / "images", count=6, seed=0)
    with pytest.raises(ValueError, match=said):
        opened(images, **more)


def test_classes_must_be_the_same_on_both_sides(tmp_path: Path) -> None:
    images = photos(tmp_path / "images", count=4, seed=0)
    other = photos(tmp_path / "other", count=4, seed=1, classes=("circle", "dog", "rocket"))
    with pytest.raises(
        vlkit.VlkitError, match=r"other classes to learn from than to tell apart: rocket in .*; tree in"
    ):
        opened(images, train={"kind": "folder", "path": str(other)}, shots=[1])
    with pytest.raises(vlkit.VlkitError, match=r"path"):
        read_suite("linear_probe")
