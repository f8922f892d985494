"""Streams of shards: every sample once an epoch, the same sequence after a kill, nothing that hangs."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.stream_factory import fill, numbers, read, row_facts, spec, streams
from vlkit.data.batches.unreadable import RecentBad, UnreadableSample
from vlkit.data.plan.pairs import streamed
from vlkit.data.stream.remote import fetch
from vlkit.data.stream.stream import Stream
from vlkit.errors import DataError
from vlkit.spec.dataset import DataSpec, StreamSpec


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))


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
            first, second = (Stream(stream.plan, preparer=stream.preparer) for _ in range(2))
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

    monkeypatch.setattr("vlkit.data.stream.windows.fetch", counted)
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
        bad.passed(45, [UnreadableSample("a.tar", str(n), "broken") for n in range(5)])
    bad.passed(100, [])
    bad.passed(10, [UnreadableSample("b.tar", str(n), "broken") for n in range(10)])
    with pytest.raises(DataError, match=r"11 of the last 100 .*\n  b.tar: 11 bad, such as 0: broken"):
        bad.passed(10, [UnreadableSample("b.tar", "10", "broken")])


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
