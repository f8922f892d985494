"""Data sets of the hub: read from a folder or the hub's cache alike, pinned to a commit, by split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.helpers import image_forms as forms
from tests.helpers.evaluate_fakes import picture
from vlkit.data.sources.open import open_source, open_sources, source_names
from vlkit.errors import DataError, SpecError, VlkitError
from vlkit.parts.assets import hub
from vlkit.spec.dataset import DataSpec
from vlkit.spec.sources import HubData

arrow = pytest.importorskip("pyarrow")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CAPTIONS = {"de": "german", "fa": "persian"}


def row(number: int) -> dict[str, Any]:
    """One text, several, or none in a language."""
    german = None if number == 3 else f"Bild {number}"
    return {
        "photo": {"bytes": forms.encoded(number), "path": f"{number}.png"},
        "german": german,
        "persian": [f"عکس {number}", " ", f"تصویر {number}"],
        "license": "CC0",
    }


def write(folder: Path) -> Path:
    """Two files of the training split and one of another, as the hub names them, in groups of two rows."""
    import pyarrow.parquet

    (folder / "data").mkdir(parents=True)
    files = {"train-00000-of-00002": range(3), "train-00001-of-00002": range(3, 5), "test_1k-00000-of-00001": (7,)}
    for name, numbers in files.items():
        table = arrow.Table.from_pylist([row(number) for number in numbers])
        pyarrow.parquet.write_table(table, folder / f"data/{name}.parquet", row_group_size=2)
    return folder


def spec(path: object, **more: Any) -> HubData:
    return HubData(path=str(path), captions=CAPTIONS, image="photo", **more)


def test_rows_are_samples_with_captions_in_each_language(tmp_path: Path) -> None:
    source = open_source(spec(write(tmp_path / "set")))
    assert [dict(source[n].captions) for n in (2, 3)] == [
        {"de": ("Bild 2",), "fa": ("عکس 2", "تصویر 2")},
        {"fa": ("عکس 3", "تصویر 3")},
    ]
    assert len(source) == 5 and len({source[n].key for n in range(5)}) == 5
    assert all(source[n].images[0]().tobytes() == picture(n).tobytes() for n in range(5))


def test_another_split_is_what_the_recipe_says_it_is_for(tmp_path: Path) -> None:
    one = spec(write(tmp_path / "set"), hub_split="test_1k", split="validation")
    data = DataSpec(sources=(one,))
    assert [dict(open_sources(data, split="validation")[0].captions)] == [
        {"de": ("Bild 7",), "fa": ("عکس 7", "تصویر 7")}
    ]
    assert source_names(data.sources) == ["set"]
    named = spec(tmp_path / "set", files="data/*-00001-*.parquet")
    assert len(open_source(named)) == 2


def test_the_hubs_cache_serves_the_commit_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    write(tmp_path / f"hub/datasets--org--pictures/snapshots/{COMMIT}")
    one = spec("hf:org/pictures", revision=COMMIT)
    assert len(open_source(one)) == 5 and source_names([one]) == ["pictures"]
    with pytest.raises(
        DataError, match=rf"no data set 'org/pictures' of revision {COMMIT[::-1]}: it is not in the hub's"
    ):
        open_source(spec("hf:org/pictures", revision=COMMIT[::-1]))


def test_only_the_files_of_the_split_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def fetch(repo: str, **given: Any) -> str:
        asked.update(given, repo=repo)
        return str(tmp_path / "set")

    write(tmp_path / "set")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "unreachable", lambda address: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert len(open_source(spec("hf:org/pictures", revision=COMMIT))) == 5
    assert (asked["repo"], asked["repo_type"], asked["revision"]) == ("org/pictures", "dataset", COMMIT)
    assert "data/train-*.parquet" in asked["allow_patterns"] and not asked["local_files_only"]
    assert not any("test" in pattern for pattern in asked["allow_patterns"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "hf:org/pictures"}, "give the commit, 40 hex digits"),
        ({"path": "folder", "revision": COMMIT}, "leave it out: a folder has none"),
        ({"path": "hf:org/pictures", "revision": "main"}, "revision"),
    ],
)
def test_a_data_set_of_the_hub_is_pinned(given: dict[str, str], message: str) -> None:
    with pytest.raises((ValueError, SpecError), match=message):
        spec(**given)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path / "set")
    with pytest.raises(DataError, match=r"no file fits .*there are: data/test_1k-.*; see hub_split, subset and files"):
        open_source(spec(tmp_path / "set", hub_split="dev"))
    with pytest.raises(DataError, match=r"no such folder; a data set of the hub reads hf:ORG/NAME"):
        open_source(spec(tmp_path / "none"))
    with pytest.raises(VlkitError, match="no column 'german2'; there are: photo, german, persian, license"):
        open_source(HubData(path=str(tmp_path / "set"), captions={"de": "german2"}, image="photo"))
