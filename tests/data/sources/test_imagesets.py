"""Every form of one image set gives the same task and scores; what is wrong with a form is named."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.evaluate_fakes import CountingModel
from tests.helpers.image_forms import (
    by_class,
    make_files,
    write_benchmark_shards,
    write_folder,
    write_json_shards,
    write_parquet,
    write_tar,
    write_tar_of_tars,
    write_zip,
)
from vlkit.data.names.imagenet import class_indices, english_names, wordnet_ids
from vlkit.data.sources.classes.collection import ClassImages, any_classes
from vlkit.data.sources.classes.find import find_images
from vlkit.data.sources.classes.imagenet_images import imagenet_images
from vlkit.errors import DataError
from vlkit.evaluation.suite import open_suite
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.spec.evaluation import SuiteSpec

IDS = wordnet_ids()
CLASSES = tuple(IDS[number] for number in (0, 5, 207, 934))
FILES = make_files(CLASSES)
PLACE = {wnid: number for number, wnid in enumerate(IDS)}


def flat(root: Path) -> dict[str, Any]:
    """The development kit's: numbered files in no order of classes, and a WordNet id a line."""
    order = sorted(FILES, key=lambda name: (name.rpartition("_")[2], name))
    names = {name: f"ILSVRC2012_val_{number:08d}.png" for number, name in enumerate(order, 1)}
    write_folder(root / "val", {names[name]: content for name, content in FILES.items()})
    (root / "synsets.txt").write_text("".join(f"{name.partition('/')[0]}\n" for name in order))
    return {"path": str(root / "val"), "labels_file": str(root / "synsets.txt")}


def flat_tar(root: Path) -> dict[str, Any]:
    spec = flat(root)
    content = {path.name: path.read_bytes() for path in sorted(Path(spec["path"]).iterdir(), reverse=True)}
    return {**spec, "path": str(write_tar(root / "ILSVRC2012_img_val.tar", content))}


def table(root: Path) -> dict[str, Any]:
    write_folder(root / "val", {f"{name.replace('/', '-')}": content for name, content in FILES.items()})
    lines = [f"{name.replace('/', '-')[:-4]},{name.partition('/')[0]} 1 2 3 4" for name in reversed(list(FILES))]
    (root / "solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(lines) + "\n")
    return {"path": str(root / "val"), "labels_file": str(root / "solution.csv")}


def class_tars(root: Path) -> dict[str, Any]:
    for label, images in by_class(FILES).items():
        write_tar(root / "tars" / f"{label}.tar", images)
    return {"path": str(root / "tars")}


def two_parquets(root: Path) -> dict[str, Any]:
    mixed = dict(sorted(FILES.items(), key=lambda pair: pair[0].rpartition("_")[2]))
    halves = [dict(list(mixed.items())[start:stop]) for start, stop in ((0, 5), (5, None))]
    for number, half in enumerate(halves):
        path = root / "data" / f"validation-{number:05d}-of-00002.parquet"
        write_parquet(path, half, lambda wnid: PLACE[wnid], names=english_names())
    return {"path": str(root)}


def wrapped(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"release/imagenet-x/{name}": content for name, content in files.items()} | {
        "release/README.txt": b"read me",
        "release/imagenet-x/._hidden.png": b"AppleDouble",
        "__MACOSX/release/x.png": b"no image",
    }


FORMS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "folder": lambda root: {"path": str(write_folder(root / "val", FILES))},
    "folder in folders": lambda root: {"path": str(write_folder(root, wrapped(FILES)))},
    "tar": lambda root: {"path": str(write_tar(root / "r.tar", wrapped(FILES)))},
    "tar of tars": lambda root: {"path": str(write_tar_of_tars(root / "r.tar", FILES))},
    "folder of tars": class_tars,
    "zip": lambda root: {"path": str(write_zip(root / "sketch.zip", wrapped(FILES)))},
    "stored zip": lambda root: {"path": str(write_zip(root / "sketch.zip", FILES, zipfile.ZIP_STORED))},
    "flat": flat,
    "flat tar": flat_tar,
    "table": table,
    "benchmark shards": lambda root: {
        "path": str(write_benchmark_shards(root, FILES, lambda wnid: PLACE[wnid], english_names()))
    },
    "one split of shards": lambda root: {
        "path": str(write_benchmark_shards(root, FILES, lambda wnid: PLACE[wnid], english_names()) / "test")
    },
    "pattern of shards": lambda root: {
        "path": f"{write_benchmark_shards(root, FILES, lambda wnid: PLACE[wnid], None)}/test/{{0..2}}.tar"
    },
    "json shards": lambda root: {"path": str(write_json_shards(root / "shards", FILES))},
    "parquet": lambda root: {"path": str(write_parquet(root / "x.parquet", FILES, lambda wnid: PLACE[wnid]))},
    "parquet of ids": lambda root: {"path": str(write_parquet(root / "x.parquet", FILES, lambda wnid: wnid))},
    "parquet without paths": lambda root: {
        "path": str(write_parquet(root / "x.parquet", FILES, lambda wnid: PLACE[wnid], paths=False))
    },
    "two parquets": two_parquets,
    "pattern of parquets": lambda root: {"path": f"{two_parquets(root)['path']}/data/validation-*.parquet"},
}


