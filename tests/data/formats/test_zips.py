"""Zips as people have them: names in encodings that they do not say, links, and bombs."""

from __future__ import annotations

import logging
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from vlkit.data.formats.archives import list_members
from vlkit.errors import DataError
from vlkit.foreign import LIMIT


def unsaid(path: Path, *names: bytes, extra: bytes = b"", system: int = 3) -> Path:
    """A zip whose names are these bytes, of which it does not say the encoding."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(f"{number}".rjust(len(name), "?"))
            info.extra, info.create_system = extra, system
            archive.writestr(info, name)
    raw = path.read_bytes()
    for number, name in enumerate(names):
        raw = raw.replace(f"{number}".rjust(len(name), "?").encode() + extra, name + extra)
    path.write_bytes(raw)
    return path


def names(path: Path) -> list[str]:
    return [member.name for member in list_members(path)]


def test_names_in_utf8_without_the_flag_as_macos_writes_them(tmp_path: Path) -> None:
    path = unsaid(tmp_path / "x.zip", "Ka\u0308tzchen/1.png".encode(), "猫/2.png".encode(), b"dog/3.png")
    assert names(path) == ["K\u00e4tzchen/1.png", "dog/3.png", "猫/2.png"]
    assert {member.name: member.read().decode() for member in list_members(path)}["猫/2.png"] == "猫/2.png"


def test_names_in_the_extra_field_of_info_zip(tmp_path: Path) -> None:
    raw, meant = "K\u00e4se/1.png".encode("cp850"), "K\u00e4se/1.png".encode()
    extra = struct.pack("<HHBI", 0x7075, 5 + len(meant), 1, zlib.crc32(raw)) + meant
    assert names(unsaid(tmp_path / "x.zip", raw, extra=extra)) == ["K\u00e4se/1.png"]


def test_names_of_dos_are_taken_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert names(unsaid(tmp_path / "x.zip", "K\u00e4se/1.png".encode("cp437"))) == ["K\u00e4se/1.png"]
    assert "does not say how its names are encoded; taken as 'K\u00e4se/1.png'" in caplog.text


@pytest.mark.parametrize("encoding", ["gbk", "euc-kr", "koi8-r"])
def test_names_of_other_encodings_are_refused_rather_than_garbled(tmp_path: Path, encoding: str) -> None:
    name = {"gbk": "狗狗/1.png", "euc-kr": "고양이/1.png", "koi8-r": "кошка/1.png"}[encoding]
    with pytest.raises(DataError, match=r"does not say how its names are encoded .* pack the files anew"):
        names(unsaid(tmp_path / "x.zip", name.encode(encoding)))


def test_folders_with_the_sign_of_windows(tmp_path: Path) -> None:
    assert names(unsaid(tmp_path / "x.zip", rb"cat\1.png", rb"dog\2.png", system=0)) == ["cat/1.png", "dog/2.png"]


def test_links_in_a_zip(tmp_path: Path) -> None:
    def zipped(name: str, links: dict[str, str]) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("cats/1.png", b"one")
            for link, target in links.items():
                info = zipfile.ZipInfo(link)
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(info, target)
        return tmp_path / name

    found = list_members(zipped("x.zip", {"cat": "cats", "dog/2.png": "../cats/1.png"}))
    assert {one.name: one.read() for one in found} == dict.fromkeys(("cat/1.png", "cats/1.png", "dog/2.png"), b"one")
    with pytest.raises(DataError, match=r"2\.png is a link to /etc/passwd, which is not in the zip"):
        list_members(zipped("y.zip", {"2.png": "/etc/passwd"}))


@pytest.mark.parametrize("lie", [False, True])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: bool) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(3_000_000))
    if lie:  # about its size
        raw = path.read_bytes()
        path.write_bytes(raw.replace(struct.pack("<I", 3_000_000), struct.pack("<I", 1000)))
    (member,) = list_members(path)
    monkeypatch.setenv(LIMIT, "2")
    asked: list[int] = []
    inflater = zlib.decompressobj

    class Watched:
        def __init__(self, *settings: Any) -> None:
            self.real = inflater(*settings)

        def decompress(self, raw: bytes, most: int = 0) -> bytes:
            asked.append(most)
            return self.real.decompress(raw, most)

        @property
        def eof(self) -> bool:
            return self.real.eof

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    with pytest.raises(DataError, match=r"1\.png in .*unpacked: . MB, more than the limit of 2 MB.*VLKIT_LIMIT_MB"):
        member.read()
    assert asked == ([2_000_001] if lie else [])


def test_a_name_that_is_said_to_be_utf8_and_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\u00e9\u00e9/1.png", b"1")
    path.write_bytes(path.read_bytes().replace("\u00e9\u00e9".encode(), b"\xe9\xe9\xe9\xe9"))
    with pytest.raises(DataError, match="is said to be UTF-8 and is not; pack the files anew"):
        list_members(path)
