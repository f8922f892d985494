"""The one training loop: it knows stages and what stands before their steps, and nothing of what is trained."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vlkit import notebook
from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.plan.pairs import plan_pairs, streamed
from vlkit.data.plan.sampling import PairSampler
from vlkit.data.sources.combine import problems
from vlkit.data.sources.open import open_sources
from vlkit.data.stream.stream import Stream
from vlkit.distributed.runtime import Runtime, share_of, started
from vlkit.distributed.sharding import check_equal, share
from vlkit.errors import Stopped, VlkitError
from vlkit.models.feature_cache import FrozenPart
from vlkit.models.folder import save
from vlkit.models.registry import build, module_of
from vlkit.models.trainable import (
    Report,
    Snapshot,
    changed,
    check_moved,
    parameter_counts,
    set_trainable,
    snapshot,
    trainable_report,
    training_batch_norms,
)
from vlkit.objectives.context import Context
from vlkit.objectives.weighted_sum import WeightedSum, build_objective, needs_of
from vlkit.outputs import locked
from vlkit.spec.load import load_recipe
from vlkit.spec.objectives import LossSpec
from vlkit.spec.recipe import Recipe
from vlkit.spec.sources import learned_in
from vlkit.spec.training import StageSpec
from vlkit.training.batches import Batches, LookedUpBatches, PlannedBatches, stream_plan
from vlkit.training.checkpoints import Place, Saved, read_checkpoint, restore_model, untouched
from vlkit.training.frozen_features import FrozenFeatures
from vlkit.training.optimizer import build_optimizer, check_stages, peaks_of
from vlkit.training.run_folder import Run, begin_run, cut_metrics, open_run, recipe_digest, run_folder
from vlkit.training.steps import StageStart, Steps
from vlkit.training.switches import compiled, memory_saved
from vlkit.training.trainee import Trainee
from vlkit.training.watchers import Watchers
from vlkit.types import FrozenTables, Model, Source, Start, as_module

log = logging.getLogger(__name__)
Show = Callable[[str, Report], None]


def train(
    recipe: Recipe | str | PathLike[str], *, resume: bool = False, overwrite: bool = False, show: Show | None = None
) -> Run:
    """Trains what a recipe describes and writes the run folder; under torchrun, together with the other processes.

    A run that was killed goes on with ``resume=True`` from its last checkpoint; on a CPU its losses are then those of
    an uninterrupted run, bit for bit, given the same number of threads and processes.

    Args:
        recipe: What to build and train, on what, and how: a recipe, its YAML file, or the name of a shipped one
            (``contrastive/tiny``). For other values in it: ``train(vlkit.load_recipe(name, ["optim.lr=1e-4"]))``.
        resume: Go on from the run folder's newest whole checkpoint (or from the start where none was written yet).
        overwrite: Replace a run that is there already.
        show: Takes each stage's title and table of what trains, on rank 0; None logs them, and a notebook shows them.

    Raises:
        SpecError: Something in the recipe's file is wrong.
        UnknownName: There is neither such a file nor such a shipped recipe.
        VlkitError: The recipe cannot be run, or the loss is not finite.
        KeyboardInterrupt: Ctrl-C, or SIGTERM among the steps; then a checkpoint was written first.
    """
    recipe = _read(recipe)
    run, trainer = Run(run_folder(recipe)), None
    with started(recipe.loop) as runtime:
        share_of(recipe.loop.batch_size, runtime.ranks.size)
        try:
            with ExitStack() as stack:
                runtime.first(lambda: stack.enter_context(locked(run.path)))
                runtime.first(lambda: open_run(recipe, resume=resume, overwrite=overwrite))
                trainer = _Trainer(recipe, run, runtime=runtime, show=show or _log_report)
                stack.callback(trainer.watchers.close)
                trainer.fit(resume=resume)
                runtime.first(lambda: save(trainer.model, run.model_path))
                if trainer.stopped is not None:
                    raise Stopped(run.done_message(), number=trainer.stopped)
        except KeyboardInterrupt as stop:
            raise stop if str(stop) else _stopped(stop, run, trainer) from None
    return run


def _read(recipe: Recipe | str | PathLike[str]) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, str | PathLike):
        return load_recipe(Path(recipe).expanduser() if isinstance(recipe, PathLike) else recipe)
    raise VlkitError(
        f"train takes a recipe, its file or its name, not a {type(recipe).__name__}; vlkit.load_recipe makes one"
    )


def _stopped(stop: KeyboardInterrupt, run: Run, trainer: _Trainer | None) -> Stopped:
    """An interrupt before the first step or after the last one, and what is there."""
    what = "stopped before a step was taken; nothing was changed: run the same command again"
    if trainer is not None and trainer.begun:
        what = f"stopped; {run.path} keeps what was saved, go on with --resume"
    return Stopped(what, number=getattr(stop, "number", signal.SIGINT))


def _log_report(title: str, report: Report) -> None:
    if notebook.in_notebook():
        notebook.put(f"<p><b>{notebook.said(title)}</b></p>{report._repr_html_()}", text=f"{title}\n{report}")
    log.info("%s\n%s", title, report)


class _Trainer:
    def __init__(self, recipe: Recipe, run: Run, *, runtime: Runtime, show: Show) -> None:
        self.recipe, self.run, self.runtime, self.show = recipe, run, runtime, show
        torch.manual_seed(recipe.seed)
        self.data = None if streamed(recipe.data) else _indexed(recipe)
        with runtime.in_turn():  # what has to be fetched is fetched once
            self.model: Model = build(recipe.model)
        if self.data is None:
            for stage in recipe.stages:  # refuses here, before files change
                stream_plan(_in_stage(recipe, stage), ranks=(runtime.ranks.rank, runtime.ranks.size))
        check_stages(as_module(self.model), recipe.stages, recipe.optim)
        self.origin = self.settled = snapshot(as_module(self.model))
        self.watchers = Watchers(recipe, runtime)
        if runtime.ranks.rank:
            torch.manual_seed(recipe.seed + runtime.ranks.rank)  # equal weights, dropout of its own
        offered = module_of(self.model.spec.kind, "frozen")
        parts: Sequence[FrozenPart] = () if offered is None else offered.frozen_parts(self.model)
        self.frozen = None if self.data is None else FrozenFeatures(
            recipe, runtime, parts, self.data.source, self.data.languages, self.data.bad
        )  # fmt: skip
        self.place = Place(0, 0, 0, 0, recipe_digest(recipe))
        self.data_state: dict[str, Any] = {}
        self.begun = False
        self.stopped: int | None = None  # the signal that came when only the model was left to save

    def fit(self, *, resume: bool) -> None:
        """All stages, or what is left of them."""
        self.resumes = resume
        saved = read_checkpoint(self.run.checkpoints, self.runtime) if resume else None
        if saved is not None:
            if saved.place.recipe != self.place.recipe:
                raise VlkitError(f"the checkpoints in {self.run.checkpoints} are of another recipe; use --overwrite")
            self.place = saved.place
            restore_model(as_module(self.model), saved, self.origin)
            notes = saved.processes
            self.data_state = notes[min(self.runtime.ranks.rank, len(notes) - 1)]["data"]
        for number in range(self.place.stage, len(self.recipe.stages)):
            self.place = replace(self.place, stage=number, stage_step=saved.place.stage_step if saved else 0)
            self._stage(self.recipe.stages[number], saved=saved)
            saved = None

    def _stage(self, stage: StageSpec, *, saved: Saved | None) -> None:
        module = as_module(self.model).to(self.runtime.device)
        set_trainable(module, stage.trainable)
        module.train()
        chosen = stage.objectives or self.recipe.objectives
        if self.frozen is not None:
            self.frozen.prepare(needs_of(chosen))
        context = Context(ranks=self.runtime.ranks, frozen=self.frozen)
        objective = build_objective(chosen, self.model, context=context, micro_batch=self.recipe.loop.micro_batch)
        if saved is None:
            self._start(stage, chosen, self.frozen)
        before = snapshot(module)
        check_equal(before.parameters, self.runtime)
        start = (
            StageStart(before, self._untouched(before)) if saved is None else StageStart(saved.before, saved.untouched)
        )
        self._show(stage)
        with ExitStack() as stack:
            # Switches of the parts come before a twin of them is cut into pieces.
            stack.enter_context(memory_saved(self.model, wanted=self.recipe.loop.grad_checkpointing))
            trainee = Trainee(self.model, objective, runtime=self.runtime, loop=self.recipe.loop)
            stack.enter_context(compiled(trainee.model, wanted=self.recipe.loop.compile))
            self._steps(stage, trainee, start=start, saved=saved, batches=self._batches(objective))
        self.settled = snapshot(module)
        check_moved(start.before, self.settled, stage.trainable)

    def _steps(
        self, stage: StageSpec, trainee: Trainee, *, start: StageStart, saved: Saved | None, batches: Batches
    ) -> None:
        peaks = peaks_of(as_module(trainee.model), stage, self.recipe.optim)
        optimizer = build_optimizer(as_module(trainee.model), self.recipe.optim, peaks=peaks, stage=stage)
        steps = Steps(
            self.recipe,
            self.run,
            stage=stage,
            trainee=trainee,
            optimizer=optimizer,
            start=start,
            place=self.place,
            watchers=self.watchers,
            begin=self._begin,
        )
        if saved is not None:
            steps.resume(saved)
        if self.place.stage_step < stage.steps:
            batches.restore(self.data_state)
            steps.take(batches)
            self.place, self.data_state, self.stopped = steps.place, batches.state(), steps.stopped
        steps.finish()

    def _untouched(self, before: Snapshot) -> dict[str, str]:
        stages = self.recipe.stages[: self.place.stage + 1]
        return untouched(self.origin, before, {part for stage in stages for part in stage.trainable})

    def _start(self, stage: StageSpec, objectives: Sequence[LossSpec], frozen: FrozenTables | None) -> None:
        """What is worked out before the first step of a stage, where the kind of model has something."""
        start: Start | None = getattr(module_of(self.model.spec.kind, "start"), "start", None)
        if start is not None:
            start(self.model, stage, objectives=objectives, frozen=frozen, first=self.place.step == 0)
        elif stage.warm_start is not None:
            raise VlkitError(f"a model of kind {self.model.spec.kind} has no warm start; set warm_start to null")
        if self.runtime.ranks.size > 1:
            share(as_module(self.model), changed(self.settled, snapshot(as_module(self.model))), self.runtime)

    def _show(self, stage: StageSpec) -> None:
        if not self.runtime.leads:
            return
        lrs = peaks_of(as_module(self.model), stage, self.recipe.optim)
        title = f"stage {self.place.stage + 1} of {len(self.recipe.stages)}: {stage.name}, {stage.steps} steps"
        self.show(title, trainable_report(as_module(self.model), lrs))
        norms = training_batch_norms(as_module(self.model))
        if norms and self.runtime.ranks.size > 1:
            log.warning(
                "%s is a batch norm that trains: each process takes the statistics of its own pairs, so the run is not "
                "quite that of one process", norms[0],
            )  # fmt: skip

    def _batches(self, objective: WeightedSum) -> Batches:
        ranks = (self.runtime.ranks.rank, self.runtime.ranks.size)
        tables = {} if self.frozen is None else self.frozen.tables
        preparer = self.model.preparer(self.recipe.data, needs=objective.needs, tables=tables)
        if self.data is None:
            recipe = _in_stage(self.recipe, self.recipe.stages[self.place.stage])
            return Stream(stream_plan(recipe, ranks=ranks), preparer=preparer)
        source, samplers, bad = self.data
        sampler = samplers[self.place.stage]
        if preparer.reads or self.frozen is None:
            return PlannedBatches(source, sampler, preparer, ranks, bad, self.recipe.loop.num_workers)
        unreadable = self.frozen.unreadable
        return LookedUpBatches(self.frozen.samples, sampler, preparer, ranks, bad, None, unreadable)

    def _begin(self) -> None:
        """Makes the run folder that of this run: not before its first step has been taken, so that nothing is lost or
        left behind where it cannot be.
        """
        if self.begun:
            return
        self.begun, kept = True, self.place.metrics_bytes
        counts = parameter_counts(as_module(self.model), {one.name: one.trainable for one in self.recipe.stages})
        self.runtime.first(
            lambda: cut_metrics(self.run, kept) if self.resumes else begin_run(self.run, self.recipe, parameters=counts)
        )
        self.watchers.open(self.run, self.runtime)


class _Indexed(NamedTuple):
    source: Source
    samplers: Sequence[PairSampler]  # one a stage
    bad: BadSamples

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(sorted({language for sampler in self.samplers for language in sampler.languages}))


def _indexed(recipe: Recipe) -> _Indexed:
    size, seed = recipe.loop.batch_size, recipe.seed
    source = open_sources(recipe.data)
    plans: dict[str, PairSampler] = {}  # stages that learn alike share theirs
    samplers = []
    for stage in recipe.stages:
        data = _in_stage(recipe, stage).data
        key = repr((data.mixing, [learned_in(stage.name)(one) for one in data.sources]))
        if key not in plans:
            plans[key] = plan_pairs(source, data, batch_size=size, seed=seed, stage=stage.name)
        samplers.append(plans[key])
    bad = BadSamples(recipe.data.max_bad_share, total=len(source))
    for name, reason in problems(source).items():
        bad.record(name, reason)
    return _Indexed(source, samplers, bad)


def _in_stage(recipe: Recipe, stage: StageSpec) -> Recipe:
    """The recipe with the languages mixed as a stage says."""
    if stage.mixing is None:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"mixing": stage.mixing})})
