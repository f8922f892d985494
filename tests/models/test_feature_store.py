"""The store of features: what was computed once is never computed again, and is what would be computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.ranks import on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.models import feature_store
from vlkit.models.feature_store import FeatureStore, key_of, shared_folder

KEYS = np.array([key_of(number) for number in range(6)])
VALUES = torch.arange(18.0).view(6, 3)


class Computing:
    """Gives VALUES, two rows a block, and counts what was asked of it."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.fail_at = fail_at

    def __call__(self, rows: list[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
        self.asked += rows
        for start in range(0, len(rows), 2):
            block = rows[start : start + 2]
            if self.fail_at in block:
                raise RuntimeError("interrupted")
            yield block, VALUES[block]


def written(folder: Path) -> FeatureStore:
    """VALUES in one file of three blocks."""
    store = FeatureStore(folder)
    store.fetch(KEYS, Computing())
    store.flush()
    return store


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_is_known_is_not_asked_for_again(tmp_path: Path) -> None:
    compute = Computing()
    repeated = FeatureStore(tmp_path / "1").fetch(KEYS[[0, 1, 0, 3]], compute)
    assert torch.equal(repeated, VALUES[[0, 1, 0, 3]]) and compute.asked == [0, 1, 3]
    store = FeatureStore(tmp_path / "2")
    compute = Computing()
    assert torch.equal(store.fetch(KEYS, compute), VALUES) and compute.asked == [0, 1, 2, 3, 4, 5]
    store.flush()
    again = FeatureStore(tmp_path / "2")
    compute = Computing()
    assert torch.equal(again.fetch(KEYS[::-1], compute), VALUES.flip(0)) and compute.asked == []
    other = FeatureStore(tmp_path / "3")
    other.fetch(KEYS, compute)
    assert compute.asked == [0, 1, 2, 3, 4, 5]


def test_an_interrupted_computation_keeps_what_was_done(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    with pytest.raises(RuntimeError, match="interrupted"):
        store.fetch(KEYS, Computing(fail_at=4))
    store.flush()
    again, compute = FeatureStore(tmp_path), Computing()
    assert torch.equal(again.fetch(KEYS, compute), VALUES)
    assert compute.asked == [4, 5]


def test_a_long_computation_is_written_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 40))
    monkeypatch.setattr(feature_store.time, "monotonic", lambda: next(clock))
    store = FeatureStore(tmp_path)
    with pytest.raises(RuntimeError, match="interrupted"):
        store.fetch(KEYS, Computing(fail_at=5))  # and never flushed, as after kill -9
    compute = Computing()
    FeatureStore(tmp_path).fetch(KEYS, compute)
    assert compute.asked == [4, 5]


def test_a_batch_is_not_worth_a_write(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "new")
    for number, row in enumerate(VALUES):
        store.fetch(KEYS[[number]], lambda rows, row=row: [(rows, row[None])])
    assert not (tmp_path / "new").exists()
    name = store.flush()
    assert store.flush() is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]
    assert torch.equal(FeatureStore(tmp_path / "new").fetch(KEYS, Computing(fail_at=0)), VALUES)


def test_much_that_waits_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "_FILE_BYTES", 4 * 12)
    FeatureStore(tmp_path).fetch(KEYS, Computing())
    assert len(list(tmp_path.iterdir())) == 1  # four rows; the other two are not worth a write


def test_to_add_writes_what_is_added_and_leaves_the_rest(tmp_path: Path) -> None:
    written(tmp_path)
    old = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    store = FeatureStore(tmp_path)
    store.fetch(np.array([key_of("new")]), lambda rows: [(rows, torch.ones(1, 3))])
    name = store.flush()
    assert {path.name for path in tmp_path.iterdir()} == {name, *(path.name for path in old)}
    assert all((path.read_bytes(), path.stat().st_mtime_ns) == before for path, before in old.items())
    assert load_file(tmp_path / name)["rows"].tolist() == [[1.0, 1.0, 1.0]]


def test_inputs_left_out_are_zero_and_asked_for_again(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "1")
    found = store.fetch(KEYS, lambda rows: [([1, 3], VALUES[[1, 3]])])
    assert torch.equal(found, VALUES * torch.tensor([0, 1, 0, 1, 0, 0])[:, None])
    compute = Computing()
    assert torch.equal(store.fetch(KEYS, compute), VALUES)
    assert compute.asked == [0, 2, 4, 5]
    with pytest.raises(VlkitError, match=r"^there are no features of any of 6 inputs$"):
        FeatureStore(tmp_path / "9").fetch(KEYS, lambda rows: [])


