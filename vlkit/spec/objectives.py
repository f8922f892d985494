"""Specs of losses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from vlkit.spec.base import Kinds, Spec
from vlkit.spec.text_to_image import Schedule


class LossSpec(Spec):
    """What all losses have in common."""

    kind: str
    weight: float = Field(default=1.0, ge=0.0)
    """Factor of this loss in the total."""


class PairObjective(LossSpec):
    """What the losses over all pairs of a batch have in common."""

    exchange: Literal["gather", "ring"] = "gather"
    """How texts of other processes get here: all at once, or one process's at a time (less memory, more messages)."""
    tile: int = Field(default=1024, ge=16)
    """Edge of the tiles in which logits are computed; kernels choose their own."""
    duplicates: Literal["negatives", "ignore", "positives"] = "negatives"
    """Other pairs of the same concept or caption: negatives like all others, left out, or positives too."""
    duplicates_by: Literal["concept", "caption"] = "concept"
    """What two pairs must share to be duplicates."""


class _SoftmaxObjective(PairObjective):
    recompute: bool = True
    """Compute logits again in the backward pass; false keeps them (4 bytes each), for a quarter less work."""

    @model_validator(mode="after")
    def _ring_keeps_nothing(self) -> Self:
        if not self.recompute and self.exchange == "ring":
            raise ValueError("recompute: false keeps the logits of all texts, and exchange: ring never has them")
        return self


class ContrastiveObjective(_SoftmaxObjective):
    """Exact softmax contrastive loss over the batch of all processes, both directions (CLIP, arXiv 2103.00020)."""

    kind: Literal["contrastive"] = "contrastive"


class GroupedContrastiveObjective(_SoftmaxObjective):
    """Mean of the contrastive losses of groups of processes: a different loss, with the negatives of a group only.

    The grouped aggregation of M2-Encoder (arXiv 2401.15896); its batch accumulation is `loop.micro_batch`.
    """

    kind: Literal["grouped_contrastive"] = "grouped_contrastive"
    group_size: int | None = Field(default=None, ge=1)
    """Neighbouring processes that share negatives; null takes the processes of a node."""


class SigmoidObjective(PairObjective):
    """Sigmoid loss of every pair of the batch of all processes (SigLIP, arXiv 2303.15343); needs model.init_bias."""

    kind: Literal["sigmoid"] = "sigmoid"


class ClassPrototypeObjective(LossSpec):
    """Class-prototype distillation: the image classifier's rows teach the text side the names of its classes."""

    kind: Literal["class_prototypes"] = "class_prototypes"
    names_per_step: int = Field(default=256, ge=1)
    """Classes whose names are shown in one step; each is told apart from all classes."""
    temperature: float = Field(default=0.05, gt=0)
    """Cosines are divided by this before the softmax."""


class CaptioningObjective(LossSpec):
    """Captioning: each token of a text from those before it and the image (CoCa, arXiv 2205.01917, section 3.2)."""

    kind: Literal["captioning"] = "captioning"
    weight: float = Field(default=2.0, ge=0.0)
    """Factor of this loss in the total."""
    slice_size: int = Field(default=256, ge=1)
    """Tokens whose logits over the vocabulary exist at a time."""


class MaskedTextObjective(LossSpec):
    """Cross-modal masked language modelling: hidden words of a text from the others and the image (CMLM)."""

    kind: Literal["masked_text"] = "masked_text"
    mask_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a text's words that is hidden, one word at least."""
    slice_size: int = Field(default=256, ge=1)
    """Tokens whose logits over the vocabulary exist at a time."""


class MaskedImageObjective(LossSpec):
    """Cross-modal masked image modelling: hidden patches of an image from the others and the text (CMIM)."""

    kind: Literal["masked_image"] = "masked_image"
    mask_share: float = Field(default=80 / 196, gt=0, le=1)
    """Share of an image's patches that is hidden, one patch at least."""
    masking: Literal["random", "attentive"] = "random"
    """attentive hides the patches that are most like the text in the shared space (SyCoCa, arXiv 2401.02137)."""


class TextDistillationObjective(LossSpec):
    """Multilingual-CLIP's loss: a caption in any language is to be where a teacher has the English one (2205.13401).

    Pairs without an English caption of the same image are left out. Images are not looked at.
    """

    kind: Literal["text_distillation"] = "text_distillation"
    teacher: str | None = None
    """What `vlkit.load` takes; null takes the model that the run goes on from (`model.kind: saved`), as it was then."""
    loss: Literal["mse", "cosine", "contrastive"] = "mse"
    """mse: mean squared difference of the embeddings before they are normalised (M-CLIP, AltCLIP). cosine: 1 - cosine.
    contrastive: the own English caption is to be told from all others of the batch."""
    temperature: float = Field(default=0.05, gt=0)
    """Of the contrastive loss: cosines are divided by it."""
    remember: bool = True
    """Keep what the teacher gave for a text in the cache, so that each is encoded once in all; 4 bytes a value."""


class ClipDistillationObjective(LossSpec):
    """A teacher's similarities of images and texts as targets for the model's own (CLIP-KD, arXiv 2307.12732, CRD).

    Cross entropy between the softmax of the teacher's scaled similarities over the batch and the model's, averaged over
    both directions.
    """

    kind: Literal["clip_distillation"] = "clip_distillation"
    teacher: str
    """What `vlkit.load` takes; it has to prepare images in the same way as the model."""
    teacher_text: Literal["caption", "english"] = "caption"
    """What the teacher reads: the caption itself, or the English caption of the same image (for English teachers)."""