def opened(spec: dict[str, Any]) -> Any:
    task = {"kind": "zero_shot", "name": "i", "images": {"kind": "imagenet", "classes": "present", **spec}}
    return open_suite(SuiteSpec.model_validate({"tasks": [task]})).tasks[0]


def pixels(task: Any) -> list[bytes]:
    return [sample.image().tobytes() for sample in task.samples]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "folder"])
def test_every_form_is_the_same_task(tmp_path: Path, form: str) -> None:
    folder = opened(FORMS["folder"](tmp_path / "folder"))
    other = opened(FORMS[form](tmp_path / "other"))
    assert list(folder.targets) == list(other.targets) == [0] * 3 + [5] * 3 + [207] * 3 + [934] * 3
    assert folder.names == other.names
    assert pixels(folder) == pixels(other)
    rows = [evaluate_task(CountingModel().eval(), task, variant="m") for task in (folder, other)]
    assert rows[0] == rows[1] and 0 < rows[0][0]["acc5"] <= 1
    assert len({sample.key for sample in other.samples}) == 12


@pytest.mark.parametrize("form", ["tar", "tar of tars", "folder of tars", "zip", "folder in folders"])
def test_trees_of_one_kind_have_the_same_keys(tmp_path: Path, form: str) -> None:
    """So that answers of both can be compared image by image."""
    folder, other = (opened(FORMS[one](tmp_path / one)) for one in ("folder", form))
    assert [sample.key for sample in folder.samples] == [sample.key for sample in other.samples]


def test_a_tar_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = FORMS["tar"](tmp_path)["path"]
    first = opened({"path": path})
    monkeypatch.setattr("vlkit.data.formats.archives.tar_members", None)  # not called again
    assert pixels(opened({"path": path})) == pixels(first)
    write_tar(Path(path), make_files(CLASSES[:2]))
    with pytest.raises(TypeError):  # another file is listed anew
        opened({"path": path})


def any_set(path: Path | str) -> ClassImages:
    return any_classes(find_images(str(path)))


def test_any_classes_in_any_form(tmp_path: Path) -> None:
    names = ["cat", "dog", "polar_bear"]
    files = make_files(names)
    folder = any_set(write_folder(tmp_path / "animals", files))
    shards = write_benchmark_shards(tmp_path / "wds", files, names.index, ["a cat", "a dog", "a bear"])
    parquet = write_parquet(tmp_path / "a.parquet", files, names.index, names=names)
    others = [write_tar(tmp_path / "a.tar", files), write_zip(tmp_path / "a.zip", files), parquet, shards]
    for other in map(any_set, others):
        assert folder.targets == other.targets == (0, 0, 0, 1, 1, 1, 2, 2, 2)
        assert [one.image().tobytes() for one in folder.samples] == [one.image().tobytes() for one in other.samples]
    assert [any_set(one).class_names for one in others] == [tuple(names)] * 3 + [("a cat", "a dog", "a bear")]
    (shards / "classnames.txt").unlink()
    spec = {"kind": "folder", "path": str(shards)}
    with pytest.raises(DataError, match="its classes have numbers and no names; give label files"):
        open_suite(SuiteSpec.model_validate({"tasks": [{"kind": "zero_shot", "name": "i", "images": spec}]}))


