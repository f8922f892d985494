"""Streams of shards: every sample once an epoch, the same sequence after a kill, nothing that hangs."""

from __future__ import annotations

import functools
import http.server
import io
import json
import logging
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
from data_factory import encoded, tokenize, transform

from vlkit import files
from vlkit.data.bad import Bad, RecentBad
from vlkit.data.pairs import streamed
from vlkit.data.remote import fetch, list_shards, spool_folder
from vlkit.data.stream import Stream, open_stream
from vlkit.data.windows import ShardReader, Shards
from vlkit.data.writer import ShardWriter
from vlkit.errors import DataError
from vlkit.spec.data import DataSpec, StreamSpec
from vlkit.types import Batch

FAST = {"retries": 1, "backoff": 0.0, "timeout": 5.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))


def fill(
    folder: Path,
    sizes: list[int],
    *,
    languages: tuple[str, ...] = ("de", "en"),
    concepts: int | None = None,
    bad: frozenset[int] = frozenset(),
) -> Path:
    """Shards of so many samples; a sample's number is in its caption and its color."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for shard, size in enumerate(sizes):
        with ShardWriter(folder, prefix=f"part{shard:03d}", per_shard=10_000) as writer:
            for _ in range(size):
                image = encoded((number % 256, number // 256, 7))
                captions = {language: f"{language} {number}" for language in languages}
                record = {"captions": captions, **({"concept": f"c{number % concepts}"} if concepts else {})}
                members = {"png": image[:40] if number in bad else image, "json": json.dumps(record).encode()}
                writer.write(f"n{number:05d}", members)
                number += 1
    for shard, size in enumerate(sizes):
        if size == 0:
            tarfile.open(folder / f"part{shard:03d}-0000.tar", "w").close()
    return folder


def spec(*paths: str | Path, stream: dict[str, Any] | None = None, **more: Any) -> DataSpec:
    sources = [{"kind": "webdataset", "path": str(path), "sampling": "stream"} for path in paths]
    given = {"sources": sources, "stream": {"window_shards": 2, **FAST, **(stream or {})}, **more}
    return DataSpec.model_validate(given)


def streams(
    data: DataSpec, *, batch: int = 8, workers: int = 0, ranks: int = 1, seed: int = 0, images: bool = True
) -> list[Stream]:
    return [
        Stream(
            open_stream(data, batch_size=batch, seed=seed, num_workers=workers, rank_of=(rank, ranks)),
            transform=transform if images else None,
            tokenize=tokenize,
        )
        for rank in range(ranks)
    ]


def numbers(batch: Batch) -> list[int]:
    return [int(caption.split()[1]) for caption in batch.captions]


def row_facts(batch: Batch) -> tuple[Any, ...]:
    assert batch.pixels_BCHW is not None and batch.tokens is not None
    return batch.captions, batch.languages, batch.sources, batch.pixels_BCHW.tolist(), batch.tokens.ids_BL.tolist()


def read(data: DataSpec, steps: int, **settings: Any) -> list[list[Batch]]:
    return [list(one.steps(0, steps)) for one in streams(data, **settings)]


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 1), (2, 2)])
def test_every_sample_once_an_epoch(tmp_path: Path, ranks: int, workers: int) -> None:
    data = spec(fill(tmp_path / "s", [12] * 8))
    # 96 samples: with 8 a batch an epoch is 12 batches, whatever the readers
    for epochs in (1, 2):
        seen = Counter(
            n for rank in read(data, 12 * epochs, ranks=ranks, workers=workers) for b in rank for n in numbers(b)
        )
        assert seen == dict.fromkeys(range(96), epochs)


def test_pairs_belong_together(tmp_path: Path) -> None:
    for batch in read(spec(fill(tmp_path / "s", [9, 9])), 6)[0]:
        assert batch.pixels_BCHW is not None and batch.tokens is not None
        for row, number in enumerate(numbers(batch)):
            assert round(float(batch.pixels_BCHW[row, 0, 0, 0]) * 255) == number
            assert batch.captions[row] == f"{batch.languages[row]} {number}"
            assert batch.pivots[row] == f"en {number}"
            ids = batch.tokens.ids_BL[row]
            assert bytes(ids[ids > 0].tolist()).decode() == f"{batch.languages[row]}:{batch.captions[row]}"
    assert batch.sources == ("s",) * 8


def test_orders_are_random_and_mix_the_shards_of_a_window(tmp_path: Path) -> None:
    data = spec(fill(tmp_path / "s", [16] * 4))
    one, two = (read(data, 16, seed=seed)[0] for seed in (0, 1))
    epochs = [[n for batch in run for n in numbers(batch)] for run in (one[:8], one[8:], two[:8])]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    alone = [n for batch in read(spec(fill(tmp_path / "one", [16])), 4)[0] for n in numbers(batch)]
    assert alone[:16] != alone[16:]  # the same window of the same shard, in another order
    for epoch in epochs:
        assert sorted(epoch) == list(range(64))
        assert len({n // 16 for n in epoch[:8]}) == 2  # a batch holds both shards of its window


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 1), (2, 2)])
def test_a_resumed_stream_goes_on_exactly(tmp_path: Path, ranks: int, workers: int) -> None:
    data = spec(fill(tmp_path / "s", [11, 7, 9, 12, 8, 10, 5, 13], concepts=9), augment={"flip": 0.5, "color": 0.2})
    for stream in streams(data, ranks=ranks, workers=workers):
        whole = [row_facts(batch) for batch in stream.steps(0, 30)]
        for stop in (1, 7, 20):
            first, second = (Stream(stream.plan, transform=transform, tokenize=tokenize) for _ in range(2))
            running = first.steps(0, 30)  # would go on: what it has read ahead must not count
            before = [row_facts(next(running)) for _ in range(stop)]
            state = json.loads(json.dumps(first.state()))
            running.close()
            second.restore(state)
            assert before + [row_facts(batch) for batch in second.steps(stop, 30)] == whole, f"stopped at {stop}"


def test_each_epoch_deals_the_shards_anew(tmp_path: Path) -> None:
    data = spec(fill(tmp_path / "s", [8] * 8))
    for batches in read(data, 80, ranks=2):  # a reader that kept its shards would tell only these apart
        epochs = [frozenset(n // 8 for batch in batches[i : i + 8] for n in numbers(batch)) for i in range(0, 80, 8)]
        assert all(len(epoch) == 4 for epoch in epochs) and len(set(epochs)) > 2


def test_resuming_fetches_the_open_windows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = spec(f"pipe:cat {fill(tmp_path / 's', [8] * 12)}/part{{000..011}}-0000.tar")
    (stream,) = streams(data)
    list(stream.steps(0, 9))
    fetched: list[str] = []

    def counted(url: str, target: Path, *, spec: StreamSpec) -> None:
        fetched.append(url)
        fetch(url, target, spec=spec)

    monkeypatch.setattr("vlkit.data.windows.fetch", counted)
    (again,) = streams(data)
    again.restore(stream.state())
    assert len(next(again.steps(9, 10)).captions) == 8
    assert len(set(fetched)) == len(fetched) <= 4  # the window at hand and the next one


def test_another_number_of_readers_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "s", [8] * 6)
    (stream,) = streams(spec(folder), workers=2)
    list(stream.steps(0, 3))
    with pytest.raises(DataError, match=r"cannot go on .*: workers \(2 then, 3 now\) changed"):
        streams(spec(folder), workers=3)[0].restore(stream.state())
    with pytest.raises(DataError, match=r"processes \(1 then, 2 now\)"):
        streams(spec(folder), workers=2, ranks=2)[0].restore(stream.state())
    (folder / "part005-0000.tar").unlink()
    with pytest.raises(DataError, match=r"shards \("):
        streams(spec(folder), workers=2)[0].restore(stream.state())
    with pytest.raises(DataError, match="stands at step 0, not at 3"):
        next(streams(spec(tmp_path / "s"))[0].steps(3, 4))


def test_too_few_shards_are_refused_with_the_numbers(tmp_path: Path) -> None:
    folder = fill(tmp_path / "s", [8] * 3)
    with pytest.raises(DataError) as caught:
        streams(spec(folder), ranks=2, workers=2)
    assert str(caught.value) == (
        "s: 3 shards for 4 readers (2 processes x 2 workers), and each needs one of its own; use loop.num_workers=1, "
        "smaller shards (vlkit data shard), or data.stream.resample=true"
    )
    with pytest.raises(DataError, match="each needs one of its own; use smaller shards"):
        streams(spec(folder), batch=8, ranks=4)
    for rank in read(spec(folder, stream={"resample": True}), 4, ranks=2, workers=2):
        assert [len(batch.captions) for batch in rank] == [4] * 4


def test_shards_for_each_reader_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        streams(spec(fill(tmp_path / "s", [2] * 7)), batch=4, workers=2)
    assert "s: 7 shards, 3.5 for each of 2 readers" in caplog.text


def test_resampling_is_endless_and_even(tmp_path: Path) -> None:
    data = spec(fill(tmp_path / "s", [8] * 8), stream={"resample": True}, distinct_concepts=False)
    seen = Counter(n // 8 for batch in read(data, 304)[0] for n in numbers(batch))
    assert set(seen) == set(range(8))
    assert all(0.06 < count / 2432 < 0.19 for count in seen.values())
    assert sorted(seen.values())[0] != sorted(seen.values())[-1]  # drawn, not dealt


def test_sources_have_their_shares(tmp_path: Path) -> None:
    fill(tmp_path / "zh", [40] * 2, languages=("zh",))
    fill(tmp_path / "en", [40] * 4, languages=("en",))
    data = spec(tmp_path / "zh", tmp_path / "en")
    weighted = data.model_copy(
        update={
            "sources": tuple(s.model_copy(update={"weight": w}) for s, w in zip(data.sources, (0.7, 0.3), strict=True))
        }
    )
    for given, share in ((data, 1 / 3), (weighted, 0.7)):
        seen = Counter(source for batch in read(given, 1000, batch=2, images=False)[0] for source in batch.sources)
        assert abs(seen["zh"] / seen.total() - share) < 0.01


def test_languages_have_their_shares_whatever_the_shards_hold(tmp_path: Path) -> None:
    folder = fill(tmp_path / "en", [30] * 6, languages=("en",))
    fill(tmp_path / "both", [10] * 6, languages=("zh", "en"))
    for number, path in enumerate(sorted((tmp_path / "both").iterdir())):
        path.rename(folder / f"z{number}.tar")
    data = spec(folder, mixing={"kind": "weights", "weights": {"zh": 0.4, "en": 0.6}}, stream={"window_shards": 4})
    (batches,) = read(data, 1000, batch=2, images=False)
    seen = Counter(language for batch in batches for language in batch.languages)
    assert abs(seen["zh"] / seen.total() - 0.4) < 0.01
    single = data.model_copy(update={"language_batches": "single"})
    ranks = read(single, 300, ranks=2, images=False)
    counts = Counter(batch.languages for rank in ranks for batch in rank)
    assert set(counts) == {("en",) * 4, ("zh",) * 4}
    assert abs(counts[("zh",) * 4] / 600 - 0.4) < 0.06
    assert [b.languages for b in ranks[0]] == [b.languages for b in ranks[1]]  # all processes in one language


def test_languages_in_great_excess_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = fill(tmp_path / "en", [40] * 4, languages=("en",))
    fill(tmp_path / "zh", [4] * 4, languages=("zh",))
    for number, path in enumerate(sorted((tmp_path / "zh").iterdir())):
        path.rename(folder / f"z{number}.tar")
    data = spec(folder, mixing={"kind": "weights", "weights": {"zh": 0.5, "en": 0.5}}, stream={"window_shards": 8})
    read(data, 60)
    assert caplog.text.count("samples were passed by, more than were used") == 1


def test_a_language_that_the_shards_lack_ends_the_run(tmp_path: Path) -> None:
    data = spec(fill(tmp_path / "s", [20] * 4), mixing={"kind": "weights", "weights": {"en": 1, "sw": 1}})
    with pytest.raises(DataError, match=r"s: no caption in 'sw' in 12 windows .* make one source of each"):
        read(data, 50)


def test_no_concept_twice_in_a_batch_and_none_lost(tmp_path: Path) -> None:
    data = spec(fill(tmp_path / "s", [16] * 6, concepts=12))
    (batches,) = read(data, 36)
    for batch in batches:
        assert len(set(batch.concepts)) == 8
    seen = Counter(n for batch in batches for n in numbers(batch))
    assert len(seen) == 96 and set(seen.values()) <= {2, 3, 4}  # 3 epochs: held back a while, not dropped
    few = spec(fill(tmp_path / "few", [16] * 2, concepts=3))
    assert all(len(batch.captions) == 8 for batch in read(few, 8)[0])


def test_what_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "s", [8] * 2)
    table = {"kind": "folder", "path": "captions.csv"}
    shards = {"kind": "webdataset", "path": str(folder), "sampling": "stream"}
    index = {**shards, "sampling": "index"}
    mixed = DataSpec.model_validate({"sources": [shards, table]})
    assert streamed(mixed) and not streamed(DataSpec.model_validate({"sources": [{**shards, "sampling": "auto"}]}))
    assert streamed(DataSpec.model_validate({"sources": [{"kind": "webdataset", "path": "s3://b/{0..9}.tar"}]}))
    for data, why in (
        (mixed, "vlkit data shard captions.csv"),
        (DataSpec.model_validate({"sources": [shards, index]}), "sampling = index"),
        (spec(folder, holdout_concepts=3), "holdout_concepts needs an index"),
        (spec(folder, mixing={"kind": "temperature"}), "use kind weights"),
        (spec(folder, language_batches="single"), "needs data.mixing.kind = weights"),
    ):
        with pytest.raises(DataError, match=why):
            streams(data)
    with pytest.raises(DataError, match="cannot be shared evenly by 3"):
        streams(spec(fill(tmp_path / "t", [8] * 4)), ranks=3)


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_bad_images_are_passed_over_and_counted_by_shard(tmp_path: Path) -> None:
    folder = fill(tmp_path / "s", [20] * 3, bad=frozenset({21, 22, 25}))
    for workers in (0, 2):
        (stream,) = streams(spec(folder), workers=workers)
        seen = Counter(n for batch in stream.steps(0, 21) for n in numbers(batch))
        assert not {21, 22, 25} & set(seen)
        assert set(stream.bad.by_shard) == {"part001-0000.tar"} and stream.bad.by_shard["part001-0000.tar"] >= 3


def test_too_many_bad_samples_end_the_run_and_name_the_worst_shards(tmp_path: Path) -> None:
    folder = fill(tmp_path / "s", [20] * 3, bad=frozenset([*range(20, 40), 3]))
    for workers in (0, 2):
        (stream,) = streams(spec(folder, max_bad_share=0.003), workers=workers)
        with pytest.raises(DataError) as caught:
            list(stream.steps(0, 500))
        first, *named = str(caught.value).splitlines()
        assert "of the last 10,000 samples cannot be read, more than data.max_bad_share = 0.003 allows" in first
        assert named[0].startswith("  part001-0000.tar: ") and "n000" in named[0]
        assert named[1].startswith("  part000-0000.tar: ")


def test_only_the_recent_past_counts() -> None:
    bad = RecentBad(0.1, shards=10, recent=100)
    for _ in range(50):  # 10 % and never more
        bad.passed(45, [Bad("a.tar", str(n), "broken") for n in range(5)])
    bad.passed(100, [])
    bad.passed(10, [Bad("b.tar", str(n), "broken") for n in range(10)])
    with pytest.raises(DataError, match=r"11 of the last 100 .*\n  b.tar: 11 bad, such as 0: broken"):
        bad.passed(10, [Bad("b.tar", "10", "broken")])


def test_a_truncated_shard_gives_what_it_holds(tmp_path: Path) -> None:
    folder = fill(tmp_path / "s", [20] * 3)
    path = folder / "part001-0000.tar"
    path.write_bytes(path.read_bytes()[:30_000])
    (stream,) = streams(spec(folder))
    seen = {n for batch in stream.steps(0, 14) for n in numbers(batch)}
    assert {*range(20), *range(40, 60)} < seen and seen & set(range(20, 40)) == set(range(20, 34))
    assert stream.bad.by_shard["part001-0000.tar"] >= 1


def test_empty_shards_are_passed_over_and_nothing_but_empty_ones_is_an_error(tmp_path: Path) -> None:
    folder = fill(tmp_path / "s", [8, 0, 0, 0, 0, 8])
    seen = Counter(n for batch in read(spec(folder, stream={"window_shards": 1}), 4)[0] for n in numbers(batch))
    assert seen == dict.fromkeys(range(16), 2)
    empty = fill(tmp_path / "e", [0, 0, 0])
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"e: no sample to learn from in the .* shards of reader 0"):
            read(spec(empty), 3, workers=workers)


def test_unreadable_samples_only_end_the_run(tmp_path: Path) -> None:
    data = spec(fill(tmp_path / "s", [6] * 2, bad=frozenset(range(12))), max_bad_share=1.0)
    with pytest.raises(DataError, match="1000 unreadable samples in a row; the last: n0000"):
        read(data, 3)


def test_a_lost_shard_is_tolerated_up_to_the_share(tmp_path: Path) -> None:
    folder = fill(tmp_path / "s", [8] * 6)
    url = f"pipe:cat {folder}/part{{000..005}}-0000.tar"
    (folder / "part003-0000.tar").unlink()
    (stream,) = streams(spec(url, max_bad_share=0.2))
    seen = {n for batch in stream.steps(0, 5) for n in numbers(batch)}
    assert seen == set(range(48)) - set(range(24, 32))
    (reason,) = stream.bad.lost.values()
    assert "part003-0000.tar: cannot be fetched (2 tries): the command ended with code 1: cat: " in reason
    with pytest.raises(DataError, match=r"1 of 6 shards cannot be had, more than data.max_bad_share = 0.01 allows"):
        read(spec(url), 20)


def test_a_shard_lost_before_a_stop_stays_lost_so_that_the_sequence_is_the_same(tmp_path: Path) -> None:
    folder = fill(tmp_path / "s", [8] * 4)
    data = spec(f"pipe:cat {folder}/part{{000..003}}-0000.tar", stream={"window_shards": 4}, max_bad_share=0.5)
    kept = (folder / "part002-0000.tar").rename(tmp_path / "kept.tar")
    (stream,) = streams(data)
    whole = [row_facts(batch) for batch in stream.steps(0, 3)]
    (first,) = streams(data)
    list(first.steps(0, 1))
    kept.rename(folder / "part002-0000.tar")
    (second,) = streams(data)
    second.restore(first.state())
    assert [row_facts(batch) for batch in second.steps(1, 3)] == whole[1:]
    (folder / "part001-0000.tar").unlink()
    (third,) = streams(data)
    third.restore(first.state())
    with pytest.raises(DataError, match=r"gave 24 samples then and give 16 now \(pipe:cat .*part001"):
        list(third.steps(1, 3))


# ------------------------------------------------------------------------------------------------ shards from afar


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
    kept = list((files.home() / "shards").iterdir())
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