class AnswersObjective(LossSpec):
    """Each token of an answer from the images, the question and the tokens before it; each sample counts the same."""

    kind: Literal["answers"] = "answers"
    slice_size: int = Field(default=256, ge=1)
    """Tokens whose logits over the vocabulary exist at a time."""


class ImageTextQueriesObjective(LossSpec):
    """The three losses that a Q-Former learns from pairs with: which belong together, whether, and what is said.

    BLIP-2 (arXiv 2301.12597, section 3.2): contrast (ITC), matching with hard negatives (ITM) and text given the image
    (ITG), each with a mask of its own between queries and text.
    """

    kind: Literal["image_text_queries"] = "image_text_queries"
    contrast: float = Field(default=1.0, ge=0.0)
    """Factor of the contrast of each text with the query nearest to it."""
    match: float = Field(default=1.0, ge=0.0)
    """Factor of telling true pairs from pairs with a likely wrong image or text."""
    caption: float = Field(default=1.0, ge=0.0)
    """Factor of foretelling each token from the queries and the tokens before it."""
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the target of contrast and caption that is spread over all choices."""
    slice_size: int = Field(default=1024, ge=1)
    """Tokens whose logits over the vocabulary exist at a time."""


class ReconstructionObjective(LossSpec):
    """Images given back by an image tokenizer: errors of pixels in 0..1; for LFQ also how sure and spread codes are.

    There is no adversary and no loss by another network: what comes out has the errors that the weights say.
    """

    kind: Literal["reconstruction"] = "reconstruction"
    l1: float = Field(default=1.0, ge=0.0)
    """Factor of the mean absolute error."""
    l2: float = Field(default=1.0, ge=0.0)
    """Factor of the mean squared error, by which PSNR goes."""
    edges: float = Field(default=0.0, ge=0.0)
    """Factor of the mean absolute error of differences between neighbouring pixels: keeps lines sharp."""
    scales: int = Field(default=1, ge=1, le=6)
    """Sizes at which l1 and l2 are taken, each half the one before; their mean counts."""
    entropy: float = Field(default=0.0, ge=0.0)
    """For quantizer lfq, factor of the entropy of each place's code less `diversity` times that of all of a batch's
    (MAGVIT-v2, arXiv 2310.05737, equation 5). `loop.micro_batch` does not cut the batch then."""
    diversity: float = Field(default=1.0, ge=0.0)
    """How much the spread over codes counts there."""


class MaskedCodesObjective(LossSpec):
    """Hidden codes of an image from the others and the prompt (MaskGIT, arXiv 2202.04200; Show-o, 2408.12528).

    Each image hides a share of its codes of its own, drawn by the schedule; nothing is learned at known places.
    """

    kind: Literal["masked_codes"] = "masked_codes"
    schedule: Schedule = "cosine"
    """How shares are drawn: of a uniform number, the share that a sampler with this schedule has left."""
    power: float = Field(default=2.0, gt=0)
    """With `schedule: pow`: the exponent."""
    least_share: float = Field(default=0.0, ge=0, le=1)
    """Never hide less than this share (NeoBabel's last stage has 0.5); one code at least is hidden."""
    counts: Literal["codes", "images"] = "codes"
    """codes: each hidden code counts the same (all published models). images: each image does, so that one with few
    hidden codes counts as much as one with many (the bound of masked diffusion, arXiv 2406.07524)."""
    prompt_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of images that are learned without their prompt, which guidance needs."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the target that is spread over all codes."""
    consistency: float = Field(default=0.0, ge=0)
    """Factor of the divergence between what is foretold of an image in two languages; takes a second pass."""
    consistency_from: Literal["both", "prompt"] = "both"
    """both: each language learns of the other. prompt: the other one learns of the prompt's language alone."""
    slice_size: int = Field(default=4096, ge=1)
    """Places whose logits exist at a time; those of more are made again in the backward pass."""


class ConditionDistillationObjective(LossSpec):
    """A text in any language is to tell a denoiser what its own text encoder tells it of the English one.

    Learns from parallel texts alone. Factors are PEA-Diffusion's (arXiv 2311.17086), but for the first, which is of its
    loss on images. The denoiser is asked about noise, as there are no images.
    """

    kind: Literal["condition_distillation"] = "condition_distillation"
    states: float = Field(default=1.0, ge=0.0)
    """Factor of the mean squared difference of the states that the denoiser reads."""
    noise: float = Field(default=1.0, ge=0.0)
    """Factor of that of the noise that the denoiser finds."""
    features: float = Field(default=0.1, ge=0.0)
    """Factor of the sum, over the denoiser's blocks, of that of their outputs."""


OBJECTIVE_KINDS = Kinds(
    ContrastiveObjective,
    GroupedContrastiveObjective,
    SigmoidObjective,
    ClassPrototypeObjective,
    CaptioningObjective,
    MaskedTextObjective,
    MaskedImageObjective,
    TextDistillationObjective,
    ClipDistillationObjective,
    AnswersObjective,
    ImageTextQueriesObjective,
    ReconstructionObjective,
    MaskedCodesObjective,
    ConditionDistillationObjective,
)
ObjectiveSpec = Annotated[LossSpec, OBJECTIVE_KINDS]
"""The spec of any loss; each has a `kind` and a `weight`."""
