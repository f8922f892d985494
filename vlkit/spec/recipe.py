"""The spec of a whole run."""

from __future__ import annotations

from pydantic import Field, model_validator

from vlkit.spec.base import LocalPath, Spec
from vlkit.spec.dataset import DataSpec
from vlkit.spec.model import ModelSpec
from vlkit.spec.objectives import ContrastiveObjective, ObjectiveSpec
from vlkit.spec.sources import learned_in
from vlkit.spec.training import LoopSpec, OptimSpec, StageSpec, ValidationSpec


class RunSpec(Spec):
    """Where a run is written."""

    folder: LocalPath | None = None
    """The run folder; null takes runs/NAME."""
    name: str = "run"
    """Name of the run and of its model in results."""
    trackers: tuple[str, ...] = ()
    """Where figures go beside metrics.jsonl: tensorboard, wandb, trackio; each needs the extra of its name."""


class Recipe(Spec):
    """A run: what is built, what it learns from, how, and where it is written."""

    description: str = ""
    """One or two sentences: what this recipe is for, its source, what it changes."""
    run: RunSpec = RunSpec()
    """Where the run is written."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Seed of initialisation, sampling and augmentation."""
    model: ModelSpec
    """What is built."""
    data: DataSpec
    """What it learns from."""
    objectives: tuple[ObjectiveSpec, ...] = Field(default=(ContrastiveObjective(),), min_length=1)
    """The losses; the total is their weighted sum."""
    optim: OptimSpec = OptimSpec()
    """The optimiser."""
    stages: tuple[StageSpec, ...] = Field(min_length=1)
    """What trains when; stages follow each other."""
    loop: LoopSpec = LoopSpec()
    """Batches, precision, checkpoints."""
    validation: ValidationSpec | None = None
    """What is measured of the model while it trains; null measures nothing."""

    @model_validator(mode="after")
    def _sources_of_stages(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        for number, source in enumerate(self.data.sources):
            if unknown := sorted(set(source.stages or ()) - set(names)):
                raise ValueError(
                    f"data.sources.{number}.stages: no stage {', '.join(unknown)}; there are: {', '.join(names)}"
                )
        if without := [name for name in names if not any(map(learned_in(name), self.data.sources))]:
            raise ValueError(f"data.sources: stage {without[0]} has none to learn from; name it in `stages` of one")
        return self
