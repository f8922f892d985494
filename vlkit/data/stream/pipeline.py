"""Samples of a pipeline of the user's own: a WebDataset, or anything that gives samples one after the other.

A recipe names a function that returns the pipeline (``my.data:train``). It is imported when the run starts and called
in each reader, anew for each pass over the data, with ``epoch=0, 1, ...`` where it takes that. A pipeline of
``webdataset`` deals its shards to the readers by itself (``split_by_worker``, its default; each reader of a process is
a worker to it); of anything else reader n of N takes every N-th sample.

A sample is a ``vlkit.types.Sample`` or a dict: ``image`` (or ``jpg``, ``png``, ...; a PIL image, bytes or an array) or
a list ``images``; ``captions`` by language, or ``caption``, ``text`` or ``txt`` with ``language``, or the ``turns`` of
a conversation, also without an image; these may also stand in ``json``; optional ``key``, ``concept``, ``split``,
``license``, ``task``, ``translated``, ``keywords``.

The place of a reader is the number of samples it took in this pass. A resumed run calls the function again and passes
over so many: it goes on exactly where the pipeline gives the same samples in the same order when called again; where
it does not, that is told, and the run goes on.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from vlkit.data.batches.unreadable import UnreadableSample
from vlkit.data.formats.caption_forms import CaptionError, text_of
from vlkit.data.formats.conversation_forms import check_places
from vlkit.data.formats.images import SHARD_IMAGES, open_image
from vlkit.data.formats.sample_records import parse_record
from vlkit.errors import DataError, did_you_mean
from vlkit.foreign import parse_json
from vlkit.types import Sample

_log = logging.getLogger(__name__)
_WAITING = 64  # samples at most that wait for a batch that they fit
_BARREN = 100_000  # samples in a row without what was asked for


class PipelineSample(NamedTuple):
    """A sample of a pipeline, which is called ``shard`` in errors."""

    sample: Sample
    shard: str

    @property
    def key(self) -> str:
        """What it is called there."""
        return self.sample.key

    @property
    def concept(self) -> str:
        """What must not come twice in a batch."""
        return self.sample.concept or f"{self.shard}:{self.key}"

    def read(self) -> Sample:
        """The sample."""
        return self.sample


@dataclass(frozen=True)
class Pipeline:
    """The pipeline of one source, and what is wanted of it.

    ``object`` is ``module:function``; ``language`` is that of captions that name none; ``languages`` BCP 47 tags to
    learn from, None for all; ``task`` what samples teach that do not say it.
    """

    object: str
    name: str
    language: str | None = None
    languages: frozenset[str] | None = None
    task: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """It counts as one shard."""
        return (self.object,)

    def sample(self, value: Any, *, number: int) -> Sample:
        """What the pipeline gave as a sample.

        Raises:
            DataError: It is nothing that could be one.
            CaptionError: It has no captions, or wrong ones.
        """
        if isinstance(value, Sample):
            return replace(value, source=self.name, task=value.task or self.task)
        if not isinstance(value, Mapping):
            raise DataError(
                f"{self.object}: sample {number} is a {type(value).__name__}, expected a dict of an image and captions"
            )
        record = {**_json(value), **value}
        if "txt" in record:
            text = record["txt"]
            record.setdefault("caption", text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
        read = parse_record(record, language=self.language)
        if not (read.captions or read.turns):
            raise CaptionError(f"it has no captions, only: {', '.join(map(str, value))}")
        key = text_of(record, "key", text_of(record, "__key__", f"{number:09d}"))
        found = [record[name] for name in ("image", *SHARD_IMAGES) if record.get(name) is not None]
        images = record.get("images") or found[:1]
        check_places(read.turns, len(images))
        return Sample(
            key,
            tuple(one if callable(one) else partial(open_image, one, name=f"{key} of {self.object}") for one in images),
            read.captions,
            concept=read.concept,
            split=read.split,
            license=read.license,
            source=self.name,
            turns=read.turns,
            task=read.task or self.task,
            translated=read.translated,
            keywords=read.keywords,
        )


def find_pipeline(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; its module is imported.

    Raises:
        DataError: There is no such module or function, or it is none.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{name}: {error}; a module must be installed, or lie in a folder of PYTHONPATH (PYTHONPATH=. for this one)"
        ) from error
    except Exception as error:
        raise DataError(f"{name}: importing {module} failed: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise DataError(f"{name}: {module} has no {attribute!r}; {did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise DataError(f"{name}: is a {type(found).__name__}, expected a function that returns the samples")
    return found  # type: ignore[no-any-return]


class PipelineReader:
    """Samples of a pipeline for one reader (a worker of a process): number ``lane`` of ``lanes``; see the module.

    Attributes:
        bad: What could not be used since this list was last cleared.
        passed_by: Samples that no batch had use for.
    """

    def __init__(self, pipeline: Pipeline, *, lane: int, lanes: int) -> None:
        self.pipeline, self.lane, self.lanes = pipeline, lane, lanes
        self.bad: list[UnreadableSample] = []
        self.passed_by = 0
        self._make = find_pipeline(pipeline.object)
        self._waiting: dict[int, Sample] = {}
        self._samples: Iterator[Any] | None = None
        self._begin(0)

    def take(self, language: str | None, taken: Collection[str]) -> PipelineSample:
        """The next sample, of those that have a caption in ``language`` (None: any) and no concept in ``taken``.

        Samples that do not fit now wait for a later call. Where too many wait, a concept may come twice.

        Raises:
            DataError: There is no such sample in a whole pass, or the pipeline fails.
        """
        fruitless, sample = 0, self._fitting(language, taken)
        for _ in range(_BARREN):
            if sample is not None:
                return PipelineSample(sample, self.pipeline.object)
            number, drawn, over = self._next, None, False
            try:
                drawn = self._draw()
            except StopIteration:
                over = True
            if drawn is not None:
                self._waiting[number] = drawn
                sample = self._fitting(language, taken)
            if sample is None and (over or len(self._waiting) > _WAITING):
                sample = self._fitting(language, ())
                if sample is None and not over:
                    self._waiting.pop(next(iter(self._waiting)))
                    self.passed_by += 1
            if sample is None and over:
                if fruitless or not self._next:
                    break
                fruitless += 1
                self.passed_by += len(self._waiting)
                self._begin(self._pass + 1)
        raise DataError(
            f"{self.pipeline.object}: reader {self.lane} of {self.lanes} gets no sample to learn from (split train, "
            f"{'any language' if language is None else f'a caption in {language!r}'})"
        )

    def state(self) -> dict[str, Any]:
        """The reader's place, as JSON can hold it; ``keys`` is a checksum of what came before it."""
        waiting = list(self._waiting)
        return {
            "pass": self._pass, "next": self._next, "keys": self._keys, "waiting": waiting, "passed_by": self.passed_by
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a place that ``state`` gave: begins its pass again and passes over what was taken."""
        self.passed_by = int(state["passed_by"])
        self._begin(int(state["pass"]))
        while self._next < state["next"]:
            number = self._next
            try:
                sample = self._draw()
            except StopIteration:
                raise DataError(
                    f"{self.pipeline.object}: ends after {number} samples, and the run that is resumed had taken "
                    f"{state['next']}; resume when it gives what it gave, or use --overwrite"
                ) from None
            if sample is not None and number in state["waiting"]:
                self._waiting[number] = sample
        if self._keys != state["keys"]:
            _log.warning(
                "%s: does not give the samples again that it gave before; the run goes on, but not as it would have",
                self.pipeline.object,
            )
        self.bad.clear()  # they were counted before

    def close(self) -> None:
        """Lets go of the pipeline."""
        self._samples = iter(())

    def _begin(self, number: int) -> None:
        self._pass, self._next, self._keys = number, 0, 0
        self._waiting.clear()
        self._samples = None  # the function is called when the first sample is asked for

    def _opened(self) -> Iterator[Any]:
        from webdataset import DataPipeline

        takes_epoch = "epoch" in inspect.signature(self._make).parameters
        made: Iterable[Any] = self._make(**({"epoch": self._pass} if takes_epoch else {}))
        samples = iter(made)
        return samples if isinstance(made, DataPipeline) else islice(samples, self.lane, None, self.lanes)

    def _draw(self) -> Sample | None:
        """The next sample, None where it is not one to learn from; StopIteration at the end of a pass."""
        try:
            with _worker(self.lane, self.lanes):
                self._samples = self._samples or self._opened()
                value: Any = next(self._samples)
        except StopIteration:
            raise
        except Exception as error:
            raise DataError(
                f"{self.pipeline.object}: fails at sample {self._next}: {type(error).__name__}: {error}"
            ) from error
        number, self._next = self._next, self._next + 1
        try:
            sample = self.pipeline.sample(value, number=number)
        except CaptionError as error:
            name = str(value.get("key", value.get("__key__", f"sample {number}")))
            self.bad.append(UnreadableSample(self.pipeline.object, name, str(error)))
            return None
        self._keys = zlib.crc32(sample.key.encode("utf-8", "surrogatepass"), self._keys)
        languages = self.pipeline.languages
        wanted = sample.split == "train" and (languages is None or not languages.isdisjoint(sample.counts()))
        return sample if wanted else None

    def _fitting(self, language: str | None, taken: Collection[str]) -> Sample | None:
        for number, sample in self._waiting.items():
            fits = language is None or language in sample.counts()
            if fits and PipelineSample(sample, self.pipeline.object).concept not in taken:
                return self._waiting.pop(number)
        return None


@contextmanager
def _worker(number: int, count: int) -> Iterator[None]:
    """Tells webdataset which reader this is. Workers of a DataLoader change their shares when a run is resumed."""
    told = {"RANK": "0", "WORLD_SIZE": "1", "WORKER": str(number), "NUM_WORKERS": str(count)}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _json(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a WebDataset's ``json`` member holds, decoded or not."""
    found = value.get("json")
    if isinstance(found, bytes):
        found = parse_json(found, where="its json", error=CaptionError)
    return found if isinstance(found, Mapping) else {}
