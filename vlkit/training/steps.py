"""The optimizer steps of one stage: forward, backward, log, checkpoint. Every process takes them at the same time."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from io import FileIO
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlkit.errors import Stopped, VlkitError
from vlkit.files import disk_errors
from vlkit.models.trainable import Snapshot
from vlkit.progress import Bar, bar
from vlkit.spec.recipe import Recipe
from vlkit.spec.training import StageSpec
from vlkit.training.average import WeightAverage
from vlkit.training.batches import Batches
from vlkit.training.checkpoints import (
    Place,
    Saved,
    changing_tensors,
    random_state,
    restore_optimizer,
    restore_random,
    write_checkpoint,
)
from vlkit.training.memory import memory_told
from vlkit.training.meter import Meter, counted_together, joined
from vlkit.training.optimizer import learning_rate
from vlkit.training.run_folder import Run
from vlkit.training.signals import StopRequest, stop_on_signals
from vlkit.training.trackers import scalars
from vlkit.training.trainee import Trainee
from vlkit.training.watchers import Watchers
from vlkit.types import Batch, Loss, as_module

log = logging.getLogger(__name__)
_GRACE = 25.0  # seconds for the step under way after SIGTERM; torchrun kills after 30
_EMA = 0.9  # of the loss that the bar shows


class _Agreed(NamedTuple):
    """What all processes know of a step."""

    bad_loss: bool
    bad_norm: bool
    stop: bool
    due: bool


class StageStart(NamedTuple):
    """The model at the start of a stage, and digests of the weights that are then as it was built and stay so."""

    before: Snapshot
    untouched: Mapping[str, str]


class Steps:
    """The steps of one stage.

    ``start`` is the model at the start of the stage, and what training leaves alone; ``place`` where the run stands;
    ``begin`` is called before anything is written, once a step has shown that it can be taken.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        *,
        stage: StageSpec,
        trainee: Trainee,
        optimizer: torch.optim.Optimizer,
        start: StageStart,
        place: Place,
        watchers: Watchers,
        begin: Callable[[], None],
    ) -> None:
        self.recipe, self.run, self.stage, self.runtime = recipe, run, stage, trainee.runtime
        self.trainee, self.optimizer, self.start, self.place = trainee, optimizer, start, place
        self.watchers, self.begin = watchers, begin
        decay = recipe.optim.average
        self.average = None if decay is None else WeightAverage(as_module(trainee.model), decay)
        self.meter = Meter(recipe.loop.batch_size, workers=None)
        self.stopped: int | None = None  # the signal that came in the very last step of the run
        self._skipped_in_row, self._shown_loss = 0, math.nan
        self._saved_at = time.monotonic()

    def resume(self, saved: Saved) -> None:
        """Goes on with the random numbers and counts of a checkpoint."""
        rank, processes = self.runtime.ranks.rank, len(saved.processes)
        restore_random(saved.tensors, rank)
        restore_optimizer(as_module(self.trainee.model), self.optimizer, saved.tensors)
        if self.average is not None:
            self.average.restore(saved.under("average"))
        if rank < processes:
            self.meter.restore(saved.processes[rank]["window"])
        if processes != self.runtime.ranks.size and self.runtime.leads:
            log.warning(
                "the checkpoint was written by %d processes and %d go on: batches and learning rates are the same; "
                "dropout is not, and sums round differently",
                processes, self.runtime.ranks.size,
            )  # fmt: skip

    def take(self, batches: Batches) -> None:
        """All steps that are left of the stage.

        Raises:
            VlkitError: Too many steps in a row whose loss or gradient is not finite.
            KeyboardInterrupt: Ctrl-C or SIGTERM in any process; a checkpoint was written.
        """
        loop, size = self.recipe.loop, self.recipe.loop.batch_size
        self.meter.workers = batches.readers
        last = self.place.step + self.stage.steps - self.place.stage_step
        final = self.place.stage == len(self.recipe.stages) - 1
        total = (last - self.place.step) * size
        with (
            stop_on_signals(grace=None if self.runtime.ranks.size == 1 else _GRACE) as request,
            bar(self.stage.name, total=total, unit="images", quiet=not self.runtime.leads) as shown,
            ExitStack() as files,
        ):
            metrics: FileIO | None = None
            for number, batch in enumerate(self.meter.waiting_for(batches.steps(self.place.step, last))):
                agreed = self._step(batch, request)
                if number == 0:
                    self.begin()
                    metrics = files.enter_context(self._metrics())
                done = self.place.step == last
                if self.place.step % loop.log_every == 0 or done:
                    self._log(metrics, done=done)
                if self.watchers.due(self.place.step, done=done):
                    self._validate(metrics)
                self._advance(shown)
                if self.place.step % loop.checkpoint_every == 0 or done or agreed.stop or agreed.due:
                    request.saving = True
                    self._checkpoint(metrics, batches)
                    request.saving = False
                if agreed.stop:
                    number = request.signal or signal.SIGTERM
                    if done and final:  # what is left is to save the model
                        self.stopped = number
                        continue
                    raise Stopped(
                        f"stopped after step {self.place.step}; {self.run.path} keeps it, go on with --resume",
                        number=number,
                    )

    def _step(self, batch: Batch, request: StopRequest) -> _Agreed:
        done, steps = self.place.stage_step, self.stage.steps
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe.optim, done, steps=steps, peak=group["peak"])
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        with memory_told(self.recipe.loop, self.runtime):
            loss = self.trainee(batch)
            norm = self.trainee.clip(self.recipe.optim.clip_norm)
        agreed = self._agree(loss.total, norm, request)
        skipped = agreed.bad_loss or agreed.bad_norm
        self._lr, self._loss, self._norm = lr, loss, norm
        if skipped:
            self._skip(agreed)
        else:
            self._skipped_in_row = 0
            with memory_told(self.recipe.loop, self.runtime):  # its first step makes its averages
                self.optimizer.step()
        if self.average is not None:
            self.average.update(self.place.stage_step)
        place = self.place
        self.place = replace(
            place, step=place.step + 1, stage_step=place.stage_step + 1, skipped=place.skipped + skipped
        )
        return agreed

    def _agree(self, total: Tensor, norm: Tensor, request: StopRequest) -> _Agreed:
        """One small message a step: processes skip, stop and save together."""
        minutes = self.recipe.loop.checkpoint_minutes
        due = self.runtime.leads and minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        flags = torch.tensor([0.0, 0.0, request.signal is not None, due]).to(total.device)
        flags[0], flags[1] = ~total.detach().isfinite(), ~norm.isfinite()
        return _Agreed(*(flag > 0 for flag in self.runtime.ranks.all_reduce(flags, "max").tolist()))

    def _skip(self, agreed: _Agreed) -> None:
        self._skipped_in_row += 1
        figures = joined(self.runtime.host.gather_objects(_figures(self._loss)), finite=False)
        total = figures.pop("loss")
        parts = ", ".join(f"{name} {value:g}" for name, value in figures.items())
        step = self.place.step + 1
        what = f"the loss of step {step} is {total} ({parts})"
        if not agreed.bad_loss:
            what = f"the gradient of step {step} has length {self._norm.item()}"
        if self._skipped_in_row > self.recipe.loop.max_skipped_steps:
            raise VlkitError(
                f"{what}; start again with --overwrite and a lower optim.lr (now {self._lr:g}), more "
                f"optim.warmup_steps or a lower optim.clip_norm"
            )
        if self.runtime.leads:
            log.warning("%s; the step is skipped (%d so far)", what, self.place.skipped + 1)

    def _advance(self, shown: Bar) -> None:
        if self.runtime.leads:
            loss = self._loss.total.item()
            known = math.isfinite(self._shown_loss)
            if math.isfinite(loss):
                self._shown_loss = _EMA * self._shown_loss + (1 - _EMA) * loss if known else loss
            shown.advance(self.recipe.loop.batch_size, step=self.place.step, loss=f"{self._shown_loss:.3f}")

    def _log(self, metrics: FileIO | None, *, done: bool) -> None:
        rows = self._rows() if done else {}
        measured = self.meter.figures()
        line = joined(self.runtime.host.gather_objects({**_figures(self._loss), **measured}))
        if metrics is None:
            return
        figures = {name: value for name, value in line.items() if name not in measured}
        norm = self._norm.item()
        record = {
            "step": self.place.step,
            "stage": self.stage.name,
            **figures,
            "lr": self._lr,
            **self.trainee.model.figures(),
            "grad_norm": norm if math.isfinite(norm) else None,
            "skipped_steps": self.place.skipped,
            **{name: line[name] for name in measured if name in line},
            **rows,
        }
        self._write_line(metrics, record)

    def _rows(self) -> dict[str, Any]:
        """How many rows of each language and source this stage has seen, for its last line."""
        counts = counted_together(self.runtime.host.gather_objects(self.meter.totals))
        if self.runtime.leads:
            rows = ", ".join(f"{language} {count:,}" for language, count in counts["languages"].items())
            log.info("stage %s learned from %s", self.stage.name, rows or "no rows with a language")
        return {"rows": counts}

    def _write_line(self, metrics: FileIO, record: dict[str, Any]) -> None:
        line = memoryview((json.dumps(record) + "\n").encode())
        with disk_errors(self.run.metrics_path, then="go on with --resume"):
            while line:  # a disk that has room for half of it takes that half
                line = line[metrics.write(line) :]
        for tracker in self.watchers.trackers:
            tracker.log(self.place.step, scalars(record))

    def _validate(self, metrics: FileIO | None) -> None:
        """Measures the model as it would be used now: with averaged weights where an average is kept."""
        with nullcontext() if self.average is None else self.average.in_place():
            self.trainee.settle()
            found = self.watchers.measure(self.trainee.home, self.runtime, step=self.place.step)
        self.trainee.settle()
        if metrics is not None:
            self._write_line(metrics, {"step": self.place.step, "stage": self.stage.name, "validation": found})

    def finish(self) -> None:
        """Ends the stage: an average takes the place of the weights, and the whole model is brought up to date."""
        if self.average is not None:
            self.average.exchange()
        self.trainee.settle()

    def _checkpoint(self, metrics: FileIO | None, batches: Batches) -> None:
        self.trainee.settle()
        left_out = self.start.untouched
        tensors = changing_tensors(self.trainee, self.optimizer, left_out=left_out, average=self.average)
        notes = {"data": batches.state(), "window": self.meter.state(), "random": random_state()}
        processes = self.runtime.host.gather_objects(notes)
        self.runtime.first(lambda: self._write(tensors, processes, metrics))
        self._saved_at = time.monotonic()

    def _write(self, tensors: dict[str, Tensor], processes: list[dict[str, Any]], metrics: FileIO | None) -> None:
        if metrics is not None:
            with disk_errors(self.run.metrics_path, then="go on with --resume"):
                os.fsync(metrics.fileno())
            self.place = replace(self.place, metrics_bytes=metrics.tell())
        write_checkpoint(
            self.run.checkpoints,
            tensors,
            place=self.place,
            before=self.start.before,
            processes=processes,
            untouched=self.start.untouched,
            keep=self.recipe.loop.keep_checkpoints,
        )

    @contextmanager
    def _metrics(self) -> Iterator[FileIO | None]:
        if not self.runtime.leads:
            yield None
            return
        with FileIO(self.run.metrics_path, "a") as stream:
            yield stream


def _figures(loss: Loss) -> dict[str, float]:
    return {"loss": loss.total.item(), **{name: value.item() for name, value in loss.parts.items()}}
