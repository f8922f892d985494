"""Shards with numbered samples, and what streams of them give."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from tests.helpers.data_factory import encoded, tokenize, transform
from vlkit.data.build.writer import ShardWriter
from vlkit.data.stream.stream import Stream, open_stream
from vlkit.models.augment import Augment
from vlkit.models.dual_encoder.batch import PairBatch, PairPreparer
from vlkit.spec.dataset import DataSpec

FAST = {"retries": 1, "backoff": 0.0, "timeout": 5.0}


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


def preparer(data: DataSpec, *, images: bool = True) -> PairPreparer:
    return PairPreparer(transform if images else None, tokenize, Augment(data.augment))


def streams(
    data: DataSpec, *, batch: int = 8, workers: int = 0, ranks: int = 1, seed: int = 0, images: bool = True
) -> list[Stream]:
    return [
        Stream(
            open_stream(data, batch_size=batch, seed=seed, num_workers=workers, rank_of=(rank, ranks)),
            preparer=preparer(data, images=images),
        )
        for rank in range(ranks)
    ]


def numbers(batch: PairBatch) -> list[int]:
    return [int(caption.split()[1]) for caption in batch.captions]


def row_facts(batch: PairBatch) -> tuple[Any, ...]:
    assert batch.pixels_BCHW is not None and batch.tokens is not None
    return batch.captions, batch.languages, batch.sources, batch.pixels_BCHW.tolist(), batch.tokens.ids_BL.tolist()


def read(data: DataSpec, steps: int, **settings: Any) -> list[list[PairBatch]]:
    return [list(one.steps(0, steps)) for one in streams(data, **settings)]
