"""Specs of evaluations of models that make images from texts: what is asked for, and who judges the images."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from vlkit.spec.any_task import AnyTask
from vlkit.spec.base import LocalPath, Spec
from vlkit.spec.sources import HoldsOneSplit, IndexedSourceSpec

Setting: TypeAlias = bool | int | float | str


class JudgeSpec(Spec):
    """Who says what is on an image: a model that embeds images and texts."""

    path: str = Field(min_length=1)
    """A model folder, or what else `vlkit eval` takes for a model."""


class PromptGroup(Spec):
    """Some of the concepts of a source, evaluated as a task of their own."""

    split: str | None = None
    """Those of this split alone (`test` of a built set: what is kept back from training); null takes all."""
    limit: int | None = Field(default=None, ge=1)
    """So many prompts, chosen by a stable hash; null: of every concept."""


class PackagedCombinations(Spec):
    """Things in a colour ("green hat") that vlkit has in 14 languages (`data/color_prompts.yaml`)."""

    kind: Literal["packaged"] = "packaged"


class CombinationFile(Spec):
    """Things in a colour, from a file of one's own."""

    kind: Literal["file"] = "file"
    path: LocalPath
    """YAML or JSON: a list of `{object: hat, color: green, prompts: {en: green hat, de: grüner Hut}}`."""


CombinationsSpec = Annotated[PackagedCombinations | CombinationFile, Field(discriminator="kind")]


class GeneratedImagesSpec(AnyTask):
    """Images that a model makes of the names of concepts, in each language, judged by another model."""

    kind: Literal["generation"] = "generation"
    source: IndexedSourceSpec
    """Images with names. A concept counts once: its first image with a name in all of the task's languages."""
    judge: JudgeSpec
    """Who judges: a dual encoder."""
    groups: dict[Annotated[str, Field(pattern=r"^\w[\w.-]*$")], PromptGroup] = Field(default_factory=dict)
    """By name the concepts that are asked for, each group a task NAME-GROUP: `{seen: {split: train, limit: 200},
    unseen: {split: test}}`. Empty: all of them, as task NAME."""
    combinations: CombinationsSpec | None = None
    """Things in a colour, as task NAME-combinations; null for none."""
    candidates: int | None = Field(default=300, ge=2)
    """Among how many concepts of the group the judge has to find the right one; null: among all."""
    num_images: int = Field(default=4, ge=1)
    """Images of a prompt, of seeds `seed`, `seed` + 1, ...; the ceiling of consistency needs two or more."""
    seed: int = Field(default=0, ge=0)
    """Seed of the first image of each prompt, the same in every language."""
    code_switching: bool = True
    """Also draw prompts that are half English, where both texts can be cut in two: twice as many images."""
    settings: dict[str, Setting] = Field(default_factory=dict)
    """What the model's `generate` is told besides, as it names it: `{steps: 12, guidance: 4}`."""
    batch_size: int = Field(default=16, ge=1)
    """About how many images are made at a time."""

    @model_validator(mode="after")
    def _groups_can_be(self) -> GeneratedImagesSpec:
        if "combinations" in self.groups:
            raise ValueError("groups: combinations is what the task of `combinations` is called; take another name")
        for name, group in self.groups.items():
            if group.split is not None and isinstance(self.source, HoldsOneSplit):
                raise ValueError(f"groups.{name}.split: files of kind {self.source.kind} hold one split; leave it out")
        reserved = {"prompt", "language", "seed", "num_images"} & set(self.settings)
        if reserved:
            raise ValueError(f"settings: {sorted(reserved)[0]} is said by the task itself; leave it out")
        return self