@pytest.mark.parametrize(
    ("damage", "again"),
    [("cut", [4, 5]), ("flip", [2, 3]), ("key", [0, 1]), ("empty", range(6)), ("text", range(6)), ("gone", range(6))],
)
def test_what_is_damaged_is_computed_again_and_nothing_else(
    tmp_path: Path, damage: str, again: range, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path)
    path = only_file(tmp_path)
    raw = path.read_bytes()
    row, key = len(raw) - 4 * 10, len(raw) - 4 * 18 - 8 * 6
    {
        "cut": lambda: path.write_bytes(raw[:-5]),
        "flip": lambda: path.write_bytes(raw[:row] + bytes([raw[row] ^ 1]) + raw[row + 1 :]),
        "key": lambda: path.write_bytes(raw[:key] + bytes([raw[key] ^ 1]) + raw[key + 1 :]),
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_bytes(b"hello"),
        "gone": path.unlink,
    }[damage]()
    with caplog.at_level(logging.WARNING):
        store, compute = FeatureStore(tmp_path), Computing()
        assert torch.equal(store.fetch(KEYS, compute), VALUES) and compute.asked == list(again)
    warned = [message for message in caplog.messages if message.startswith(f"features in {path} are damaged (")]
    assert len(warned) == len(caplog.messages) == (damage != "gone")
    store.flush()
    caplog.clear()
    assert torch.equal(FeatureStore(tmp_path).fetch(KEYS, Computing(fail_at=0)), VALUES)
    assert not caplog.messages


def test_who_does_not_write_leaves_damaged_files_and_uses_the_good_blocks(tmp_path: Path) -> None:
    written(tmp_path)
    path = only_file(tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    reader = FeatureStore(tmp_path, writes=False)
    place = reader.find(KEYS)
    assert (place >= 0).tolist() == [True, True, True, True, False, False]
    assert torch.equal(reader.read(place), VALUES * torch.tensor([1, 1, 1, 1, 0, 0])[:, None])
    assert path.read_bytes() != raw and only_file(tmp_path) == path


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(VlkitError, match=r"^the encoder gave features that are not finite for inputs 2 to 3$"):
        FeatureStore(tmp_path).fetch(KEYS, lambda rows: [([2, 3], VALUES[[2, 3]] * value)])


def test_keys_hang_on_every_part() -> None:
    parts = [("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", ""), (b"ab", b"d"), ("ab", 1), ("ab", None)]
    assert len({key_of(*part) for part in parts}) == len(parts)
    assert key_of(b"ab", "c") == key_of("ab", b"c")
    assert shared_folder({"a": 1}) != shared_folder({"a": 2})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_grids_of_tokens_in_each_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(6, 5, 7, generator=generator)
    store = FeatureStore(tmp_path, dtype=dtype)
    store.add(KEYS[:4], grid[:4])
    store.add(KEYS[4:], grid[4:])
    first = store.read(store.find(KEYS))
    store.flush()
    for one in (store, FeatureStore(tmp_path, dtype=dtype)):
        found = one.read(one.find(KEYS[::-1]))
        assert found.dtype == dtype and torch.equal(found, grid.to(dtype).flip(0)) and torch.equal(first, found.flip(0))
    with pytest.raises(VlkitError, match=r"^features of shape \[5\] beside others of shape \[5, 7\]$"):
        store.add(np.array([key_of("x")]), torch.zeros(1, 5))


def test_files_of_another_precision_or_shape_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path)
    assert (FeatureStore(tmp_path, dtype=torch.float16, writes=False).find(KEYS) < 0).all()
    assert "its rows are torch.float32 of shape [3]" in caplog.text


def test_rows_are_found_in_any_order_over_many_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    keys, rows = rng.integers(-(2**62), 2**62, 500), torch.randn(500, 3)
    store = FeatureStore(tmp_path)
    assert (store.find(keys) < 0).all()
    for start in range(0, 400, 7):
        stop = min(start + 7, 400)
        store.add(keys[start:stop], rows[start:stop])
        if start % 35 == 0:
            store.flush()
    for one in (store, FeatureStore(tmp_path)):
        order = rng.permutation(500)
        place = one.find(keys[order])
        known = order < (400 if one is store else 392)
        assert (place >= 0).tolist() == known.tolist()
        assert torch.equal(one.read(place), rows[order] * torch.from_numpy(known)[:, None])


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells memory by /proc")
def test_memory_holds_the_rows_asked_for_and_not_the_data(tmp_path: Path) -> None:
    count, width = 64_000, 512  # 131 MB
    generator = torch.Generator().manual_seed(0)
    store = FeatureStore(tmp_path)
    for start in range(0, count, 8000):
        store.add(np.arange(start, start + 8000), torch.randn(8000, width, generator=generator))
        store.flush()
    del store
    order = np.random.default_rng(0).permutation(count)
    before, most = _resident(), 0
    reader = FeatureStore(tmp_path)
    place = reader.find(order)
    assert (place >= 0).all()
    for start in range(0, count, 500):
        assert reader.read(place[start : start + 500]).shape == (500, width)
        most = max(most, _resident() - before)
    assert most < count * width * 4 / 8


def _own_rows(folder: str) -> list[float]:
    ranks = Ranks.world()
    store = FeatureStore(Path(folder), names=[])
    mine = np.arange(6)[ranks.rank :: ranks.size]
    store.add(KEYS[mine], VALUES[mine])
    store.flush()
    ranks.barrier()
    store.include(FeatureStore.names(Path(folder)))
    rows: list[float] = store.read(store.find(KEYS)).flatten().tolist()
    return rows


def test_several_processes_write_files_of_their_own(tmp_path: Path) -> None:
    assert on_ranks(2, _own_rows, str(tmp_path)) == [VALUES.flatten().tolist()] * 2
    assert len(list(tmp_path.iterdir())) == 2