class TestImageNetNumbers:
    def some(self, variant: str, each: int = 1) -> dict[str, bytes]:
        return make_files([IDS[number] for number in class_indices(variant)], each=each)

    def test_sets_of_fewer_classes_may_number_their_own(self, tmp_path: Path) -> None:
        wanted = class_indices("imagenet-r")
        own = {IDS[number]: place for place, number in enumerate(wanted)}
        names = [english_names()[number] for number in wanted]
        files = self.some("imagenet-r")
        own_numbers = write_benchmark_shards(tmp_path / "own", files, own.__getitem__, names)
        everything = write_benchmark_shards(tmp_path / "all", files, PLACE.__getitem__, None)
        ids = write_parquet(tmp_path / "r.parquet", files, own.__getitem__, names=[IDS[number] for number in wanted])
        for path in (own_numbers, everything, ids):
            assert imagenet_images(str(path), classes="imagenet-r").targets == wanted
        assert set(imagenet_images(str(ids), classes="present").targets) == set(wanted)

    @pytest.mark.parametrize("form", ["shards", "parquet"])
    def test_another_order_of_classes_is_refused(self, tmp_path: Path, form: str) -> None:
        names = list(english_names())
        names[5], names[207] = names[207], names[5]
        if form == "shards":
            path = write_benchmark_shards(tmp_path, FILES, lambda wnid: PLACE[wnid], names)
        else:
            path = write_parquet(tmp_path / "x.parquet", FILES, lambda wnid: PLACE[wnid], names=names)
        with pytest.raises(
            DataError, match=r"numbers its classes in another order: 5 is 'Golden Retriever' .*\(2 such"
        ):
            imagenet_images(str(path), classes="present")

    def test_unknown_names_are_said_to_be_unchecked(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = write_benchmark_shards(tmp_path, FILES, lambda wnid: PLACE[wnid], [f"x{n}" for n in range(1000)])
        with caplog.at_level(logging.WARNING):
            imagenet_images(str(path), classes="present")
        assert "their order could not be checked" in caplog.text

    def test_unequal_numbers_of_images_are_said(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        files = self.some("imagenet-v2", each=10)
        path = write_tar(
            tmp_path / "v2.tar", {name.replace(name[:9], str(PLACE[name[:9]])): raw for name, raw in files.items()}
        )
        with caplog.at_level(logging.WARNING):
            assert len(imagenet_images(str(path), classes="imagenet-v2").samples) == 10_000
            assert caplog.text == ""
            imagenet_images(str(path), classes="imagenet-1k")
        assert (
            "1000 of 1000 classes do not have the 50 images that imagenet-1k has of each: n01440764 (10)" in caplog.text
        )

    def test_missing_and_foreign_classes(self, tmp_path: Path) -> None:
        path = str(write_zip(tmp_path / "x.zip", FILES))
        with pytest.raises(DataError, match=r"x\.zip: of the 200 classes of imagenet-r, .* are missing.*not of it"):
            imagenet_images(path, classes="imagenet-r")

    @pytest.mark.parametrize(("label", "message"), [(1000, "label 1000 is out of range"), (-1, "label -1 is out of")])
    def test_labels_out_of_range(self, tmp_path: Path, label: int, message: str) -> None:
        shards = write_benchmark_shards(tmp_path, FILES, lambda wnid: label if wnid == CLASSES[2] else 3, None)
        with pytest.raises(DataError, match=rf"s0000006\.png in .*1\.tar: {message}"):
            imagenet_images(str(shards), classes="present")
        parquet = write_parquet(tmp_path / "x.parquet", FILES, lambda _: label)
        with pytest.raises(DataError, match=rf"x\.parquet: row 0: {message}"):
            imagenet_images(str(parquet), classes="present")


class TestWrongForms:
    def check(self, path: Path | str, message: str, **more: Any) -> None:
        with pytest.raises(DataError, match=message):
            imagenet_images(str(path), classes="present", **more)

    def test_nothing_there(self, tmp_path: Path) -> None:
        self.check(tmp_path / "none", "none: no such folder of images, nor file")
        self.check(f"{tmp_path}/x-*.tar", "no shard matches this pattern")
        (tmp_path / "empty").mkdir()
        self.check(tmp_path / "empty", "empty: no image in it")

    def test_an_empty_class(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "val", FILES)
        (tmp_path / "val" / IDS[3]).mkdir()
        self.check(tmp_path / "val", rf"{IDS[3]}: has no image \(")

    def test_images_in_no_folder(self, tmp_path: Path) -> None:
        self.check(flat(tmp_path)["path"], "12 of 12 images lie in no folder of a class: .*; give a labels_file")

    def test_a_compressed_tar(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "imagenet-r.tar.gz", FILES, "w:gz")
        self.check(path, r"make a plain \.tar of it first \(gunzip imagenet-r\.tar\.gz\)")
        self.check(tmp_path, "cannot be read at random places")  # the folder it lies in
        path.rename(tmp_path / "named.tar")
        self.check(tmp_path / "named.tar", "a compressed tar cannot be read at random places")

    @pytest.mark.parametrize("keep", [0.3, 0.9])
    def test_a_tar_that_breaks_off(self, tmp_path: Path, keep: float) -> None:
        path = write_tar(tmp_path / "val.tar", FILES)
        size = 512 * 2 * len(FILES)  # headers and images, without the zeros at the end
        path.write_bytes(path.read_bytes()[: int(keep * size) // 512 * 512 + 100])
        self.check(path, r"val\.tar: .*get the file anew")

    def test_zips_that_cannot_be_read(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", FILES)
        path.write_bytes(path.read_bytes()[:-30])
        self.check(path, r"a\.zip: not a whole zip")
        raw = bytearray(write_zip(tmp_path / "b.zip", FILES).read_bytes())
        for start in range(len(raw)):
            if raw[start : start + 4] == b"PK\x01\x02":
                raw[start + 8] |= 1  # the flag of encryption in the central directory
        (tmp_path / "b.zip").write_bytes(raw)
        self.check(tmp_path / "b.zip", "is encrypted; unpack the zip with its password first")
        write_zip(tmp_path / "c.zip", FILES, zipfile.ZIP_BZIP2)
        self.check(tmp_path / "c.zip", r"compressed by method 12, which is not read here")

    def test_damage_inside_is_found_when_read(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", FILES, zipfile.ZIP_STORED)
        raw = path.read_bytes()
        path.write_bytes(raw.replace(FILES[next(iter(FILES))], b"x" * len(FILES[next(iter(FILES))])))
        with pytest.raises(DataError, match=r"img_00_0\.png in .*a\.zip: the zip is damaged \(its checksum"):
            imagenet_images(str(path), classes="present").samples[0].image()
        tar = write_tar(tmp_path / "a.tar", {**FILES, f"{CLASSES[0]}/zzz.png": b"no image"})
        with pytest.raises(DataError, match=r"zzz\.png in .*a\.tar: not an image file"):
            imagenet_images(str(tar), classes="present").samples[3].image()
        parquet = write_parquet(tmp_path / "x.parquet", {"n/a.png": b"no image", "n/b.png": b""}, lambda _: 0)
        samples = imagenet_images(str(parquet), classes="present").samples
        for sample, message in zip(
            samples, ("x.parquet: row 0: not an image", "row 1 of group 0 holds no image"), strict=True
        ):
            with pytest.raises(DataError, match=message):
                sample.image()

    def test_shards_without_something(self, tmp_path: Path) -> None:
        shards = write_benchmark_shards(tmp_path / "a", FILES, lambda wnid: PLACE[wnid], None)
        (shards / "test" / "1.tar").unlink()
        self.check(shards, r"nshards\.txt says 3 shards, but 1\.tar are missing")
        raw = next(iter(FILES.values()))
        path = write_tar(tmp_path / "b.tar", {"1.png": raw, "1.cls": b"3", "2.png": raw})
        self.check(path, r"2\.png in .*b\.tar: no label beside it \(\.cls or \.json\); there is: png")
        path = write_tar(tmp_path / "c.tar", {"1.png": raw, "1.cls": b"3", "2.cls": b"3"})
        self.check(path, r"2\.cls in .*c\.tar: a label without an image")
        path = write_tar(tmp_path / "d.tar", {"1.png": raw, "1.json": json.dumps({"caption": "x"}).encode()})
        self.check(path, r"1\.json in .*d\.tar: has no label")
        path = write_tar(tmp_path / "e.tar", {"1.png": raw, "1.cls": b"3", "2.png": raw, "2.cls": b"cat"})
        self.check(path, r"2\.png in .*: label 'cat', where others are int")

    def test_parquet_files_of_other_forms(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "data" / "train-0.parquet", FILES, lambda wnid: PLACE[wnid])
        write_parquet(tmp_path / "data" / "test-0.parquet", FILES, lambda wnid: PLACE[wnid])
        self.check(tmp_path, r"several splits \(test, train\); name one, for example .*train-\*\.parquet")
        self.check(path, "bring their labels; leave it out", labels_file=path)
        self.check(write_parquet(tmp_path / "n.parquet", FILES, lambda _: None), "row 0: label None is neither")
        path.write_bytes(path.read_bytes()[:-20])
        self.check(path, "not a whole parquet file")

    def test_twice_the_same_image(self, tmp_path: Path) -> None:
        for name in ("0", "1"):  # tars named like classes
            write_tar(tmp_path / f"{name}.tar", FILES)
        self.check(
            f"{tmp_path}/[01].tar", rf"the image {CLASSES[0]}/img_00_0\.png is there 2 times: .*0\.tar, .*1\.tar"
        )
