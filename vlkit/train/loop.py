"""The one training loop: it knows stages, steps and checkpoints, and nothing of what is trained (law 7)."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlkit.data.bad import BadSamples
from vlkit.data.sampling import PairSampler, read_metas
from vlkit.data.sources import open_sources, problems
from vlkit.errors import VlkitError
from vlkit.models.build import build
from vlkit.models.checkpoint import save
from vlkit.models.dual_encoder import DualEncoder
from vlkit.models.freeze import Report, Snapshot, check_moved, part_names, set_trainable, snapshot, trainable_report
from vlkit.objectives.build import WeightedSum, build_objective
from vlkit.objectives.class_prototypes import ClassPrototypes
from vlkit.objectives.terms import Surroundings, TextFeatures
from vlkit.progress import Bar, bar
from vlkit.spec.data import AugmentSpec
from vlkit.spec.recipe import Recipe
from vlkit.spec.train import StageSpec
from vlkit.train.batches import PairBatches
from vlkit.train.checkpoint import (
    Place,
    Saved,
    read_checkpoint,
    restore_model,
    restore_optimizer,
    write_checkpoint,
)
from vlkit.train.optim import build_optimizer, learning_rate
from vlkit.train.run import Run, begin_run, open_run, recipe_digest
from vlkit.train.runtime import autocast, choose_device, stop_on_signals
from vlkit.train.tables import ImageTable, TextMemory, TextTable, image_table
from vlkit.train.warm_start import check_started, fit_means, warm_start
from vlkit.types import Batch, Loss

log = logging.getLogger(__name__)
Show = Callable[[str, Report], None]


def train(recipe: Recipe, *, resume: bool = False, overwrite: bool = False, show: Show | None = None) -> Run:
    """Trains what a recipe describes and writes the run folder.

    A run that was killed goes on with ``resume=True`` from its last checkpoint; on a CPU its losses are then those of
    an uninterrupted run, bit for bit, given the same number of threads.

    Args:
        recipe: What to build and train, on what, and how.
        resume: Go on from the run folder's newest whole checkpoint (or from the start where none was written yet).
        overwrite: Replace a run that is there already.
        show: Takes each stage's title and table of what trains; None logs them.

    Raises:
        VlkitError: The recipe cannot be run, or the loss is not finite.
        KeyboardInterrupt: Ctrl-C, or SIGTERM among the steps; then a checkpoint was written first.
    """
    run = open_run(recipe, resume=resume, overwrite=overwrite)
    trainer = _Trainer(recipe, run, show=show or _log_report)
    if not resume:
        begin_run(run, recipe)
    trainer.fit(resume=resume)
    save(trainer.model, run.model_path)
    return run


def _parts(stage: StageSpec) -> set[str]:
    """Direct parts of the model in which something trains."""
    return {name.partition(".")[0] for name in stage.trainable}


def _log_report(title: str, report: Report) -> None:
    log.info("%s\n%s", title, report)


class _Trainer:
    def __init__(self, recipe: Recipe, run: Run, *, show: Show) -> None:
        self.recipe, self.run, self.show = recipe, run, show
        self.device = choose_device(recipe.loop)
        torch.manual_seed(recipe.seed)
        self.source = open_sources(recipe.data)
        self.sampler = PairSampler(
            read_metas(self.source),
            recipe.loop.batch_size,
            seed=recipe.seed,
            mixing=recipe.data.mixing,
            languages=recipe.data.languages,
            distinct_concepts=recipe.data.distinct_concepts,
        )
        self.bad = BadSamples(recipe.data.max_bad_share, total=len(self.source))
        for name, reason in problems(self.source).items():
            self.bad.record(name, reason)
        self.model: DualEncoder = build(recipe.model).to(self.device)
        self.images: ImageTable | None = None
        self.texts: TextTable | None = None
        self.place = Place(0, 0, 0, 0, recipe_digest(recipe))
        self.before = Snapshot({}, {})

    def fit(self, *, resume: bool) -> None:
        """All stages, or what is left of them."""
        saved = read_checkpoint(self.run.checkpoints) if resume else None
        if saved is not None:
            if saved.place.recipe != self.place.recipe:
                raise VlkitError(f"the checkpoints in {self.run.checkpoints} are of another recipe; use --overwrite")
            self.place = saved.place
            restore_model(self.model, saved.tensors)
        self._cut_metrics()
        for number in range(self.place.stage, len(self.recipe.stages)):
            self.place = replace(self.place, stage=number, stage_step=saved.place.stage_step if saved else 0)
            self._stage(self.recipe.stages[number], saved=saved)
            saved = None

    def _stage(self, stage: StageSpec, *, saved: Saved | None) -> None:
        set_trainable(self.model, stage.trainable)
        self.model.train()
        images, texts = self._tables()
        around = Surroundings(text_features=self._names(texts))
        objective = build_objective(self.recipe.objectives, self.model, around=around)
        if saved is None:
            if self.place.step == 0:
                fit_means(self.model, images=images, texts=texts)
            if stage.warm_start is not None:
                self._warm_start(stage, objective, images=images, texts=texts)
        check_started(self.model)
        peak = stage.lr or self.recipe.optim.lr
        optimizer = build_optimizer(self.model, self.recipe.optim, lr=peak)
        moving = _parts(stage)
        lrs = {part: peak for part in part_names(self.model) if part in moving}
        title = f"stage {self.place.stage + 1} of {len(self.recipe.stages)}: {stage.name}, {stage.steps} steps"
        self.show(title, trainable_report(self.model, lrs))
        if saved is None:
            self.before = snapshot(self.model)
        else:
            self.before = saved.before
            restore_optimizer(self.model, optimizer, saved.tensors)
        if self.place.stage_step < stage.steps:
            self._steps(stage, objective=objective, optimizer=optimizer, batches=self._batches(images, texts))
        check_moved(self.before, snapshot(self.model), stage.trainable)

    def _tables(self) -> tuple[ImageTable | None, TextTable | None]:
        """Features of the encoders that are frozen in this stage."""
        recipe, loop = self.recipe, self.recipe.loop
        parts = self.model.named_children()
        frozen = {name for name, part in parts if not any(p.requires_grad for p in part.parameters())}
        if "image" not in frozen:
            self.images = None  # in a later stage it is another encoder
        if "text" not in frozen:
            self.texts = None
        if not loop.cache_features or "image" not in frozen:
            return None, None
        if loop.views == 1 and recipe.data.augment != AugmentSpec():
            log.warning(
                "data.augment does nothing here: loop.views = 1 keeps only the plain images of the frozen image "
                "encoder; set loop.views=4, say, or loop.cache_features=false"
            )
        if self.images is None:
            self.images = image_table(
                self.model.image,
                self.source,
                augment=recipe.data.augment,
                views=loop.views,
                seed=recipe.seed,
                bad=self.bad,
            )
        if self.texts is None and "text" in frozen:
            self.texts = TextTable(self.model.text, self.source, languages=self.sampler.languages)
        return self.images, self.texts

    def _names(self, texts: TextTable | None) -> TextFeatures | None:
        if texts is None:
            return None
        memory = TextMemory(self.model.text)

        def features(names: Sequence[str]) -> Tensor:
            try:
                return memory(names, language="en")
            finally:
                memory.flush()

        return features

    def _warm_start(
        self, stage: StageSpec, objective: WeightedSum, *, images: ImageTable | None, texts: TextTable | None
    ) -> None:
        if stage.warm_start is None:
            return
        parts = [part for _, part in objective.terms]
        prototypes = next((part for part in parts if isinstance(part, ClassPrototypes)), None)
        warm_start(
            self.model,
            stage.warm_start,
            source=self.source,
            sampler=self.sampler,
            images=images,
            texts=texts,
            prototypes=prototypes,
        )

    def _batches(self, images: ImageTable | None, texts: TextTable | None) -> PairBatches:
        return PairBatches(self.recipe, self.model, self.source, self.sampler, self.bad, images, texts)

    def _steps(
        self,
        stage: StageSpec,
        *,
        objective: WeightedSum,
        optimizer: torch.optim.Optimizer,
        batches: PairBatches,
    ) -> None:
        loop, size = self.recipe.loop, self.recipe.loop.batch_size
        first, last = self.place.step, self.place.step + stage.steps - self.place.stage_step
        clock = time.monotonic()
        final = self.place.stage == len(self.recipe.stages) - 1
        with (
            stop_on_signals() as request,
            bar(stage.name, total=(last - first) * size, unit="images") as shown,
            self.run.metrics_path.open("a", encoding="utf-8") as metrics,
        ):
            for batch in batches.steps(first, last):
                lr = learning_rate(
                    self.recipe.optim, self.place.stage_step, steps=stage.steps, peak=stage.lr or self.recipe.optim.lr
                )
                loss, norm = self._step(batch, objective, optimizer, lr=lr)
                self.place = replace(self.place, step=self.place.step + 1, stage_step=self.place.stage_step + 1)
                done = self.place.step == last
                if self.place.step % loop.log_every == 0 or done:
                    rate = (self.place.step - first) * size / max(time.monotonic() - clock, 1e-9)
                    self._log(metrics, stage, loss, lr=lr, norm=norm, rate=rate)
                self._advance(shown, size, loss)
                if self.place.step % loop.checkpoint_every == 0 or done or request.signal is not None:
                    self._checkpoint(metrics, optimizer)
                if request.signal is not None and not (done and final):
                    raise KeyboardInterrupt(
                        f"stopped after step {self.place.step}; {self.run.path} keeps it, go on with --resume"
                    )

    def _step(
        self, batch: Batch, objective: WeightedSum, optimizer: torch.optim.Optimizer, *, lr: float
    ) -> tuple[Loss, float]:
        for group in optimizer.param_groups:
            group["lr"] = lr
        with autocast(self.recipe.loop, self.device):
            loss = objective(self.model, batch)
        if not math.isfinite(loss.total.item()):
            parts = ", ".join(f"{name} {value.item():g}" for name, value in loss.parts.items())
            raise self._diverged(f"the loss of step {self.place.step + 1} is {loss.total.item()} ({parts})", lr)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        trains = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(trains, self.recipe.optim.clip_norm or math.inf)
        if not math.isfinite(norm.item()):
            raise self._diverged(f"the gradient of step {self.place.step + 1} has length {norm.item()}", lr)
        optimizer.step()
        return loss, norm.item()

    def _diverged(self, what: str, lr: float) -> VlkitError:
        return VlkitError(
            f"{what}; start again with --overwrite and a lower optim.lr (now {lr:g}), more optim.warmup_steps or a "
            f"lower optim.clip_norm"
        )

    def _advance(self, shown: Bar, size: int, loss: Loss) -> None:
        shown.advance(size, step=self.place.step, loss=f"{loss.total.item():.3f}")

    def _log(self, metrics: Any, stage: StageSpec, loss: Loss, *, lr: float, norm: float, rate: float) -> None:
        line = {
            "step": self.place.step,
            "stage": stage.name,
            "loss": loss.total.item(),
            **{name: value.item() for name, value in loss.parts.items()},
            "lr": lr,
            "scale": self.model.scale.item(),
            "grad_norm": norm,
            "images_per_s": round(rate, 1),
        }
        metrics.write(json.dumps(line) + "\n")
        metrics.flush()

    def _checkpoint(self, metrics: Any, optimizer: torch.optim.Optimizer) -> None:
        os.fsync(metrics.fileno())
        self.place = replace(self.place, metrics_bytes=metrics.tell())
        write_checkpoint(
            self.run.checkpoints,
            self.model,
            optimizer,
            place=self.place,
            before=self.before,
            trained={part for stage in self.recipe.stages[: self.place.stage + 1] for part in _parts(stage)},
            keep=self.recipe.loop.keep_checkpoints,
        )

    def _cut_metrics(self) -> None:
        """Lines written after the checkpoint are written again by the resumed run."""
        path: Path = self.run.metrics_path
        if path.exists() and path.stat().st_size > self.place.metrics_bytes:
            with path.open("r+b") as stream:
                stream.truncate(self.place.metrics_bytes)
