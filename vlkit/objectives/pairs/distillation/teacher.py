"""A frozen model to learn from.

Shapes: B texts, E embedding width.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.feature_cache import Remembering
from vlkit.models.folder import load
from vlkit.parts.tokenizers import tokenize_mixed


def load_teacher(name: str, student: DualEncoder, *, remember: bool = False) -> DualEncoder:
    """The teacher, frozen, on the device of the student.

    Args:
        name: What ``vlkit.load`` takes.
        student: What learns from it.
        remember: Keep its text features in the cache.

    Raises:
        VlkitError: There is no such model.
    """
    teacher = load(name, device=student.log_scale.device, expect=DualEncoder).requires_grad_(False)
    if remember:
        memory = Remembering(cast("nn.Module", teacher.text))
        cast("Any", teacher).text = memory
        weakref.finalize(teacher, memory.flush)
    return teacher


@torch.no_grad()
def raw_texts(teacher: DualEncoder, texts: Sequence[str], languages: Sequence[str]) -> Tensor:
    """The teacher's raw_text_BE of texts, each read in its own language.

    Raises:
        VlkitError: There are no texts.
    """
    if not texts:
        raise VlkitError("distillation needs the captions of a batch; its reader does not give them")
    return teacher.raw_text(tokenize_mixed(teacher.tokenize, texts, languages))
