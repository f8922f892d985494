"""The one training loop: it knows stages and what stands before their steps, and nothing of what is trained (law 7)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.plan.pairs import open_pairs, streamed
from vlkit.data.plan.sampling import PairSampler
from vlkit.data.sources.open import problems
from vlkit.distributed.runtime import Runtime, share_of, started
from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.build import build
from vlkit.models.dual_encoder.frozen import frozen_parts
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import save
from vlkit.models.trainable import (
    Report,
    Snapshot,
    check_moved,
    part_names,
    set_trainable,
    snapshot,
    trainable_report,
    training_batch_norms,
)
from vlkit.objectives.pairs.class_prototypes import ClassPrototypes
from vlkit.objectives.pairs.pair_term import Surroundings
from vlkit.objectives.weighted_sum import WeightedSum, build_objective, sides_of
from vlkit.spec.recipe import Recipe
from vlkit.spec.training import StageSpec
from vlkit.training.batches import Batches, PairBatches, StreamBatches, stream_plan
from vlkit.training.checkpoints import Place, Saved, read_checkpoint, restore_model, restore_optimizer
from vlkit.training.frozen import FrozenFeatures
from vlkit.training.optimizer import build_optimizer
from vlkit.training.run_folder import Run, begin_run, open_run, recipe_digest, run_folder
from vlkit.training.steps import Steps
from vlkit.training.switches import compiled, memory_saved
from vlkit.training.tables import ImageTable, TextTable
from vlkit.training.trainee import Trainee, check_equal, share_heads
from vlkit.training.warm_start import check_started, fit_means, warm_start
from vlkit.types import Source

log = logging.getLogger(__name__)
Show = Callable[[str, Report], None]


def train(recipe: Recipe, *, resume: bool = False, overwrite: bool = False, show: Show | None = None) -> Run:
    """Trains what a recipe describes and writes the run folder; under torchrun, together with the other processes.

    A run that was killed goes on with ``resume=True`` from its last checkpoint; on a CPU its losses are then those of
    an uninterrupted run, bit for bit, given the same number of threads and processes.

    Args:
        recipe: What to build and train, on what, and how.
        resume: Go on from the run folder's newest whole checkpoint (or from the start where none was written yet).
        overwrite: Replace a run that is there already.
        show: Takes each stage's title and table of what trains, on rank 0; None logs them.

    Raises:
        VlkitError: The recipe cannot be run, or the loss is not finite.
        KeyboardInterrupt: Ctrl-C, or SIGTERM among the steps; then a checkpoint was written first.
    """
    with started(recipe.loop) as runtime:
        share_of(recipe.loop.batch_size, runtime.ranks.size)
        run = Run(run_folder(recipe))
        runtime.first(lambda: open_run(recipe, resume=resume, overwrite=overwrite))
        trainer = _Trainer(recipe, run, runtime=runtime, show=show or _log_report)
        if not resume:
            runtime.first(lambda: begin_run(run, recipe))
        trainer.fit(resume=resume)
        runtime.first(lambda: save(trainer.model, run.model_path))
    return run


def _log_report(title: str, report: Report) -> None:
    log.info("%s\n%s", title, report)


class _Trainer:
    def __init__(self, recipe: Recipe, run: Run, *, runtime: Runtime, show: Show) -> None:
        self.recipe, self.run, self.runtime, self.show = recipe, run, runtime, show
        torch.manual_seed(recipe.seed)
        self.data = None if streamed(recipe.data) else _indexed(recipe)
        with runtime.in_turn():  # what has to be fetched is fetched once
            self.model: DualEncoder = build(recipe.model)
        if self.data is None:
            stream_plan(recipe, ranks=(runtime.ranks.rank, runtime.ranks.size))  # refuses here, before files change
        if runtime.ranks.rank:
            torch.manual_seed(recipe.seed + runtime.ranks.rank)  # equal weights, dropout of its own
        parts = frozen_parts(self.model)
        self.frozen = None if self.data is None else FrozenFeatures(recipe, runtime, parts, *self.data)
        self.place = Place(0, 0, 0, 0, recipe_digest(recipe))
        self.data_state: dict[str, Any] = {}

    def fit(self, *, resume: bool) -> None:
        """All stages, or what is left of them."""
        saved = read_checkpoint(self.run.checkpoints, self.runtime) if resume else None
        if saved is not None:
            if saved.place.recipe != self.place.recipe:
                raise VlkitError(f"the checkpoints in {self.run.checkpoints} are of another recipe; use --overwrite")
            self.place = saved.place
            restore_model(self.model, saved.tensors)
            notes = saved.processes
            self.data_state = notes[min(self.runtime.ranks.rank, len(notes) - 1)]["data"]
        self.runtime.first(self._cut_metrics)
        for number in range(self.place.stage, len(self.recipe.stages)):
            self.place = replace(self.place, stage=number, stage_step=saved.place.stage_step if saved else 0)
            self._stage(self.recipe.stages[number], saved=saved)
            saved = None

    def _stage(self, stage: StageSpec, *, saved: Saved | None) -> None:
        self.model.to(self.runtime.device)
        set_trainable(self.model, stage.trainable)
        self.model.train()
        chosen = stage.objectives or self.recipe.objectives
        no_tables = self.frozen is None or sides_of(chosen) == {"text"}  # losses between texts look at no image
        tables = {} if self.frozen is None or no_tables else self.frozen.tables()
        images, texts = cast("ImageTable | None", tables.get("image")), cast("TextTable | None", tables.get("text"))
        names = None if self.frozen is None else self.frozen.of_texts(texts)
        around = Surroundings(ranks=self.runtime.ranks, text_features=names)
        objective = build_objective(
            chosen,
            self.model,
            around=around,
            micro_batch=self.recipe.loop.micro_batch,
        )
        if saved is None:
            self._start(stage, objective, images=images, texts=texts)
        check_started(self.model)
        before = snapshot(self.model)
        check_equal(before.parameters, self.runtime)
        self._show(stage)
        with ExitStack() as stack:
            # Switches of the encoders come before a copy of them is cut into pieces.
            stack.enter_context(memory_saved(self.model, wanted=self.recipe.loop.grad_checkpointing))
            trainee = Trainee(self.model, objective, runtime=self.runtime, parallel=self.recipe.loop.parallel)
            stack.enter_context(compiled(trainee.model, wanted=self.recipe.loop.compile))
            self._steps(stage, trainee, before=before, saved=saved, batches=self._batches(images, texts, objective))
        check_moved(before if saved is None else saved.before, snapshot(self.model), stage.trainable)

    def _steps(
        self, stage: StageSpec, trainee: Trainee, *, before: Snapshot, saved: Saved | None, batches: Batches
    ) -> None:
        optimizer = build_optimizer(trainee.model, self.recipe.optim, lr=stage.lr or self.recipe.optim.lr)
        steps = Steps(
            self.recipe,
            self.run,
            stage=stage,
            runtime=self.runtime,
            trainee=trainee,
            optimizer=optimizer,
            before=before if saved is None else saved.before,
            place=self.place,
        )
        if saved is not None:
            restore_optimizer(trainee.model, optimizer, saved.tensors)
            steps.resume(saved)
        if self.place.stage_step < stage.steps:
            batches.restore(self.data_state)
            steps.take(batches)
            self.place, self.data_state = steps.place, batches.state()
        trainee.settle()

    def _start(
        self, stage: StageSpec, objective: WeightedSum, *, images: ImageTable | None, texts: TextTable | None
    ) -> None:
        """What is worked out in closed form before the first step of a stage."""
        if self.place.step == 0:
            fit_means(self.model, images=images, texts=texts)
        if stage.warm_start is not None:
            if self.data is None:
                raise VlkitError(
                    "a warm start needs data that can be read at any place, and this is streamed; set the stage's "
                    "warm_start to null"
                )
            source, sampler, _ = self.data
            parts = [part for _, part in objective.terms]
            warm_start(
                self.model,
                stage.warm_start,
                source=source if self.frozen is None else self.frozen.records,
                sampler=sampler,
                images=images,
                texts=texts,
                prototypes=next((part for part in parts if isinstance(part, ClassPrototypes)), None),
            )
        share_heads(self.model, self.runtime)

    def _show(self, stage: StageSpec) -> None:
        if not self.runtime.leads:
            return
        peak = stage.lr or self.recipe.optim.lr
        moving = {name.partition(".")[0] for name in stage.trainable}
        lrs = {part: peak for part in part_names(self.model) if part in moving}
        title = f"stage {self.place.stage + 1} of {len(self.recipe.stages)}: {stage.name}, {stage.steps} steps"
        self.show(title, trainable_report(self.model, lrs))
        norms = training_batch_norms(self.model)
        if norms and self.runtime.ranks.size > 1:
            log.warning(
                "%s is a batch norm that trains: each process takes the statistics of its own pairs, so the run is not "
                "quite that of one process", norms[0],
            )  # fmt: skip

    def _batches(self, images: ImageTable | None, texts: TextTable | None, objective: WeightedSum) -> Batches:
        ranks = (self.runtime.ranks.rank, self.runtime.ranks.size)
        pixels = "image" in objective.sides
        if self.data is None:
            return StreamBatches(self.recipe, self.model, ranks=ranks, pixels=pixels)
        source, sampler, bad = self.data
        if images is not None and self.frozen is not None:
            source = self.frozen.records
        return PairBatches(self.recipe, self.model, source, sampler, bad, images, texts, ranks, pixels)

    def _cut_metrics(self) -> None:
        """Lines written after the checkpoint are written again by the resumed run."""
        path: Path = self.run.metrics_path
        if path.exists() and path.stat().st_size > self.place.metrics_bytes:
            with path.open("r+b") as stream:
                stream.truncate(self.place.metrics_bytes)


def _indexed(recipe: Recipe) -> tuple[Source, PairSampler, BadSamples]:
    source, sampler = open_pairs(recipe.data, batch_size=recipe.loop.batch_size, seed=recipe.seed)
    bad = BadSamples(recipe.data.max_bad_share, total=len(source))
    for name, reason in problems(source).items():
        bad.record(name, reason)
    return source, sampler, bad
