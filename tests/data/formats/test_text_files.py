"""Text files of data sets and of runs."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from vlkit.data.formats.text_files import read_cells, read_objects, read_table, read_text
from vlkit.errors import DataError
from vlkit.foreign import LIMIT


def test_of_lines_of_json_only_the_last_may_be_cut_and_only_where_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [entry for _, entry in read_objects(path, may_be_cut=True)] == [{"step": 1}, {"step": 2}]
    with pytest.raises(DataError, match=r"metrics\.jsonl:3: bad JSON"):
        list(read_objects(path))
    path.write_text('{"step": 1}\n{"step": 2}')
    assert len(list(read_objects(path))) == 2
    path.write_text('{"st\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: bad JSON"):
        list(read_objects(path, may_be_cut=True))
    path.write_text('{"st')
    with pytest.raises(DataError, match=r"metrics\.jsonl: the file is empty"):
        list(read_objects(path, may_be_cut=True))


def cells(text: str, delimiter: str = ",") -> list[tuple[int, list[str]]]:
    return list(read_cells(text, Path("t"), delimiter=delimiter))


def test_cells_between_commas_are_those_of_rfc_4180() -> None:
    assert cells('a,"b, c","say ""hi"""\r\n\r\n,\n"two\nlines",x\u2028y\nend') == [
        (1, ["a", "b, c", 'say "hi"']),
        (4, ["two\nlines", "x\u2028y"]),
        (6, ["end"]),
    ]
    with pytest.raises(DataError, match=r"^t:2: a quote is opened here and not closed"):
        cells('a,b\nc,"d\ne,f\ng,h\n')
    with pytest.raises(DataError, match=r"^t:2: ',' expected after '\"'"):
        cells('a,b\nc,"d\ne,"f" g\n')


def test_between_tabs_quotes_are_text_unless_they_stand_around_a_cell() -> None:
    text = '12" pipe\t"quoted"\n"open\tx\n"say ""hi"""\t"\ny\t"a" and "b"\n'
    assert [row for _, row in cells(text, "\t")] == [
        ['12" pipe', "quoted"],
        ['"open', "x"],
        ['say "hi"', '"'],
        ["y", '"a" and "b"'],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b,a\n1,2,3\n", r"t\.csv:1: the column 'a' is there twice"),
        ("a,b\n1,2,3\n", r"t\.csv:2: 3 columns, the header has 2; a cell with a comma needs quotes around it"),
        ("a,b\n1\n", r"t\.csv:2: 1 columns, the header has 2"),
        ("a,b,\n1,2,3\n", r"t\.csv:2: '3' stands in column 3, which has no name"),
        ('a,b\n1,"2\n3,4\n', r"t\.csv:2: a quote is opened here and not closed"),
        ("\n\n", r"t\.csv: the table is empty"),
    ],
)
def test_no_row_and_no_cell_of_a_table_is_lost(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        list(read_table(path))


def test_a_table_as_spreadsheets_write_it(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeff a ,b,,\r\n1,"x, y",,\r\n,,,\r\n0,,,\r\n'.encode())
    assert list(read_table(path)) == [(2, {"a": "1", "b": "x, y"}), (4, {"a": "0", "b": ""})]


def test_json_lines_are_read_as_strictly(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for line, said in (('{"a": 1, "a": 2}', "the key 'a' stands twice"), ("[" * 10**5, "nested too deeply")):
        path.write_text(f'{{"a": 1}}\n{line}\n')
        with pytest.raises(DataError, match=rf"t\.jsonl:2: bad JSON: .*{said}"):
            list(read_table(path))


def test_what_unpacks_to_more_than_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress(b"x" * 1_500_000))
    assert len(read_text(path)) == 1_500_000
    path.write_bytes(path.read_bytes() + gzip.compress(b"yz") + bytes(10))
    assert read_text(path)[-4:] == "xxyz"
    monkeypatch.setenv(LIMIT, "1")
    with pytest.raises(DataError, match=r"t\.txt\.gz, unpacked: 1 MB, more than the limit of 1 MB"):
        read_text(path)


def test_a_cell_that_is_longer_than_pythons_csv_takes_is_told_with_its_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3," + "x" * 131_073 + "\n5,6\n")
    with pytest.raises(DataError) as caught:
        list(read_table(path))
    assert str(caught.value) == (
        f"{path}:3: column 2: a cell of more than 131,072 characters; close the quote where one was left open, or "
        f"shorten the cell, or write the table as .jsonl"
    )
    path.write_text("a,b\n1,2\n3," + "x" * 131_072 + "\n")
    assert len(list(read_table(path))) == 2


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_a_line_above_the_limit_is_not_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "1")
    (tmp_path / name).write_text("a\n" + "x" * 1_100_000)
    says = rf"{name}:1: bad JSON" if name == "t.jsonl" else rf"{name}:2, one line.* VLKIT_LIMIT_MB"
    with pytest.raises(DataError, match=says):
        list(read_table(tmp_path / name))
