"""ObjectNet: objects as groups of ImageNet classes, without the border of its images."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.evaluate_fakes import CountingModel
from tests.helpers.image_forms import write_folder
from vlkit.data.names.imagenet import english_lemmas
from vlkit.data.sources.classes.objectnet import read_objectnet
from vlkit.errors import DataError
from vlkit.evaluation.embed.texts import class_embeddings
from vlkit.evaluation.suite import open_suite
from vlkit.evaluation.tasks.engine import score_task
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.spec.evaluation import SuiteSpec

FOLDERS = {"bicycle": "Bicycle", "alarm_clock": "Alarm clock", "banana": "Banana", "air_freshener": "Air freshener"}
CLASSES = {
    "Alarm clock": "analog clock; digital clock",
    "Banana": "banana",
    "Bicycle": "mountain bike, all-terrain bike, off-roader; bicycle-built-for-two, tandem bicycle, tandem",
}
NUMBERS = ((409, 530), (954,), (444, 671))  # by the names of the objects


def bordered(seed: int) -> bytes:
    """Noise in a red frame of two pixels."""
    inner = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    whole = np.zeros((13, 15, 3), dtype=np.uint8)
    whole[..., 0] = 255
    whole[2:-2, 2:-2] = inner
    stream = io.BytesIO()
    Image.fromarray(whole).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def release(tmp_path: Path) -> Path:
    root = tmp_path / "objectnet-1.0"
    files = {f"images/{name}/{n}.png": bordered(10 * k + n) for k, name in enumerate(FOLDERS) for n in range(2)}
    files["mappings/folder_to_objectnet_label.json"] = json.dumps(FOLDERS).encode()
    files["mappings/objectnet_to_imagenet_1k.json"] = json.dumps(CLASSES).encode()
    return write_folder(root, files)


def opened(release: Path, labels: dict[str, Any], **more: Any) -> Any:
    images = {"kind": "objectnet", "path": str(release), **more}
    task = {"kind": "zero_shot", "name": "objectnet", "images": images, "labels": labels}
    return open_suite(SuiteSpec.model_validate({"tasks": [task]})).tasks[0]


def test_objects_that_are_imagenet_classes(release: Path) -> None:
    found = read_objectnet(str(release))
    assert found.images.targets == (0, 0, 1, 1, 2, 2) and found.imagenet == NUMBERS
    assert [sample.concept for sample in found.images.samples[::2]] == ["Alarm clock", "Banana", "Bicycle"]
    image = found.images.samples[0].image()
    assert image.size == (11, 9)
    assert np.array_equal(np.asarray(image), np.random.default_rng(10).integers(0, 256, (9, 11, 3), dtype=np.uint8))
    whole = read_objectnet(str(release), border=0).images.samples[0].image()
    assert whole.size == (15, 13) and whole.getpixel((1, 1)) == (255, 0, 0)
    for other in (release / "images", release.parent):
        assert read_objectnet(str(other), mappings=release / "mappings").images.targets == found.images.targets


def test_an_object_has_the_names_of_all_its_classes(release: Path, tmp_path: Path) -> None:
    names = {"de": {409: "Analoguhr", 530: "Digitaluhr", 954: "Banane", 671: "Mountainbike", 0: "Schleie"}}
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"labels": names, "num_classes": 1000}))
    task = opened(release, {"kind": "files", "paths": [str(path)]})
    assert task.names == {"de": [("Analoguhr", "Digitaluhr"), ("Banane",), ("Mountainbike",)]}
    model = CountingModel().eval()
    class_KE = class_embeddings(model, task.names["de"], language="de", templates=["{}"])
    one_KE = class_embeddings(model, [("Analoguhr",), ("Digitaluhr",)], language="de", templates=["{}"])
    mean_E = one_KE.mean(0)
    assert np.allclose(class_KE[0].numpy(), (mean_E / mean_E.norm()).numpy(), atol=1e-6)
    assert score_task(model, task).languages["de"].target_N.tolist() == [0, 0, 1, 1, 2, 2]
    assert evaluate_task(model, task)[0]["num_classes"] == 3


def test_its_own_names(release: Path) -> None:
    assert opened(release, {"kind": "own"}).names == {"en": [("alarm clock",), ("banana",), ("bicycle",)]}


def test_every_class_but_the_crane_is_found_by_its_lemmas(release: Path) -> None:
    """Two classes are called just crane; all other names of the mapping can be told apart."""
    lemmas = [", ".join(names) for names in english_lemmas()]
    for number, text in enumerate(lemmas):
        if text != "crane":
            assert lemmas.count(text) == 1, (number, text)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "objectnet_to_imagenet_1k.json",
            {"Banana": "crane"},
            "'Banana' is 'crane': two ImageNet classes are called so",
        ),
        ("objectnet_to_imagenet_1k.json", {"Banana": "bananas"}, "'Banana' is 'bananas': no ImageNet class"),
        ("objectnet_to_imagenet_1k.json", {"Apple": "fig"}, r"no object of folder_to_.*json is an ImageNet class"),
        (
            "folder_to_objectnet_label.json",
            {"banana": "Banana"},
            r"alarm_clock, bicycle.*: no such folder in .*folder_to",
        ),
        ("folder_to_objectnet_label.json", [1], "must map texts to texts"),
        ("folder_to_objectnet_label.json", {**FOLDERS, "x": "Banana", "tie": "Tie"}, ""),
    ],
)
def test_wrong_mappings(release: Path, file: str, content: Any, message: str) -> None:
    (release / "mappings" / file).write_text(json.dumps(content))
    if not message:
        assert read_objectnet(str(release)).images.num_classes == 3
        return
    with pytest.raises(DataError, match=message):
        read_objectnet(str(release))


def test_what_is_missing(release: Path) -> None:
    with pytest.raises(DataError, match=r"no such file or directory; mappings names the folder of the release"):
        read_objectnet(str(release / "images" / "banana"))
    for path in (release / "images" / "banana").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"banana: has no image"):
        read_objectnet(str(release))
    (release / "images" / "banana").rmdir()
    with pytest.raises(DataError, match=r"1 of 3 objects have no images: Banana"):
        read_objectnet(str(release))


def test_an_image_that_is_all_border(release: Path) -> None:
    images = read_objectnet(str(release), border=7).images
    with pytest.raises(DataError, match=r"Alarm clock/0\.png: 15 x 13 pixels are no more than its border"):
        images.samples[0].image()
