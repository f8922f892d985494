"""Tars as people and attackers make them: links, names in other encodings, headers that lie."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vlkit.data.formats.archives import list_members
from vlkit.data.formats.shard_index import read_index, scan
from vlkit.data.formats.tars import sample_key, tar_members
from vlkit.errors import DataError


def written(path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def file(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def listed(path: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    problems: dict[str, str] = {}
    with path.open("rb") as stream:
        found = dict(tar_members(path, stream, problems, size=path.stat().st_size))
    raw = path.read_bytes()
    return {name: raw[start : start + size] for name, (start, size) in found.items()}, problems


def test_links_are_what_they_name(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.tar",
        link("cat", "cats"),
        file("./cats/1.png", b"one"),
        link("dog/2.png", "cats/1.png", tarfile.LNKTYPE),
        link("dog/3.png", "../cats/1.png"),
        link("README.md", "../README.md"),
    )
    assert {member.name: member.read() for member in list_members(path)} == {
        "cats/1.png": b"one", "dog/2.png": b"one", "dog/3.png": b"one", "cat/1.png": b"one"
    }  # fmt: skip


def test_a_link_that_leaves_the_tar_is_a_problem(tmp_path: Path) -> None:
    path = written(tmp_path / "x.tar", file("a/1.png"), link("a/2.png", "/etc/passwd"), link("b", "../../etc"))
    found, problems = listed(path)
    assert list(found) == ["a/1.png"]
    assert problems["x.tar:a/2.png"].startswith("a link to /etc/passwd, which is not in the tar")
    with pytest.raises(DataError, match=r"x\.tar:a/2\.png: a link to /etc/passwd"):
        list_members(path)


def test_names_are_read_in_nfc_and_those_that_are_not_utf8_are_shown(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.tar", file("Ka\u0308se/1.png"), file("Ka\u0308se/e\udce9.png"), form=tarfile.GNU_FORMAT
    )
    assert [member.name for member in list_members(path)] == ["K\u00e4se/1.png", "K\u00e4se/e\\xe9.png"]
    assert [member.name for member in list_members(path)] == ["K\u00e4se/1.png", "K\u00e4se/e\\xe9.png"]  # cached
    path = written(tmp_path / "y.tar", file("K\udce4se/1.png"), form=tarfile.GNU_FORMAT)
    with pytest.raises(DataError, match=r"the name of the folder 'K\\xe4se' is not UTF-8; give it another name"):
        list_members(path)


def test_keys_of_samples() -> None:
    assert sample_key("a.b/c/0001.seg.PNG") == ("a.b/c/0001", "seg.png")
    assert sample_key("e\u0301.txt") == ("\u00e9", "txt")
    assert sample_key("\udce9.jpg") == ("\\xe9", "jpg")
    for name in ("._1.jpg", "__MACOSX/1.jpg", ".ipynb_checkpoints/1.jpg", "@eaDir/1.jpg", "README"):
        assert sample_key(name) == ("", "")


def test_shards_pass_over_what_macos_adds(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.tar",
        file("__MACOSX/._1.jpg"),
        file("._1.jpg"),
        file("1.jpg"),
        file("1.txt", b"\xef\xbb\xbfa cat"),
    )
    index = scan(path, language="en")
    assert [row.key for row in index.rows] == ["1"] and not index.problems


def _pax(count: int) -> bytes:
    header = tarfile.TarInfo("p")
    header.type, header.size = tarfile.XHDTYPE, 15
    return (header.tobuf(tarfile.USTAR_FORMAT) + b"15 comment=abc\n".ljust(512, b"\0")) * count


def _sized(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    header = tarfile.TarInfo("1.png")
    header.type, header.size = kind, size
    return header.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (lambda: _pax(3000) + _sized(0), "too many headers before one member"),
        (lambda: _sized(2**40, tarfile.XHDTYPE), r"a header of 1,099,511,627,776 bytes"),
        (lambda: _sized(2**40, tarfile.GNUTYPE_LONGNAME), r"a header of 1,099,511,627,776 bytes"),
        (lambda: _sized(-512), "a member of -512 bytes"),
    ],
)
def test_headers_that_lie_are_problems(tmp_path: Path, raw: Callable[[], bytes], reason: str) -> None:
    path = written(tmp_path / "x.tar", file("a/0.png", b"zero"))
    path.write_bytes(path.read_bytes()[:1024] + raw() + bytes(1024))
    found, problems = listed(path)
    assert found == {"a/0.png": b"zero"}
    with pytest.raises(DataError, match=reason):
        list_members(path)
    assert len(problems) == 1


def test_a_tar_in_a_folder_whose_name_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9j\xe0"))
    folder.mkdir()
    path = written(folder / "x.tar", file("1.jpg"), file("1.txt", b"a cat"), file("2.jpg"))
    index = read_index(path, language="en")
    assert [row.key for row in index.rows] == ["1"] and list(index.problems) == ["x.tar:2"]
    monkeypatch.setattr("vlkit.data.formats.shard_index.scan", None)  # not called again
    assert read_index(path, language="en") == index
