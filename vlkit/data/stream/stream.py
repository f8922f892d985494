"""Batches out of shards that are read in windows: no index of all samples, no shuffle buffer, exact resume.

A lane is a worker of a process. Lane ``n`` of a process makes the batches of steps n, n + workers, ...; its place is a
few numbers (``ShardReader.state``) that travel with each batch, so that a run resumes from the batch it stopped at.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from vlkit import files
from vlkit.data.batches.unreadable import ATTEMPTS, RecentBad, UnreadableSample
from vlkit.data.batches.workers import in_workers
from vlkit.data.formats.caption_forms import tag
from vlkit.data.plan.mixes import settled
from vlkit.data.plan.sampling import chosen_languages, language_weights
from vlkit.data.plan.weighted import Quotas
from vlkit.data.sources.open import built_path, source_names, task_of
from vlkit.data.stream.pipeline import Pipeline, PipelineReader, PipelineSample, find_pipeline
from vlkit.data.stream.remote import list_shards, spool_folder
from vlkit.data.stream.windows import ShardReader, Shards, ShardSample
from vlkit.errors import DataError, VlkitError
from vlkit.spec.dataset import DataSpec, ProportionalMixing, TemperatureMixing, TieredMixing, WeightsMixing
from vlkit.spec.sources import BuiltSource, FolderSource, PipelineSource, WebDatasetSource
from vlkit.types import Batch, Pick, Preparer, Sample

_log = logging.getLogger(__name__)
_ROW, _SOURCE, _LANGUAGE = 31, 32, 33  # streams of random numbers that must not meet


@dataclass(frozen=True)
class StreamPlan:
    """What the lanes of all processes share; see open_stream."""

    data: DataSpec
    shards: tuple[Shards | Pipeline, ...]
    batch_size: int
    seed: int
    num_workers: int
    rank: int = 0
    ranks: int = 1

    @property
    def workers(self) -> int:
        """Lanes of this process: one at least, as it reads by itself without workers."""
        return max(1, self.num_workers)

    @property
    def count(self) -> int:
        """Shards of all sources."""
        return sum(len(shards.names) for shards in self.shards)

    @property
    def mark(self) -> dict[str, Any]:
        """What has to be equal for a place in the stream to mean the same again."""
        return {
            "processes": self.ranks,
            "process": self.rank,
            "workers": self.workers,
            "batch_size": self.batch_size,
            "window_shards": self.data.stream.window_shards,
            "shards": files.digest([list(shards.names) for shards in self.shards]),
        }


def open_stream(
    data: DataSpec, *, batch_size: int, seed: int, num_workers: int, rank_of: tuple[int, int] = (0, 1)
) -> StreamPlan:
    """Lists the shards of all sources and checks that every reader gets one.

    ``batch_size`` is of all processes, which divide it; ``num_workers`` those of each training process, 0 reads in it;
    ``rank_of`` this process's rank and the number of processes.

    Raises:
        DataError: A source or setting that cannot be streamed, no shards, or fewer shards than readers.
    """
    rank, ranks = rank_of
    _check(data, batch_size=batch_size, ranks=ranks)
    if isinstance(data.mixing, ProportionalMixing | TieredMixing):
        shares = settled(data.mixing, dict.fromkeys((tag(code) for code in data.languages or ()), 1), data.languages)
        data = data.model_copy(update={"mixing": shares})
    readers = ranks * max(1, num_workers)
    wanted = chosen_languages(data.mixing, data.languages)
    languages = None if wanted is None else frozenset(tag(code) for code in wanted)
    found: list[Shards | Pipeline] = []
    for number, (source, name) in enumerate(zip(data.sources, source_names(data.sources), strict=True)):
        if isinstance(source, WebDatasetSource):
            names, language = list_shards(source.path), source.language
        elif isinstance(source, BuiltSource):
            names, language = list_shards(built_path(source)), None
        elif isinstance(source, PipelineSource):
            find_pipeline(source.object)  # fails here, before readers start
            found.append(Pipeline(source.object, name, source.language, languages, task_of(source)))
            continue
        else:  # refused by _check
            continue
        if not data.stream.resample:
            _check_readers(name, len(names), ranks=ranks, workers=max(1, num_workers))
        _log.info("%s: %d shards, %.1f for each of %d readers", name, len(names), len(names) / readers, readers)
        found.append(Shards(names, number, name, language, languages, task_of(source)))
    return StreamPlan(data, tuple(found), batch_size, seed, num_workers, rank, ranks)


def _check(data: DataSpec, *, batch_size: int, ranks: int) -> None:
    for number, source in enumerate(data.sources):
        if not isinstance(source, WebDatasetSource | BuiltSource | PipelineSource):
            what, path = f"of kind {source.kind}", "RECIPE.yaml"
            if isinstance(source, FolderSource):
                what, path = "a table", source.path
            raise DataError(
                f"data.sources.{number} is {what}, which cannot be streamed beside shards; turn it into shards: "
                f"vlkit data shard {path} --out FOLDER"
            )
        if own := [key for key in ("languages", "stages") if getattr(source, key) is not None]:
            raise DataError(
                f"data.sources.{number}.{own[0]}: streams draw from all sources alike; leave it out, or read local "
                "shards with sampling: index"
            )
        if isinstance(source, PipelineSource) and source.weight is None and len(data.sources) > 1:
            raise DataError(
                f"data.sources.{number} is a pipeline, whose size is not known; give each of the sources a weight"
            )
        if isinstance(source, WebDatasetSource) and source.sampling == "index":
            raise DataError(
                f"data.sources.{number}.sampling = index, while another source is streamed; leave it out for this one, "
                f"or give every source sampling: index (local files only)"
            )
    if data.holdout_concepts:
        raise DataError(
            "data.holdout_concepts needs an index of all samples, which streams do not have; give the shards a split "
            "(vlkit data shard), or read local shards with sampling: index"
        )
    if isinstance(data.mixing, TemperatureMixing):
        raise DataError(
            "data.mixing.kind = temperature needs the counts of all captions, which streams lack; use kind weights"
        )
    if isinstance(data.mixing, ProportionalMixing | TieredMixing) and data.languages is None:
        raise DataError(
            f"data.mixing.kind = {data.mixing.kind} needs to know the languages of the data, and streams are not read "
            "before: name them in data.languages"
        )
    language_first = isinstance(data.mixing, WeightsMixing | ProportionalMixing | TieredMixing)
    if data.language_batches == "single" and not language_first:
        raise DataError("data.language_batches = single needs data.mixing.kind = weights where shards are streamed")
    if batch_size % ranks:
        raise DataError(f"loop.batch_size = {batch_size} cannot be shared evenly by {ranks} processes")


def _check_readers(name: str, shards: int, *, ranks: int, workers: int) -> None:
    if shards >= ranks * workers:
        return
    fits = shards // ranks
    fewer = f"loop.num_workers={fits}, " if fits else ""
    raise DataError(
        f"{name}: {shards} shards for {ranks * workers} readers ({ranks} processes x {workers} workers), and each "
        f"needs one of its own; use {fewer}smaller shards (vlkit data shard), or data.stream.resample=true"
    )


class Step(NamedTuple):
    """A batch, the place of its lane behind it, and what could not be read. Errors go as text out of workers."""

    batch: Batch | None
    place: list[dict[str, Any]]
    bad: list[UnreadableSample]
    error: str = ""


@dataclass
class _Reading(IterableDataset[Step]):
    plan: StreamPlan
    start: int
    stop: int
    places: Mapping[str, list[dict[str, Any]]]
    preparer: Preparer
    folder: Path

    def __iter__(self) -> Iterator[Step]:
        info = get_worker_info()
        first = self.start + (0 if info is None else info.id)  # DataLoader asks its workers in turn
        lane: _Lane | None = None
        try:
            lane = _Lane(self, number=first % self.plan.workers)
            for step in range(first, self.stop, self.plan.workers):
                batch, bad = lane.batch(step)
                yield Step(batch, lane.state(), bad)
        except VlkitError as error:
            yield Step(None, [], lane.bad() if lane else [], str(error))
        finally:
            if lane is not None:
                lane.close()


class _Lane:
    def __init__(self, reading: _Reading, *, number: int) -> None:
        plan = reading.plan
        self.plan, self.reading = plan, reading
        lane, lanes = plan.rank * plan.workers + number, plan.ranks * plan.workers
        spec, seed, folder = plan.data.stream, plan.seed, reading.folder
        self.readers: list[ShardReader | PipelineReader] = [
            ShardReader(source, spec=spec, seed=seed, lane=lane, lanes=lanes, folder=folder)
            if isinstance(source, Shards)
            else PipelineReader(source, lane=lane, lanes=lanes)
            for source in plan.shards
        ]
        weights = [source.weight or 0.0 for source in plan.data.sources]
        sizes = [float(len(shards.names)) for shards in plan.shards]
        self.sources = Quotas(weights if any(weights) else sizes, rows=plan.batch_size, seed=[plan.seed, _SOURCE])
        mixing = plan.data.mixing
        self.weighted = sorted({tag(code) for code in mixing.weights}) if isinstance(mixing, WeightsMixing) else []
        self.single = plan.data.language_batches == "single"
        if self.weighted:
            shares = language_weights(mixing, self.weighted).tolist()
            rows = 1 if self.single else plan.batch_size
            self.languages = Quotas(shares, rows=rows, seed=[plan.seed, _LANGUAGE])
        for reader, place in zip(self.readers, reading.places.get(str(number), []), strict=False):
            reader.restore(place)

    def batch(self, step: int) -> tuple[Batch, list[UnreadableSample]]:
        """This process's rows of a step, and what could not be read on the way."""
        plan = self.plan
        mine = slice(plan.rank, None, plan.ranks)
        sources = self.sources.draw(step)[0][mine].tolist()
        wanted: list[str | None] = [None] * len(sources)
        if self.weighted:
            drawn = self.languages.draw(step)[0]
            drawn = np.repeat(drawn, len(sources)) if self.single else drawn[mine]
            wanted = [self.weighted[number] for number in drawn.tolist()]
        taken: set[str] = set()
        rows = []
        for row, (number, language) in enumerate(zip(sources, wanted, strict=True)):
            random = np.random.default_rng([plan.seed, _ROW, step, plan.rank, row])
            found, prepared = self._row(number, language, taken, random)
            taken.add(found.concept)
            rows.append(prepared)
        return self.reading.preparer.collate(rows), self.bad()

    def _row(
        self, number: int, language: str | None, taken: set[str], random: np.random.Generator
    ) -> tuple[ShardSample | PipelineSample, Any]:
        reader, source = self.readers[number], self.plan.shards[number]
        avoided = taken if self.plan.data.distinct_concepts else ()
        for _ in range(ATTEMPTS):
            found = reader.take(language, avoided)
            try:
                return found, self._read(found.read(), source.languages, language, random)
            except DataError as error:
                reader.bad.append(UnreadableSample(found.shard, found.key, str(error)))
        last = reader.bad[-1]
        raise DataError(
            f"{source.name}: {ATTEMPTS} unreadable samples in a row; the last: {last.key} in {last.shard}: "
            f"{last.reason}"
        )

    def _read(
        self, sample: Sample, languages: frozenset[str] | None, language: str | None, random: np.random.Generator
    ) -> Any:
        counts = sample.counts()
        if language is None:
            known = sorted(code for code in counts if languages is None or code in languages)
            chances = language_weights(self.plan.data.mixing, known)
            language = known[int(random.choice(len(known), p=chances / chances.sum()))]
        number, view = int(random.integers(2**31)), int(random.integers(2**63))
        return self.reading.preparer.row(sample, Pick(-1, language, number % counts[language], view))

    def bad(self) -> list[UnreadableSample]:
        """What could not be read since the last call."""
        found = [one for reader in self.readers for one in reader.bad]
        for reader in self.readers:
            reader.bad.clear()
        return found

    def state(self) -> list[dict[str, Any]]:
        """The places of the readers."""
        return [reader.state() for reader in self.readers]

    def close(self) -> None:
        """Deletes what was fetched."""
        for reader in self.readers:
            reader.close()


