"""Records without images: equal to the source's, and no file of it is opened for them again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.data_factory import encoded, record, shards, source
from vlkit.data.sources.records import Records
from vlkit.errors import DataError
from vlkit.types import Sample, SampleMeta


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that are opened from now on."""
    found: list[Path] = []
    plain: Callable[..., Any] = Path.open

    def counting(self: Path, *args: Any, **kwargs: Any) -> Any:
        found.append(self)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counting)
    return found


def test_records_are_those_of_the_source_and_open_nothing(tmp_path: Path, opened: list[Path]) -> None:
    texts = {"en": ["a \u732b", "another"], "hi": "\u092c\u093f\u0932\u094d\u0932\u0940"}
    told = [record(0), record(1, captions=texts), record(2, concept="c", license="CC0")]
    members = [{"png": encoded((n, 0, 9)), "json": json.dumps(one).encode()} for n, one in enumerate(told)]
    shards(tmp_path, [(f"s{n}", one) for n, one in enumerate(members)])
    whole = source(tmp_path)
    expected = [whole[index] for index in range(len(whole))]
    records = Records(whole)
    opened.clear()
    for index, sample in enumerate(expected):
        found = records[index]
        for name in ("key", "captions", "concept", "split", "license", "source"):
            assert getattr(found, name) == getattr(sample, name), name
        assert records.meta(index) == whole.meta(index)
    assert len(records) == 3 and opened == []
    assert np.array_equal(np.asarray(records[2].image()), np.asarray(expected[2].image()))
    assert opened != []
    for index in (3, -1):
        with pytest.raises(IndexError):
            records[index]


def test_a_record_that_cannot_be_read_is_an_error() -> None:
    class Broken:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Sample:
            raise DataError("no captions here")

        def meta(self, index: int) -> SampleMeta:
            raise NotImplementedError

    with pytest.raises(DataError, match="no captions here"):
        Records(Broken())


def test_no_records() -> None:
    class Empty:
        def __len__(self) -> int:
            return 0

        def __getitem__(self, index: int) -> Sample:
            raise IndexError

        def meta(self, index: int) -> SampleMeta:
            raise IndexError

    assert len(Records(Empty())) == 0
