"""Members of folders, tars and zips: what is listed is what is read."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from vlkit.data.formats.archives import list_archives, list_members
from vlkit.errors import DataError

FILES = {"b/2.jpg": b"two" * 300, "a/1.png": b"one", "a/deep/x.JPEG": b"", "notes.json": b"{}"}


def tar(files: Mapping[str, bytes], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def content(path: Path) -> dict[str, bytes]:
    return {member.name: member.read() for member in list_members(path)}


def test_folder_tar_and_zip_hold_the_same(tmp_path: Path) -> None:
    for name, raw in FILES.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(raw)
    (tmp_path / "x.tar").write_bytes(tar(FILES))
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in FILES.items():
            archive.writestr(name, raw)
    assert content(tmp_path / "folder") == content(tmp_path / "x.tar") == content(tmp_path / "x.zip") == FILES
    names = [member.name for member in list_members(tmp_path / "x.tar")]
    assert names == sorted(FILES)
    for _ in range(2):  # the second time from the cache
        assert content(tmp_path / "x.tar") == FILES


def test_a_tar_of_the_same_size_written_anew_is_listed_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    for time, name in enumerate(("a.png", "b.png"), start=1):
        path.write_bytes(tar({name: b"1"}))
        os.utime(path, ns=(time, time))
        assert [member.name for member in list_members(path)] == [name]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_in_a_tar(tmp_path: Path, form: int) -> None:
    long = "x" * 90 + ".png"
    inner = {
        name: tar({f"{name}-{long}": name.encode() * 600, "1.png": b"1" + name.encode()}, form=form) for name in "ab"
    }
    (tmp_path / "x.tar").write_bytes(tar({f"train/{name}.tar": raw for name, raw in inner.items()}, form=form))
    wanted = {f"train/{name}/{name}-{long}": name.encode() * 600 for name in "ab"}
    wanted |= {f"train/{name}/1.png": b"1" + name.encode() for name in "ab"}
    assert content(tmp_path / "x.tar") == wanted
    assert content(tmp_path) == {f"x/{name}": raw for name, raw in wanted.items()}
    members = list_archives([tmp_path / "x.tar", tmp_path / "x.tar"])
    assert len(members) == 8 and members[0].name.startswith("x/train/a/")


def test_a_tar_in_a_tar_that_breaks_off(tmp_path: Path) -> None:
    inner = tar({"1.png": b"1" * 5000})[:2000]
    (tmp_path / "x.tar").write_bytes(tar({"n01440764.tar": inner}))
    with pytest.raises(DataError, match=r"n01440764\.tar in .*x\.tar: .*breaks off at byte 2,000, inside this member"):
        list_members(tmp_path / "x.tar")


def test_archives_that_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar({"a.zip": b"PK"}))
    with pytest.raises(
        DataError, match=r"a\.zip in .*x\.tar: an archive in an archive is read only where both are tars"
    ):
        list_members(tmp_path / "x.tar")
    (tmp_path / "y.tar").write_bytes(tar({"a.tar.gz": b"\x1f\x8b"}))
    with pytest.raises(DataError, match=r"make a plain \.tar of it first \(gunzip a\.tar\.gz\)"):
        list_members(tmp_path / "y.tar")
    (tmp_path / "z.tar").write_bytes(tar({**FILES, "a.zip": b"PK"}))  # beside images archives are just files
    assert "a.zip" in content(tmp_path / "z.tar")


@pytest.mark.parametrize("place", [0, 5, 40])
def test_a_zip_that_was_changed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", b"0123456789" * 50)
    (member,) = list_members(path)
    raw = bytearray(path.read_bytes())
    raw[place] ^= 255
    path.write_bytes(raw)
    if place == 5:  # a field of the header that does not matter
        assert member.read() == b"0123456789" * 50
        return
    with pytest.raises(DataError, match=r"cannot read 1\.png in .*x\.zip: the zip is damaged"):
        member.read()
