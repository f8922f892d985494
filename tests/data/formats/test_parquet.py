"""Parquet files: images by row group, all else at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet
import pytest

from vlkit.data.formats.parquet import read_rows
from vlkit.errors import DataError, MissingPackage
from vlkit.foreign import LIMIT

ROWS = [{"image": {"bytes": f"image {n}".encode(), "path": f"{n}.jpg"}, "label": n % 2} for n in range(7)]


def write(path: Path, rows: list[dict[str, object]] = ROWS, *, metadata: str = "") -> Path:  # type: ignore[assignment]
    table = arrow.Table.from_pylist(rows).replace_schema_metadata({"huggingface": metadata} if metadata else None)
    pyarrow.parquet.write_table(table, path, row_group_size=3)
    return path


def test_each_row_by_its_group(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet")
    rows = read_rows(path, images=["image"], columns=[["label", "cls"]])
    assert rows.columns == {"label": [0, 1, 0, 1, 0, 1, 0], "image.path": [f"{n}.jpg" for n in range(7)]}
    assert [(cell.group, cell.row) for cell in rows.cells] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    for n in (6, 0, 4, 3, 5, 1, 2):
        assert rows.cells[n]() == f"image {n}".encode()
    assert rows.features == {}


def test_a_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet")
    cell = read_rows(path, images=["image"], columns=[["label"]]).cells[0]
    assert cell() == b"image 0"
    write(path, [{"image": {"bytes": b"other", "path": ""}, "label": 0}])
    os.utime(path, ns=(1, 1))
    assert cell() == b"other"
    write(path, [{"image": {"bytes": b"third", "path": ""}, "label": 0}])
    os.utime(path, ns=(1, 1))  # as rsync and cp -p set it
    assert cell() == b"third"


def test_what_the_hub_says(tmp_path: Path) -> None:
    features = {"label": {"names": ["a", "b"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    path = write(tmp_path / "x.parquet", metadata=json.dumps({"info": {"features": features}}))
    assert read_rows(path, images=["image"], columns=[["label"]]).features == {"label": features["label"]}
    write(path, metadata="{")
    assert read_rows(path, images=["image"], columns=[["label"]]).features == {}


def test_plain_bytes_are_images_too(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [{"jpg": b"raw", "cls": 5}])
    rows = read_rows(path, images=["image", "jpg"], columns=[["label", "cls"]])
    assert (rows.columns, rows.cells[0]()) == ({"label": [5]}, b"raw")


def test_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: no column 'picture' or 'jpg'; there are: image, label"):
        read_rows(path, images=["picture", "jpg"], columns=[])
    with pytest.raises(DataError, match=r"none\.parquet: no such parquet file"):
        read_rows(tmp_path / "none.parquet", images=["image"], columns=[])
    cell = read_rows(path, images=["image"], columns=[]).cells[3]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"x\.parquet: row group 1 is damaged"):
        cell()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingPackage, match="pip install 'pyarrow>=15'"):
        read_rows(path, images=["image"], columns=[])


@pytest.mark.parametrize("image", ["photos/1.jpg", {"path": "photos/1.jpg"}, 7])
def test_names_of_files_are_no_images(tmp_path: Path, image: object) -> None:
    path = write(tmp_path / "x.parquet", [{"image": image, "label": 0}])
    with pytest.raises(DataError, match=r"x\.parquet: column 'image' holds .*; expected the bytes of images"):
        read_rows(path, images=["image"], columns=[["label"]])


def test_what_the_hub_says_may_not_be_nested_without_end(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", metadata="[" * 100_000)
    assert read_rows(path, images=["image"], columns=[["label"]]).features == {}


def test_cells_above_the_limit_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        tmp_path / "x.parquet", [{"image": {"bytes": bytes(1_200_000), "path": "a"}, "label": "x" * 1_300_000}]
    )
    rows = read_rows(path, images=["image"], columns=[["label"]])
    assert len(rows.cells[0]()) == 1_200_000
    monkeypatch.setenv(LIMIT, "1")
    with pytest.raises(DataError, match=r"x\.parquet: label, image\.path: 1 MB, more than the limit of 1 MB"):
        read_rows(path, images=["image"], columns=[["label"]])
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=r"x\.parquet: image: 1 MB, more than the limit of 1 MB"):
        rows.cells[0]()


def test_an_image_that_stands_in_many_rows_is_one_in_memory(tmp_path: Path) -> None:
    image = os.urandom(1_000_000)
    path = tmp_path / "x.parquet"
    table = arrow.Table.from_pylist([{"image": {"bytes": image, "path": "a"}, "label": 0}] * 500)
    pyarrow.parquet.write_table(table, path, dictionary_pagesize_limit=10**9)
    del table
    before = arrow.default_memory_pool().bytes_allocated()
    cells = read_rows(path, images=["image"], columns=[["label"]]).cells
    assert cells[499]() == image
    assert arrow.default_memory_pool().bytes_allocated() - before < 50_000_000


def test_a_footer_that_lies_about_its_rows_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet")
    whole = path.read_bytes()
    lying = bytearray(whole)
    length = int.from_bytes(whole[-8:-4], "little")
    start = len(whole) - 8 - length
    place = start + whole[start:].index(bytes([0x16, 14]))  # compact thrift: an i64 of 7, zigzag, which are all rows
    lying[place + 1] = 16
    path.write_bytes(bytes(lying))
    with pytest.raises(
        DataError, match=r"its footer contradicts itself \(8 rows, 7 in its groups\); get the file anew"
    ):
        read_rows(path, images=["image"], columns=[["label"]])


def test_a_text_that_stands_in_many_rows_is_counted_as_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = "x" * 100_000
    rows = [{"image": {"bytes": b"x", "path": "a"}, "captions": captions} for _ in range(100)]
    path = write(tmp_path / "x.parquet", rows)
    assert path.stat().st_size < 1_000_000
    monkeypatch.setenv(LIMIT, "9")
    with pytest.raises(DataError, match=r"captions.*VLKIT_LIMIT_MB"):
        read_rows(path, images=["image"], columns=[["captions"]])
    monkeypatch.setenv(LIMIT, "12")
    assert read_rows(path, images=["image"], columns=[["captions"]]).columns["captions"] == [captions] * 100
