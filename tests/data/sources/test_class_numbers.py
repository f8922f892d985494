"""Labels mean the same in all forms: numbers count as numbers do, and names are read as people write them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.evaluate_fakes import picture
from tests.helpers.image_forms import (
    encoded,
    make_files,
    write_folder,
    write_parquet,
    write_tar,
    write_tar_of_tars,
    write_zip,
)
from vlkit.data.names.imagenet import class_indices
from vlkit.data.sources.classes.collection import ClassImages, any_classes
from vlkit.data.sources.classes.find import find_images
from vlkit.data.sources.classes.imagenet_images import imagenet_images
from vlkit.data.sources.classes.open_classes import captioned, open_images
from vlkit.errors import DataError
from vlkit.spec import sources as spec

TWELVE = [str(number) for number in range(12)]
FILES = make_files(TWELVE, each=1)


def flat(root: Path) -> ClassImages:
    write_folder(root / "all", {name.replace("/", "-"): raw for name, raw in FILES.items()})
    lines = [f"{name.replace('/', '-')},{name.partition('/')[0]}" for name in FILES]
    (root / "labels.csv").write_text("image,label\n" + "\n".join(reversed(lines)) + "\n")
    return any_classes(find_images(str(root / "all"), labels_file=root / "labels.csv"))


def shards(root: Path) -> Path:
    members = {}
    for number, (name, raw) in enumerate(reversed(FILES.items())):
        members |= {f"{number}.png": raw, f"{number}.json": json.dumps({"label": name.partition("/")[0]}).encode()}
    return write_tar(root / "x.tar", members)


FORMS: dict[str, Callable[[Path], ClassImages]] = {
    "flat": flat,
    **{
        name: lambda root, write=write: any_classes(find_images(str(write(root))))
        for name, write in {
            "folder": lambda root: write_folder(root / "x", FILES),
            "padded": lambda root: write_folder(root / "x", {f"000{name}": raw for name, raw in FILES.items()}),
            "tar": lambda root: write_tar(root / "x.tar", FILES),
            "tar of tars": lambda root: write_tar_of_tars(root / "x.tar", FILES),
            "zip": lambda root: write_zip(root / "x.zip", FILES),
            "parquet of texts": lambda root: write_parquet(root / "x.parquet", FILES, str),
            "parquet of numbers": lambda root: write_parquet(root / "x.parquet", FILES, int),
            "shards": shards,
        }.items()
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_numbered_classes_count_as_numbers_do(tmp_path: Path, form: str) -> None:
    images = FORMS[form](tmp_path)
    assert images.num_classes == 12 and images.targets == tuple(range(12))
    shown = [sample.images[0]().getpixel((0, 0)) for sample in images.samples]
    assert shown == [picture(100 * number).getpixel((0, 0)) for number in range(12)]


def test_each_numbered_class_has_its_own_name_in_a_label_file(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", FILES)
    (tmp_path / "names.csv").write_text("language,class,name\n" + "".join(f"de,{n},Ding {n}\n" for n in TWELVE))
    images, labels = open_images(
        spec.FolderImages(path=str(tmp_path / "x")), spec.LabelFiles(paths=(str(tmp_path / "names.csv"),))
    )
    learnt = captioned(images, labels)
    assert {one.key.partition("/")[0]: one.captions["de"] for one in learnt.samples} == {
        n: (f"Ding {n}",) for n in TWELVE
    }


def test_digits_may_be_the_names_too(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", FILES)
    _, labels = open_images(spec.FolderImages(path=str(tmp_path / "x")), spec.OwnLabels())
    assert labels.of("en") == [(n,) for n in TWELVE]


def test_numbers_with_gaps_and_from_one_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path / "gaps", {f"{n}/1.png": encoded(n) for n in (0, 2, 10)})
    images = any_classes(find_images(str(tmp_path / "gaps")))
    assert (images.num_classes, images.present) == (11, (0, 2, 10)) and not caplog.messages
    write_folder(tmp_path / "one", {f"{n}/1.png": encoded(n) for n in (1, 2)})
    with caplog.at_level(logging.WARNING):
        assert any_classes(find_images(str(tmp_path / "one"))).present == (1, 2)
    assert "its classes begin with number 1; label files must count so" in caplog.text


def test_one_number_in_two_spellings_and_a_number_that_is_none(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", {"1/a.png": b"", "01/b.png": b""})
    with pytest.raises(DataError, match="'01' and '1' are both class 1; join them"):
        any_classes(find_images(str(tmp_path / "x")))
    write_folder(tmp_path / "dates", {"20240131/a.png": b"", "20240201/b.png": b""})
    with pytest.raises(DataError, match="label 20240131 is out of range; classes are numbered from 0 on, to 1,000,000"):
        any_classes(find_images(str(tmp_path / "dates")))
    write_folder(tmp_path / "mixed", {"10/a.png": b"", "2/a.png": b"", "ten/a.png": b""})
    assert any_classes(find_images(str(tmp_path / "mixed"))).class_names == ("10", "2", "ten")


def test_names_of_classes_are_cleaned_once_in_all_forms(tmp_path: Path) -> None:
    odd = {"Cafe\u0301 /1.png": encoded(1), "\u202bشیر\u202c/1.png": encoded(2), "می\u200cخوش/1.png": encoded(3)}
    clean = ("Caf\u00e9", "شیر", "می\u200cخوش")
    forms = {
        "folder": write_folder(tmp_path / "folder", odd),
        "tar": write_tar(tmp_path / "x.tar", odd),
        "zip": write_zip(tmp_path / "x.zip", odd),
        "parquet": write_parquet(tmp_path / "x.parquet", odd, str),
    }
    for form, path in forms.items():
        assert set(any_classes(find_images(str(path))).class_names) == set(clean), form
    numbered = write_parquet(tmp_path / "n.parquet", odd, [name.partition("/")[0] for name in odd].index,
                             names=["Cafe\u0301 ", "\u202bشیر\u202c", "می\u200cخوش"])  # fmt: skip
    assert any_classes(find_images(str(numbered))).class_names == clean


def test_system_folders_and_links_in_a_set_of_classes(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", {"1.png": encoded(1)})
    root = write_folder(tmp_path / "set", {
        "dog/2.png": encoded(2), ".ipynb_checkpoints/2.png": b"", "@eaDir/dog/2.png": b"", "__MACOSX/dog/._2.png": b""
    })  # fmt: skip
    (root / "cat").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "all").symlink_to(root)
    (root / "up").symlink_to("..")
    images = any_classes(find_images(str(root)))
    assert images.class_names == ("cat", "dog")
    assert [sample.key for sample in images.samples] == ["cat/1.png", "dog/2.png"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.cls": b"--1"}, None),
        ({"a.cls": b"\xff"}, r"a\.cls in .*: the label is not UTF-8 text \(byte 0\)"),
        ({"a.cls": b" \n"}, r"a\.cls in .*: the label ' \\n' is empty"),
        ({"a.cls": b"9" * 5000}, None),
        ({"a.json": b'{"label": ' + b"[" * 100_000}, r"a\.json in .*: bad JSON: nested too deeply"),
        ({"a.json": b'{"label": 1, "label": 2}'}, "the key 'label' stands twice in one object"),
        ({"a.json": b"[1]"}, "expected an object, found a list"),
        ({"a.json": b'\xef\xbb\xbf{"label": "cat"}'}, None),
    ],
)
def test_labels_in_shards(tmp_path: Path, members: dict[str, bytes], message: str | None) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.png": encoded(1), **members})
    if message is None:
        assert any_classes(find_images(str(path))).num_classes == 1
        return
    with pytest.raises(DataError, match=message):
        find_images(str(path))


def test_a_label_of_zero_is_a_label(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.png": encoded(1), "a.json": b'{"cls": 0}'})
    assert any_classes(find_images(str(path))).targets == (0,)


def test_a_file_of_numbers_alone_numbers_the_images_in_their_order(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", {f"img{number:02d}.png": encoded(number) for number in range(12)})
    (tmp_path / "labels.txt").write_text("".join(f"{11 - number}\n" for number in range(12)))
    images = any_classes(find_images(str(tmp_path / "x"), labels_file=tmp_path / "labels.txt"))
    assert images.targets == tuple(range(12))
    assert [sample.key for sample in images.samples[:2]] == ["0/img11.png", "1/img10.png"]


def test_images_in_an_order_that_is_not_clear_have_no_lines(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", {f"{number}.png": encoded(number) for number in range(12)})
    (tmp_path / "labels.txt").write_text("".join(f"{number}\n" for number in range(12)))
    with pytest.raises(
        DataError, match=r"10\.png comes before 2\.png as a text, and after it as a number; give a table"
    ):
        find_images(str(tmp_path / "x"), labels_file=tmp_path / "labels.txt")


def test_two_spellings_of_one_file_are_told(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", {"cat/\u00e9.png": encoded(1), "cat/e\u0301.png": encoded(2)})
    with pytest.raises(DataError, match="two files are called 'cat/\u00e9\\.png', with accents written in two ways"):
        find_images(str(tmp_path / "x"))


def test_numbers_of_a_column_of_floats_are_numbers(tmp_path: Path) -> None:
    write_folder(tmp_path / "all", {name.replace("/", "-"): raw for name, raw in FILES.items()})
    lines = [f"{name.replace('/', '-')},{name.partition('/')[0]}.0\n" for name in FILES]
    (tmp_path / "labels.csv").write_text("image,label\n" + "".join(lines))
    images = any_classes(find_images(str(tmp_path / "all"), labels_file=tmp_path / "labels.csv"))
    assert images.num_classes == 12 and images.targets == tuple(range(12))
    shown = [sample.images[0]().getpixel((0, 0)) for sample in images.samples]
    assert shown == [picture(100 * number).getpixel((0, 0)) for number in range(12)]
    write_folder(tmp_path / "versions", {"10.0/a.png": b"", "2.0/a.png": b"", "2.5/a.png": b""})
    assert any_classes(find_images(str(tmp_path / "versions"))).class_names == ("10.0", "2.0", "2.5")


def open_named(root: Path, numbers: range) -> tuple[int, ...]:
    (root / "names.csv").write_text("language,class,name\n" + "".join(f"de,{n},Ding {n}\n" for n in numbers))
    images = spec.FolderImages(path=str(root / "x"))
    return open_images(images, spec.LabelFiles(paths=(str(root / "names.csv"),)))[0].present


def test_images_from_one_on_and_names_from_zero_on_are_not_joined(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", {f"{n}/1.png": encoded(n) for n in range(1, 13)})
    with pytest.raises(
        DataError, match="has images of the classes 1 to 12, and label file 'names' names the classes 0 to 11"
    ):
        open_named(tmp_path, range(12))
    assert open_named(tmp_path, range(1, 13)) == open_named(tmp_path, range(13)) == tuple(range(1, 13))


def test_names_that_count_otherwise_than_they_sort_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path / "x", {f"class {n}/1.png": encoded(n) for n in range(12)})
    with caplog.at_level(logging.WARNING):
        open_named(tmp_path, range(12))
    assert "in the order of their names as texts, 'class 10' before 'class 2'" in caplog.text


def test_splits_are_no_classes(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", {f"val/{name}/1.png": encoded(1) for name in ("cat", "dog")})
    assert any_classes(find_images(str(tmp_path / "x"))).class_names == ("cat", "dog")
    both = {f"{split}/{name}/1.png": encoded(1) for name in ("cat", "dog") for split in ("train", "val")}
    for path in (
        write_folder(tmp_path / "x", both),
        write_tar(tmp_path / "x.tar", {f"set/{k}": v for k, v in both.items()}),
    ):
        with pytest.raises(DataError, match="train and val are splits of one set, not classes; name one of them"):
            find_images(str(path))
    vehicles = write_folder(
        tmp_path / "y", {"train/1.png": encoded(1), "test/side/1.png": encoded(2), "car/a/1.png": b""}
    )
    assert any_classes(find_images(str(vehicles))).class_names == ("car", "test", "train")


def test_a_set_of_200_classes_may_number_its_folders(tmp_path: Path) -> None:
    numbers = class_indices("imagenet-r")
    root = write_folder(tmp_path / "r", {f"{place}/1.png": b"" for place in range(200)})
    assert imagenet_images(str(root), classes="imagenet-r").targets == numbers
    root = write_folder(tmp_path / "same", {f"{number}/1.png": b"" for number in numbers})  # ImageNet's own numbers
    assert imagenet_images(str(root), classes="imagenet-r").targets == numbers


def test_what_macos_puts_beside_a_parquet_file_is_passed_over(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "test-0.parquet", FILES, int)
    (tmp_path / "data" / "._test-0.parquet").write_bytes(b"AppleDouble")
    assert any_classes(find_images(str(tmp_path))).num_classes == 12


def test_blanks_and_underscores_in_names_of_folders_are_one_blank(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", {"polar__bear /1.png": encoded(1), "ca\u0308t/1.png": encoded(2)})
    _, labels = open_images(spec.FolderImages(path=str(tmp_path / "x")), spec.OwnLabels())
    assert sorted(labels.names["en"].values()) == [("c\u00e4t",), ("polar bear",)]
