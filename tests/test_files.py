"""Writes are whole or not there at all, whoever dies, races or fills the disk meanwhile."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlkit import files
from vlkit.errors import VlkitError
from vlkit.files import atomic_folder, digest, home, packaged, sha256, write_atomic

FIX = (
    "; free some space or choose a place that can be written to "
    "(outputs: --out or run.folder, caches: the environment variable VLKIT_HOME)"
)


def write(target: Path, text: str, *, parts: int = 3) -> None:
    with atomic_folder(target) as folder:
        for part in range(parts):
            (folder / f"part-{part}").write_text(text)


def read(target: Path) -> list[str]:
    return [path.read_text() for path in sorted(target.iterdir())]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("VLKIT_HOME", "~/mine")
    assert home() == tmp_path / "mine"
    monkeypatch.setenv("VLKIT_HOME", "")
    assert home() == tmp_path / ".cache" / "vlkit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home() == tmp_path / "cache" / "vlkit"


def test_what_is_shipped_is_found() -> None:
    assert (packaged("data") / "languages.csv").is_file() and (packaged("recipes") / "contrastive/tiny.yaml").is_file()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(b"\x07" * size)
    assert sha256(tmp_path / "f") == hashlib.sha256(b"\x07" * size).hexdigest()


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.none() | st.booleans()), min_size=2))
def test_a_digest_depends_on_the_value_and_not_on_its_order(value: dict[str, object]) -> None:
    turned = dict(reversed(value.items()))
    assert digest(value) == digest(turned) and len(digest(value)) == 16
    assert digest({**value, "": object}) != digest(value)


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    write(target, "old", parts=4)
    with atomic_folder(target) as folder:
        (folder / "new").write_text("new")
        assert read(target) == ["old"] * 4 and folder.parent == target.parent
    assert [path.name for path in target.iterdir()] == ["new"] and names(target.parent) == ["model"]
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "error", [RuntimeError("mine"), KeyboardInterrupt(), FileNotFoundError(2, "gone", "input.txt")]
)
def test_an_error_inside_passes_as_it_is_and_leaves_the_old_folder(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "m", "old")
    with pytest.raises(type(error)) as caught, atomic_folder(tmp_path / "m") as folder:
        (folder / "part-0").write_text("half")
        raise error
    assert caught.value is error
    assert read(tmp_path / "m") == ["old"] * 3 and names(tmp_path) == ["m"]


def test_only_what_the_disk_refused_here_is_called_a_failed_write(tmp_path: Path) -> None:
    unreadable = tmp_path / "elsewhere" / "photo.jpg"
    for error in (
        PermissionError(errno.EACCES, "Permission denied", str(unreadable)),
        IsADirectoryError(errno.EISDIR, "Is a directory", str(tmp_path)),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("timed out"),
    ):
        with pytest.raises(OSError, match=str(error).replace("[", r"\[")) as caught, atomic_folder(tmp_path / "m"):
            raise error
        assert caught.value is error
    with pytest.raises(VlkitError) as told, atomic_folder(tmp_path / "m") as folder:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "part"))
    assert str(told.value) == f"cannot write {tmp_path / 'm'}: Permission denied{FIX}"


def test_a_full_disk_is_told_and_leaves_the_old_folder(tmp_path: Path) -> None:
    write(tmp_path / "m", "old")
    with pytest.raises(VlkitError) as caught, atomic_folder(tmp_path / "m") as folder:
        (folder / "part-0").write_text("half")
        full()
    assert str(caught.value) == f"cannot write {tmp_path / 'm'}: No space left on device{FIX}"
    assert read(tmp_path / "m") == ["old"] * 3 and names(tmp_path) == ["m"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_told(tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match="No space left on device"), atomic_folder(tmp_path / "m") as folder:
        (folder / "weights").symlink_to("/dev/full")
        (folder / "weights").write_bytes(b"x" * 100)
    assert names(tmp_path) == []


def test_a_place_that_cannot_hold_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for attempt in (lambda: write(tmp_path / "file" / "m", "x"), lambda: write_atomic(tmp_path / "file" / "m", "x")):
        with pytest.raises(VlkitError) as caught:
            attempt()
        assert str(caught.value) == f"cannot write {tmp_path / 'file' / 'm'}: {tmp_path / 'file'} is no folder{FIX}"
    with pytest.raises(VlkitError, match="Not a directory"):
        write(tmp_path / "file", "x")
    assert (tmp_path / "file").is_file() and names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_stopped_between_the_two_renames_the_old_folder_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "m"
    write(target, "old")
    rename = Path.rename

    def stopping(self: Path, to: Path) -> Path:
        if to == target and not target.exists() and ".vlkit-old-" not in str(self):
            raise error
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", stopping)
    with pytest.raises((KeyboardInterrupt, VlkitError)):
        write(target, "new")
    assert read(target) == ["old"] * 3 and names(tmp_path) == ["m"]


@pytest.mark.skipif(os.name != "posix", reason="kills with a signal")
def test_a_killed_writer_leaves_the_old_folder_whole(tmp_path: Path) -> None:
    write(tmp_path / "m", "old")
    code = (
        "import sys, time; from pathlib import Path; from vlkit.files import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'part-0').write_text('half'); print('half', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "m")], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline() == "half\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert read(tmp_path / "m") == ["old"] * 3
    write(tmp_path / "m", "new")
    assert read(tmp_path / "m") == ["new"] * 3


def _write_many(target: Path, name: str) -> None:
    for _ in range(40):
        write(target, name)


def test_of_parallel_writers_each_leaves_a_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "m"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(target, name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    seen: set[str] = set()
    while any(writer.is_alive() for writer in writers):
        with suppress(FileNotFoundError, NotADirectoryError):  # replaced while it was read
            seen |= {path.read_text() for path in target.iterdir()}
        time.sleep(0.001)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert read(target) in (["a"] * 3, ["b"] * 3) and names(tmp_path) == ["m"] and seen <= {"a", "b"}


@pytest.mark.parametrize("content", ["grüße ☃\n", b"\x00\xff", ""])
def test_a_file_is_written_as_it_is(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "deep" / "f"
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert path.stat().st_mode & 0o777 == 0o644 and names(path.parent) == ["f"]


def test_a_file_is_never_seen_half(tmp_path: Path) -> None:
    path, sizes = tmp_path / "f", set()
    write_atomic(path, b"a" * 200_000)
    writer = threading.Thread(target=lambda: [write_atomic(path, b"b" * 200_000) for _ in range(20)])
    writer.start()
    while writer.is_alive():
        content = path.read_bytes()
        sizes.add((len(content), len(set(content))))
    writer.join()
    assert sizes <= {(200_000, 1)}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "f", "old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(VlkitError) as caught:
        write_atomic(tmp_path / "f", "new")
    assert str(caught.value) == f"cannot write {tmp_path / 'f'}: No space left on device{FIX}"
    assert (tmp_path / "f").read_text() == "old" and names(tmp_path) == ["f"]


def _leftover(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "part").write_text("half")
    return path


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    _leftover(tmp_path, ".m.vlkit-new-abcd_123")
    _leftover(tmp_path, ".other.json.vlkit-new-abcd_123")
    (tmp_path / ".f.vlkit-new-12345678").touch()
    for name in (".m-abcd_123", "m.vlkit-new-abcd_123", ".m.vlkit-new-ABCD1234", ".vlkit-new-abcd1234"):
        _leftover(tmp_path, name)
    with atomic_folder(tmp_path / "m") as mine:
        files.sweep(tmp_path)
        assert mine.is_dir()  # of a writer that lives
        theirs, held = files._half_made(tmp_path / "m", "new")
        write(tmp_path / "n", "other")
        assert theirs.is_dir()
        os.close(held)
    files.sweep(tmp_path)
    assert names(tmp_path) == [
        ".m-abcd_123",
        ".m.vlkit-new-ABCD1234",
        ".vlkit-new-abcd1234",
        "m",
        "m.vlkit-new-abcd_123",
        "n",
    ]


def test_a_file_that_a_killed_writer_left_is_swept_once_a_process(tmp_path: Path) -> None:
    (tmp_path / ".f.vlkit-new-12345678").touch()
    write_atomic(tmp_path / "g", "x")
    assert names(tmp_path) == ["g"]


def test_a_writer_killed_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    aside = _leftover(tmp_path, ".m.vlkit-old-12345678/m").parent
    _leftover(tmp_path, ".m.vlkit-new-12345678")
    files.sweep(tmp_path)
    assert names(tmp_path) == ["m"] and read(tmp_path / "m") == ["half"]
    _leftover(tmp_path, f"{aside.name}/m")
    write(tmp_path / "m", "new")
    assert names(tmp_path) == ["m"] and read(tmp_path / "m") == ["new"] * 3


def test_a_link_to_a_folder_stays(tmp_path: Path) -> None:
    write(tmp_path / "disk" / "m", "old")
    (tmp_path / "m").symlink_to("disk/m")
    write(tmp_path / "m", "new")
    assert (tmp_path / "m").readlink() == Path("disk/m") and read(tmp_path / "disk" / "m") == ["new"] * 3
    assert names(tmp_path) == ["disk", "m"] and names(tmp_path / "disk") == ["m"]


@pytest.mark.parametrize("name", ["x" * 250, "й" * 120, "画" * 80])
def test_a_long_name_leaves_room_for_what_is_half_made(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "old")
    write(tmp_path / name, "new")
    write_atomic(tmp_path / name[:-1], "x")
    assert names(tmp_path) == sorted([name, name[:-1]]) and read(tmp_path / name) == ["new"] * 3


class SafetensorError(Exception):
    """As safetensors, written in Rust, raises it."""


@pytest.mark.parametrize(
    "said",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })',
        "Error while serializing: I/O error: No space left on device",
    ],
)
def test_a_full_disk_that_a_library_in_rust_met_is_told_alike(tmp_path: Path, said: str) -> None:
    with pytest.raises(VlkitError) as caught, atomic_folder(tmp_path / "m", then="go on with --resume"):
        raise SafetensorError(said)
    assert str(caught.value) == f"cannot write {tmp_path / 'm'}: No space left on device{FIX}, then go on with --resume"
    with pytest.raises(SafetensorError), atomic_folder(tmp_path / "m"):
        raise SafetensorError("the header is too large")


def _interrupted(target: str, at: int) -> None:
    """Writes over a folder, and is killed at one of the calls to the file system."""
    calls = iter(range(10_000))

    def count(event: str, _: tuple[object, ...]) -> None:
        if event.startswith(("os.", "open", "shutil.", "tempfile.")) and next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    write(Path(target), "new")
    os._exit(17)


@pytest.mark.skipif(os.name != "posix", reason="kills with a signal")
def test_killed_at_any_call_a_folder_is_the_old_or_the_new_one_and_can_be_written_again(tmp_path: Path) -> None:
    context, seen, at = multiprocessing.get_context("fork"), set[str](), 0
    while True:
        target = tmp_path / str(at) / "m"
        write(target, "old")
        child = context.Process(target=_interrupted, args=(str(target), at))
        child.start()
        child.join()
        if child.exitcode == 17:
            break
        files.sweep(target.parent)
        assert names(target.parent) == ["m"] and read(target) in (["old"] * 3, ["new"] * 3)
        seen.update(read(target))
        write(target, "again")
        assert names(target.parent) == ["m"] and read(target) == ["again"] * 3
        at += 1
    assert at > 10 and seen == {"old", "new"}
