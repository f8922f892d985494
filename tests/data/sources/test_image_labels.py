"""Label files of flat image folders: each form by its own rules, and never by a guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from vlkit.data.names.imagenet import wordnet_ids
from vlkit.data.sources.classes.image_labels import read_image_labels, synsets_of_ids
from vlkit.errors import DataError

A, B, C = wordnet_ids()[:3]
VAL = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3, 4)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def write_meta(path: Path, wnids: list[str], *, compressed: bool = True) -> Path:
    """The development kit's meta.mat: leaves have ids 1..n, what stands above them higher ones."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O"), ("children", "O")]
    rows = [(float(number), wnid, f"wörter {number}, x", 0.0, np.zeros((1, 0))) for number, wnid in enumerate(wnids, 1)]
    rows.append((1001.0, "n00001740", "entity", 2.0, np.array([[1.0, 2.0]])))
    structures = np.array(rows, dtype=kind).reshape(-1, 1)
    savemat(path, {"other": np.eye(3), "synsets": structures}, do_compression=compressed)
    return path


def labels(path: Path, names: list[str] = VAL, *, wordnet: bool = True) -> list[str]:
    return read_image_labels(path, names, wordnet=wordnet)


def test_a_line_belongs_to_the_image_of_its_number(tmp_path: Path) -> None:
    path = write(tmp_path / "synsets.txt", f"{A}\n{B}\n{A}\n{C}\n")
    assert labels(path) == [A, B, A, C]
    assert labels(path, VAL[::-1]) == [C, A, B, A]
    assert labels(path, [f"val/{VAL[3]}", f"{VAL[1][:-5]}_{B}.png"]) == [C, B]  # a part of the set, a hub's names
    assert labels(path, ["z.png", "b.png", "c.png", "a.png"]) == [C, B, A, A]  # by name, as many as lines
    with pytest.raises(DataError, match=r"synsets\.txt has 4 lines, none for ILSVRC2012_val_00000005\.JPEG"):
        labels(path, [*VAL, "ILSVRC2012_val_00000005.JPEG"])
    with pytest.raises(DataError, match=r"has 4 lines for 2 images, which do not carry a line's number"):
        labels(path, ["a.png", "b.png"])


@pytest.mark.parametrize("compressed", [True, False])
def test_ground_truth_goes_by_the_kits_own_ids(tmp_path: Path, compressed: bool) -> None:
    path = write(tmp_path / "ILSVRC2012_validation_ground_truth.txt", "1\n3\n2\n1\n")
    with pytest.raises(DataError, match=r"holds ILSVRC ids .* not in the order of the WordNet ids.*meta\.mat"):
        labels(path)
    write_meta(tmp_path / "meta.mat", [C, A, B], compressed=compressed)
    assert synsets_of_ids(tmp_path / "meta.mat") == {1: C, 2: A, 3: B}  # and not 1001, which is no class
    assert labels(path) == [C, B, A, C]
    write(path, "1\n4\n0\n1\n")
    with pytest.raises(DataError, match=r"line 2: 4, line 3: 0: no such ILSVRC id in .*meta\.mat"):
        labels(path)


@pytest.mark.parametrize("cut", [0, 100, 200, 400])
def test_a_damaged_meta_file(tmp_path: Path, cut: int) -> None:
    path = write_meta(tmp_path / "meta.mat", [C, A, B])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"meta\.mat: not the meta\.mat of ImageNet's development kit"):
        synsets_of_ids(path)
    savemat(path, {"synsets": np.eye(2)})
    with pytest.raises(DataError, match=r"no array of structures 'synsets'"):
        synsets_of_ids(path)


