"""Text files of data sets and of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlkit.data.formats.text_files import read_objects
from vlkit.errors import DataError


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
