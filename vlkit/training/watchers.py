"""Who watches a run: trackers that are told its figures, and an evaluator that measures the model while it trains."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from vlkit.distributed.runtime import Runtime
from vlkit.files import write_atomic
from vlkit.models.trainable import in_eval
from vlkit.registry import Registry
from vlkit.spec.recipe import Recipe
from vlkit.training.run_folder import Run
from vlkit.training.trackers import TRACKERS, Tracker
from vlkit.types import Model, as_module

if TYPE_CHECKING:
    from PIL.Image import Image

EVALUATORS = Registry(
    "validation",
    {
        "held_back": "vlkit.evaluation.held_back:HeldBack",
        "held_back_answers": "vlkit.evaluation.held_back_answers:HeldBackAnswers",
        "held_back_codes": "vlkit.evaluation.held_back_codes:HeldBackCodes",
    },
)
"""Kind to a class that takes the recipe: training and evaluation are siblings, and this name is all that joins them."""


class Evaluator(Protocol):
    """Measures a model while it trains; made before anything is written, so that what it lacks is told early."""

    def __call__(self, model: Model) -> Mapping[str, Any]:
        """Figures by name, or maps of them; the model is in eval mode and not to be changed."""


@runtime_checkable
class ShowsImages(Protocol):
    """What an evaluator may offer: a picture of what the model does, for people to look at."""

    def preview(self, model: Model) -> Image | None:
        """The picture; None for none."""


class Watchers:
    """The trackers and the evaluator of a run, in all processes; the first one alone logs and measures.

    Raises:
        UnknownName: There is no such validation or tracker.
        VlkitError: What is to be measured cannot be, or a tracker is not installed.
    """

    def __init__(self, recipe: Recipe, runtime: Runtime) -> None:
        self.recipe, self.trackers = recipe, list[Tracker]()
        self.evaluator: Evaluator | None = None
        self._folder: Path | None = None  # of the run, once it is there
        for kind in recipe.run.trackers:
            TRACKERS.get_object(kind).require(kind)
        if recipe.validation is not None:
            with runtime.in_turn():
                self.evaluator = EVALUATORS.get_object(recipe.validation.kind)(recipe)

    def open(self, run: Run, runtime: Runtime) -> None:
        """Opens the trackers, once the run folder is there."""
        if runtime.leads:
            self._folder = run.path
            spec, plain = self.recipe.run, self.recipe.model_dump(mode="json")
            self.trackers = [TRACKERS.get_object(kind)(kind, run.path, spec.name, plain) for kind in spec.trackers]

    def close(self) -> None:
        """Closes the trackers; what goes wrong there does not hide how the run ended."""
        for tracker in self.trackers:
            with suppress(Exception):
                tracker.close()

    def due(self, step: int, *, done: bool) -> bool:
        """Whether the model is measured after a step; ``done`` is the last one of a stage."""
        spec = self.recipe.validation
        return spec is not None and (done or step % spec.every == 0)

    def measure(self, model: Model, runtime: Runtime, *, step: int) -> Mapping[str, Any]:
        """What the evaluator finds, on the first process; nothing on the others, which wait. Random numbers stay."""
        found: list[Mapping[str, Any]] = []

        def act() -> None:
            if self.evaluator is not None:
                with torch.random.fork_rng(), torch.no_grad():
                    found.append(self.evaluator(model))
                    self._show(model, step)

        with in_eval(as_module(model)):
            runtime.first(act)
        return found[0] if found else {}

    def _show(self, model: Model, step: int) -> None:
        picture = self.evaluator.preview(model) if isinstance(self.evaluator, ShowsImages) else None
        if picture is not None and self._folder is not None:
            content = io.BytesIO()
            picture.save(content, format="PNG")
            write_atomic(self._folder / "previews" / f"step-{step}.png", content.getvalue())