@pytest.mark.parametrize(
    "text",
    [
        f"ImageId,PredictionString\n{VAL[1][:-5]},{B} 1 2 3 4\n{VAL[0][:-5]},{A} 1 2 3 4 {A} 5 6 7 8\n",
        f"{VAL[0]}\t{A}\t0\t32\t44\t62\n{VAL[1]}\t{B}\t1\t2\t3\t4\n{VAL[2]}\t{C}\t1\t2\t3\t4\n",
        f"val/{VAL[0]} {A}\nval/{VAL[1]} {B}\n",
    ],
)
def test_tables(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "labels.txt", text)
    assert labels(path, [VAL[1], f"images/{VAL[0]}"]) == [B, A]
    with pytest.raises(DataError, match=r"labels\.txt: 1 of 4 images have no label: ILSVRC2012_val_00000004|2 of 4"):
        labels(path)


def test_any_labels_in_a_table(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "file,label\na.png,polar bear\nb.png,7\n")
    assert labels(path, ["b.png", "a.png"], wordnet=False) == ["7", "polar bear"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"labels\.txt: the file is empty"),
        (f"{A}\n\n{B}\n", r"labels\.txt:2: an empty line"),
        (f"a.png,{A}\nb.png\n", r"labels\.txt:2: 'b\.png': expected an image and its label"),
        (f"a.png,{A}\nb.png,7\n", r"labels\.txt:2: 7 is a number: it may be an ILSVRC id"),
        (f"a.png,{A}\na.JPEG,{B}\n", rf"labels\.txt:2: a\.JPEG is {B} here and {A} above"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        labels(write(tmp_path / "labels.txt", text), ["a.png", "b.png"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        labels(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("Bär".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        labels(tmp_path / "latin.txt")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", 'file,label\na.png,"salt, pepper"\nphoto 1.png,red fox\nb.png,red panda\n'),
        ("labels.csv", 'label,file\n"salt, pepper",a.png\nred fox,photo 1.png\nred panda,b.png\n'),
        ("labels.csv", 'id,file,class\n0,a.png,"salt, pepper"\n1,photo 1.png,red fox\n2,b.png,red panda\n'),
        ("labels.txt", "a.png salt, pepper\nphoto 1.png  red fox\nb.png\u3000red panda\n"),
        ("labels.txt", 'a.png,"salt, pepper"\n"photo 1.png",red fox\nb.png,red panda\n'),
        ("labels.tsv", "a.png\tsalt, pepper\nphoto 1.png\tred\u200e fox\ufeff\nb.png\tred panda \n"),
        ("labels.txt", "a.png\tsalt, pepper\r\nphoto 1.png\tred fox\r\nb.png\tred panda\r\n"),
    ],
)
def test_labels_with_commas_and_blanks_stay_whole(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path / name, text)
    found = labels(path, ["x/a.png", "photo 1.png", "b.png"], wordnet=False)
    assert found == ["salt, pepper", "red fox", "red panda"]


def test_a_label_with_a_stray_comma_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "a.png,salt\nb.png,salt, pepper\n")
    with pytest.raises(DataError, match=r"labels\.csv:2: 3 columns, the first line has 2; put quotes around a label"):
        labels(path, ["a.png", "b.png"], wordnet=False)


def test_images_of_one_name_in_two_folders(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "file,label\nday/1.png,cat\nnight/1.png,dog\n")
    assert labels(path, ["night/1.png", "day/1.png"], wordnet=False) == ["dog", "cat"]
    with pytest.raises(DataError, match=r"images of one name have several labels: dusk/1\.png; give their paths"):
        labels(path, ["day/1.png", "dusk/1.png"], wordnet=False)


def test_names_match_in_either_form_of_unicode(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "file,label\ncafe\u0301.png,e\u0301toile\n")
    assert labels(path, ["caf\u00e9.png"], wordnet=False) == ["\u00e9toile"]


def test_a_table_of_excel_where_decimals_have_commas(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("\ufefffile;label\r\na b.png;red fox, young\r\nc.png;cat\r\n")
    found = read_image_labels(tmp_path / "labels.csv", ["a b.png", "c.png"], wordnet=False)
    assert found == ["red fox, young", "cat"]
