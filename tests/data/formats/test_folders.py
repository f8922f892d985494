"""Folders are read with what their links name, and without what systems put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vlkit.data.formats.folders import follow, is_hidden, walk
from vlkit.data.sources.shards import expand
from vlkit.errors import DataError


def names(folder: Path) -> list[str]:
    return sorted(name for name, _ in walk(folder))


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(path.name.encode())
    return path


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "disk" / "cats" / "deep" / "1.png")
    put(tmp_path / "set" / "dog" / "2.png")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "disk" / "cats")
    (tmp_path / "set" / "dog" / "3.png").symlink_to("2.png")
    (tmp_path / "link").symlink_to("set")
    assert names(tmp_path / "link") == ["cat/deep/1.png", "dog/2.png", "dog/3.png"]
    assert {name: path.read_bytes() for name, path in walk(tmp_path / "set")}["dog/3.png"] == b"2.png"


def test_two_links_to_one_folder_are_two_folders(tmp_path: Path) -> None:
    put(tmp_path / "disk" / "1.png")
    (tmp_path / "set").mkdir()
    for name in ("cat", "chat"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "disk")
    assert names(tmp_path / "set") == ["cat/1.png", "chat/1.png"]


def test_links_that_go_in_a_ring_end(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.png")
    put(tmp_path / "b" / "2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    assert names(tmp_path) == ["a/1.png", "a/to_b/2.png", "b/2.png", "b/to_a/1.png"]
    assert names(tmp_path / "a") == ["1.png", "to_b/2.png"]


def test_a_link_to_nothing_is_told(tmp_path: Path) -> None:
    put(tmp_path / "dog" / "1.png")
    (tmp_path / "dog" / "2.png").symlink_to("gone.png")  # told when it is read
    assert names(tmp_path) == ["dog/1.png", "dog/2.png"]
    (tmp_path / "cat").symlink_to("/mnt/gone/cats")
    with pytest.raises(DataError, match=r"cat: a link to /mnt/gone/cats, which is not there"):
        names(tmp_path)


def test_what_systems_put_there_is_passed_over(tmp_path: Path) -> None:
    kept = put(tmp_path / "dog" / "1.png")
    for name in (".ipynb_checkpoints/1.png", "@eaDir/1.png", "__MACOSX/dog/._1.png", "dog/@eaDir/1.png/thumb.jpg",
                 "dog/Thumbs.db", "#recycle/1.png", "$RECYCLE.BIN/1.png", "dog/._1.png"):  # fmt: skip
        put(tmp_path / name)
        assert is_hidden(name)
    assert [path for _, path in walk(tmp_path)] == [kept]
    assert not is_hidden("../dog/1.png")
    assert names(put(tmp_path / ".cache" / "cat" / "1.png").parents[1]) == ["cat/1.png"]  # asked for by name


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    assert names(tmp_path) == []


def test_links_in_archives() -> None:
    there = {"cats/1.png": 1, "cats/deep/2.png": 2, "cats2/3.png": 3}
    links = {"cat": "cats", "dog/a.png": "../cats/1.png", "puma": "cat/deep", "cats/up": "..", "out": "../../etc",
             "root": "/etc", "x": "y", "y": "x", "gone": "nowhere"}  # fmt: skip
    found, lost = follow(links, there)
    assert found == {"cat/1.png": 1, "cat/deep/2.png": 2, "dog/a.png": 1, "puma/2.png": 2}
    assert lost == ["out", "root", "x", "y", "gone"]


def test_what_macos_puts_beside_shards_is_passed_over(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "._a.tar"):
        put(tmp_path / name)
    assert expand(str(tmp_path)) == (tmp_path / "a.tar", tmp_path / "b.tar")
