"""Specs of training: optimiser, stages, the loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from vlkit.spec.base import Kinds, Spec
from vlkit.spec.dataset import MixingSpec
from vlkit.spec.objectives import ObjectiveSpec


class OptimSpec(Spec):
    """AdamW with warm-up and a cosine."""

    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Decoupled weight decay of matrices; biases, norms and scales have none."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's two averages."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps of linear warm-up in each stage."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global L2 norm; null never clips."""
    average: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights that train (0.999, say); at the end of a stage the average
    takes the place of the weights. null keeps none."""


class WarmStartSpec(Spec):
    """A closed-form start of the heads' linear maps, from the features of frozen encoders.

    The contrastive objective's is a regularised canonical correlation of the pairs; the class-prototype objective's is
    a ridge regression from class names to class embeddings.
    """

    image_shrinkage: float = Field(default=1.0, gt=0)
    """Added to the variances of the image features, as a multiple of their mean."""
    text_shrinkage: float = Field(default=0.3, gt=0)
    """Added to the variances of the text features, as a multiple of their mean."""
    ridge: float = Field(default=0.1, gt=0)
    """Penalty of the regression from class names, as a multiple of the mean variance of their features."""
    translation_penalty: float = Field(default=1.0, ge=0)
    """Likewise for the directions in which translations of a caption differ: so names carry over to other languages."""


class StageSpec(Spec):
    """A part of the run with its own trainable parts and learning rate."""

    name: str
    """Shown in logs and metrics."""
    trainable: tuple[str, ...] = Field(min_length=1)
    """Names of the parts that move (of a dual encoder `image_head`, `text_head`, `scale`, `image`, `text`); all others
    are frozen."""
    steps: int = Field(ge=1)
    """Optimizer steps."""
    lr: PositiveFloat | dict[str, PositiveFloat] | None = None
    """Peak learning rate of this stage, or `{part: rate}`; null and parts that are not named take optim.lr."""
    weight_decay: NonNegativeFloat | dict[str, NonNegativeFloat] | None = None
    """Weight decay of this stage, or `{part: decay}`; null and parts that are not named take optim.weight_decay."""
    objectives: tuple[ObjectiveSpec, ...] | None = Field(default=None, min_length=1)
    """The losses of this stage; null takes the recipe's."""
    mixing: MixingSpec | None = None
    """How the language of each caption is drawn in this stage; null takes data.mixing."""
    warm_start: WarmStartSpec | None = None
    """Set the heads' linear maps in closed form before the first step (`{}` takes the defaults); null starts from where
    the heads are."""


class BaseValidationSpec(Spec):
    """What all validations have in common."""

    kind: str
    every: int = Field(default=500, ge=1)
    """Steps between two validations; the last step of a stage has one too."""


class HeldBackValidation(BaseValidationSpec):
    """Zero-shot accuracy on the concepts that `data.holdout_concepts` keeps back, in each language of the run."""

    kind: Literal["held_back"] = "held_back"
    languages: tuple[str, ...] | None = None
    """BCP 47 tags; null takes those that the run learns from."""


class HeldBackAnswersValidation(BaseValidationSpec):
    """The loss of the captions of the concepts that `data.holdout_concepts` keeps back, and how near answers come.

    For models that answer. Each image is asked about with the plainest prompt of `data.prompts` in each language.
    """

    kind: Literal["held_back_answers"] = "held_back_answers"
    languages: tuple[str, ...] | None = None
    """BCP 47 tags; null takes those that the run learns from."""
    limit: int | None = Field(default=100, ge=1)
    """Images, chosen by a stable hash of their keys; null takes all."""
    written: bool = False
    """Also let the model write an answer to each, and score it by chrF: takes longer."""
    batch_size: int = Field(default=16, ge=1)
    """Questions that are answered at a time."""


class HeldBackCodesValidation(BaseValidationSpec):
    """How well a text-to-image model foretells hidden codes of the concepts that `data.holdout_concepts` keeps back.

    With previews a picture of what it makes of some captions is put into the run folder (`previews/step-N.png`).
    """

    kind: Literal["held_back_codes"] = "held_back_codes"
    languages: tuple[str, ...] | None = None
    """BCP 47 tags; null takes those that the run learns from."""
    limit: int | None = Field(default=100, ge=1)
    """Images, chosen by a stable hash of their keys; null takes all."""
    previews: int = Field(default=4, ge=0, le=32)
    """Captions, and languages, of which images are made; 0 for none."""
    batch_size: int = Field(default=32, ge=1)
    """Images at a time."""


VALIDATION_KINDS = Kinds(HeldBackValidation, HeldBackAnswersValidation, HeldBackCodesValidation, usual="held_back")
ValidationSpec = Annotated[BaseValidationSpec, VALIDATION_KINDS]
"""What is measured of the model while it trains."""


class LoopSpec(Spec):
    """The training loop."""

    batch_size: int = Field(default=512, ge=2)
    """Pairs a step over all processes; a multiple of their number."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Rows of a process that go through the model at a time, for less memory; loss and gradients stay those of the
    whole batch. Losses over pairs take a second forward pass for it (GradCache). null takes all at once."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several processes (torchrun) train one model: ddp with a whole copy each, fsdp with a piece each of
    weights and optimizer state. auto is ddp."""
    grad_checkpointing: bool = False
    """Parts that train keep no activations inside their blocks and compute them again: less memory, more time."""
    compile: bool = False
    """Compile the blocks of the encoders with torch.compile: a minute at the start, faster steps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on GPUs, fp32 on CPUs."""
    cache_features: bool = True
    """Encode with a frozen tower once and train on the stored features."""
    views: int = Field(default=1, ge=1)
    """Augmented views of an image in the feature cache; the first is the plain image."""
    num_workers: int = Field(default=2, ge=0)
    """Processes that read and decode where features are not cached."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of metrics.jsonl."""
    max_skipped_steps: int = Field(default=5, ge=0)
    """Steps in a row whose loss or gradient may be nan or infinite: they change no weight; one more ends the run."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Steps between checkpoints."""
    checkpoint_minutes: float | None = Field(default=None, gt=0)
    """Minutes between further checkpoints; null writes none by the clock."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Older ones are deleted."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes a GPU where there is one."""
    timeout: float = Field(default=600, gt=0)
    """Seconds that processes wait for each other within a step before the job fails."""