class Stream:
    """The batches of this process, step by step, and the place behind the last one; the model's preparer makes rows."""

    def __init__(self, plan: StreamPlan, *, preparer: Preparer) -> None:
        self.plan, self.preparer = plan, preparer
        self.bad = RecentBad(plan.data.max_bad_share, shards=plan.count)
        self._step, self._told = 0, False
        self._places: dict[str, list[dict[str, Any]]] = {}

    @property
    def readers(self) -> int:
        """Processes that read samples; 0 where this one does."""
        return self.plan.num_workers

    def state(self) -> dict[str, Any]:
        """The place behind the last batch that ``steps`` gave, as JSON can hold it."""
        return {**self.plan.mark, "step": self._step, "lanes": dict(self._places)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a place that ``state`` gave, in this run or the one that is resumed; ``{}`` is the start.

        Raises:
            DataError: Processes, workers, batch size or shards are others than they were.
        """
        if not state:
            return
        changed = [
            f"{key.replace('_', ' ')} ({state.get(key)} then, {value} now)"
            for key, value in self.plan.mark.items()
            if state.get(key) != value
        ]
        if changed:
            raise DataError(
                f"cannot go on in the stream of shards: {', '.join(changed)} changed; resume with what the run was "
                f"started with, or start anew with --overwrite"
            )
        self._step, self._places = int(state["step"]), dict(state["lanes"])

    def steps(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps ``start`` to ``stop - 1``.

        Raises:
            DataError: ``start`` is not the step behind the last one; unreadable data above the limit.
        """
        if start != self._step:
            raise DataError(
                f"the stream stands at step {self._step}, not at {start}; restore the state of step {start}"
            )
        with spool_folder() as folder:
            reading = _Reading(self.plan, start, stop, self._places, self.preparer, folder)
            for step, item in enumerate(in_workers(reading, self.plan.num_workers), start):
                self.bad.passed(0 if item.batch is None else len(item.batch), item.bad)
                if item.batch is None:
                    raise DataError(item.error)
                self._tell_passed_by(step, len(item.batch))
                self._step, self._places[str(step % self.plan.workers)] = step + 1, item.place
                yield item.batch

    def _tell_passed_by(self, step: int, rows: int) -> None:
        passed = sum(place["passed_by"] for places in self._places.values() for place in places)
        if not self._told and passed > (step + 1) * rows:
            self._told = True
            _log.warning(
                "%d samples were passed by, more than were used: their languages are above the weights of data.mixing; "
                "one source of each language, with weights, fetches less",
                passed,
            )
