"""Streams from hosts, commands and caches: the place of a shard does not matter."""

from __future__ import annotations

import functools
import http.server
import io
import os
import shutil
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch

from tests.helpers.data_factory import encoded
from tests.helpers.stream_factory import FAST, fill, numbers, read, row_facts, spec, streams
from vlkit import files
from vlkit.data.stream.remote import list_shards, spool_folder
from vlkit.data.stream.windows import ShardReader, Shards
from vlkit.errors import DataError
from vlkit.spec.dataset import DataSpec, StreamSpec


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))


class _Site(http.server.SimpleHTTPRequestHandler):
    fail: ClassVar[Counter[str]] = Counter()  # path -> how often it still fails
    short: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if self.fail[name] > 0:
            self.fail[name] -= 1
            self.send_error(503)
        elif name in self.short:
            raw = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2])
            self.short.discard(name)
        else:
            super().do_GET()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    _Site.fail, _Site.short = Counter(), set()
    handler = functools.partial(_Site, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def everywhere(folder: Path, site: str) -> dict[str, str]:
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    name = "part{000..003}-0000.tar"
    return {
        "local": f"{folder}/{name}",
        "http": f"{site}/{folder.name}/{name}",
        "memory": f"memory://bucket/{name}",
        "pipe": f"pipe:cat {folder}/{name}",
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_the_place_does_not_matter(tmp_path: Path, site: str, workers: int) -> None:
    places = everywhere(fill(tmp_path / "s", [9, 7, 8, 8]), site)
    runs = {
        name: [row_facts(batch)[3] for batch in read(spec(path), 8, workers=workers)[0]]
        for name, path in places.items()
    }
    assert all(run == runs["local"] for run in runs.values())
    assert not list((files.home() / "spool").glob("*"))  # nothing left behind


def test_a_failing_host_is_asked_again(tmp_path: Path, site: str) -> None:
    places = everywhere(fill(tmp_path / "s", [9, 7, 8, 8]), site)
    want = [numbers(batch) for batch in read(spec(places["http"]), 8)[0]]
    _Site.fail.update({"part001-0000.tar": 2})
    _Site.short.add("part002-0000.tar")
    (stream,) = streams(spec(places["http"], stream={"retries": 2}))
    assert [numbers(batch) for batch in stream.steps(0, 8)] == want
    assert not stream.bad.lost and not _Site.fail["part001-0000.tar"] and not _Site.short
    _Site.fail.update({"part001-0000.tar": 3})
    with pytest.raises(DataError, match=r"part001-0000.tar: cannot be fetched \(3 tries\): HTTP Error 503"):
        read(spec(places["http"], stream={"retries": 2}), 8)


def test_what_is_not_there_is_not_asked_for_again(tmp_path: Path, site: str) -> None:
    fill(tmp_path / "s", [9] * 2)
    with pytest.raises(DataError, match=r"2 of 4 shards .*\n.* cannot be fetched: HTTP Error 404"):
        read(spec(f"{site}/s/no{{0..3}}.tar", stream={"backoff": 60.0}), 2)


def test_an_unreachable_host_ends_the_run(tmp_path: Path) -> None:
    for workers in (0, 2):
        with pytest.raises(
            DataError, match=r"of 4 shards cannot be had, .*\n.* cannot be fetched \(2 tries\): .*refused"
        ):
            read(spec("http://127.0.0.1:9/{0..3}.tar"), 2, workers=workers)


def test_a_silent_command_is_ended(tmp_path: Path) -> None:
    silent = "pipe:sleep 60 # {0..1}"
    with pytest.raises(DataError, match=r"silent for too long: data.stream.timeout"):
        read(spec(silent, stream={"timeout": 0.2, "retries": 0}), 2)


def test_a_page_in_place_of_a_shard_is_a_lost_shard(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a tar file"):
        read(spec("pipe:echo '<html>please sign in</html>' {0..1}"), 2)


def test_patterns() -> None:
    assert list_shards("https://h/{00..02}-{a,b}.tar")[:3] == (
        "https://h/00-a.tar",
        "https://h/00-b.tar",
        "https://h/01-a.tar",
    )
    assert list_shards("pipe:awk '{print $1}' {8..9}") == ("pipe:awk '{print $1}' 8", "pipe:awk '{print $1}' 9")
    with pytest.raises(DataError, match="nosuch:// is no kind of URL"):
        list_shards("nosuch://x/{0..1}.tar")
    memory = fsspec.filesystem("memory")
    for name in ("one", "two"):
        memory.pipe_file(f"/globbed/{name}.tar", b"")
    assert [path.rpartition("/")[2] for path in list_shards("memory://globbed/*.tar")] == ["one.tar", "two.tar"]
    with pytest.raises(DataError, match="no shard matches"):
        list_shards("memory://globbed/*.zip")


def test_the_cache_of_shards_keeps_to_its_size(tmp_path: Path, site: str) -> None:
    folder = fill(tmp_path / "s", [8] * 4)
    size = (folder / "part000-0000.tar").stat().st_size
    data = spec(f"{site}/s/part{{000..003}}-0000.tar", stream={"cache_gb": 2.5 * size / 1e9})
    want = [numbers(batch) for batch in read(data, 8)[0]]
    kept = list((files.home() / "shards").glob("*.tar"))
    assert len(kept) == 2
    big = data.model_copy(update={"stream": data.stream.model_copy(update={"cache_gb": 1.0})})
    assert [numbers(batch) for batch in read(big, 8)[0]] == want
    shutil.rmtree(folder)  # all four are kept: the host is not asked
    assert [numbers(batch) for batch in read(big, 8)[0]] == want


def test_spools_of_killed_processes_are_cleared(tmp_path: Path) -> None:
    host = os.uname().nodename
    dead, other = (files.home() / "spool" / name for name in (f"{host}-4194305-1", "elsewhere-4194305-1"))
    for folder in (dead, other):
        folder.mkdir(parents=True)
        (folder / "0.tar").write_bytes(b"x")
    with spool_folder() as mine:
        assert mine.is_dir() and not dead.exists() and other.exists()
    assert not mine.exists()


def test_a_window_holds_few_shards_at_a_time(tmp_path: Path) -> None:
    folder = fill(tmp_path / "s", [8] * 12)
    shards = Shards(list_shards(f"pipe:cat {folder}/part{{000..011}}-0000.tar"), 0, "s", None, None)
    (tmp_path / "spool").mkdir()
    reader = ShardReader(shards, spec=StreamSpec(window_shards=2), seed=0, lane=0, lanes=1, folder=tmp_path / "spool")
    most = 0
    for _ in range(96):
        reader.take(None, ())
        most = max(most, len(list((tmp_path / "spool").iterdir())))
    assert 2 <= most <= 6  # this window, the one before it for a moment, and the next
    reader.close()


def test_reading_leaves_the_runs_own_random_numbers_alone(tmp_path: Path) -> None:
    data = spec(fill(tmp_path / "s", [8] * 2), augment={"flip": 0.5})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    read(data, 3, workers=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_shard_of_one_text_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(4):
            for suffix, raw in (("jpg", encoded((number, 2, 3), kind="JPEG")), ("txt", f"zh {number}".encode())):
                info = tarfile.TarInfo(f"{number}.{suffix}")
                info.size = len(raw)
                tar.addfile(info, io.BytesIO(raw))
    data = DataSpec.model_validate(
        {"sources": [{"kind": "webdataset", "path": f"pipe:cat {path}", "language": "zh"}], "stream": FAST}
    )
    (batch,) = read(data, 1, batch=4)[0]
    assert set(batch.languages) == {"zh"} and batch.pivots == ("",) * 4 and sorted(numbers(batch)) == [0, 1, 2, 3]
