"""Specs of losses that let a model learn from another one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlkit.spec.objectives import LossSpec


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
