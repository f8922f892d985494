"""Export to transformers: written, loaded there by itself, compared, and only then put in its place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import torch

from vlkit.adapt.inject import adapter_of, merge
from vlkit.errors import UnknownName, VlkitError
from vlkit.files import atomic_folder
from vlkit.models.card_text import CardFacts
from vlkit.models.export_folder import Exported, claimed, without_logs
from vlkit.models.vision_language.card import render_card
from vlkit.models.vision_language.export.check import LogitDifferences, compare, probe
from vlkit.models.vision_language.export.to_blip2 import blip2_usage, write_blip2
from vlkit.models.vision_language.export.to_llava import llava_usage, write_llava
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.parts.building import said

Format = Literal["blip2", "llava"]
TOLERANCE = 1e-4
_WRITERS: dict[str, Callable[[VisionLanguageModel, Path], list[str]]] = {"blip2": write_blip2, "llava": write_llava}
_USAGE: dict[str, Callable[[VisionLanguageModel], str]] = {"blip2": blip2_usage, "llava": llava_usage}


def export(
    model: VisionLanguageModel,
    folder: str | PathLike[str],
    *,
    format: Format,
    overwrite: bool = False,
    repo: str | None = None,
) -> Exported:
    """Writes a model for transformers; see ``models.registry.export``.

    ``blip2``: a ``Blip2ForConditionalGeneration``, of a BLIP-2 image encoder with its class token, a Q-Former and any
    language model of transformers. ``llava``: a ``LlavaForConditionalGeneration``, of any image encoder of
    transformers, a perceptron of two maps and a decoder-only language model. Both with tokenizer, image processor and
    what else their own ``from_pretrained`` reads; ``repo`` is not needed.

    Raises:
        VlkitError: transformers has no such model, the folder is taken, or logits differ by more than TOLERANCE.
    """
    if format not in get_args(Format):
        raise UnknownName("format", format, allowed=get_args(Format))
    target = claimed(model, folder, overwrite=overwrite)
    plain = copy.deepcopy(model).to("cpu", torch.float32).eval()
    own = probe(plain)
    if any(adapter_of(part) is not None for part in plain.modules()):
        merge(plain)
    with atomic_folder(target) as scratch:
        with torch.random.fork_rng(devices=[]), without_logs():
            notes = _WRITERS[format](plain, scratch)
            try:
                found = compare(plain, scratch, own=own, format=format)
            except Exception as error:  # whatever the other library raises
                raise VlkitError(
                    f"transformers cannot load what was written, so nothing was kept: {said(error)}"
                ) from error
        notes += _checked(found)
        usage = _USAGE[format](plain).replace("FOLDER", repo or "path/to/this/folder")
        facts = CardFacts(title=target.name, limits=notes)
        card = render_card(plain, facts, library="transformers", usage=usage)
        (scratch / "README.md").write_text(card, encoding="utf-8")
    return Exported(target, found, tuple(notes), TOLERANCE)


def _checked(found: LogitDifferences) -> list[str]:
    """What is to be said of prompts; logits of equal input must be equal.

    Raises:
        VlkitError: They are not.
    """
    if not found.logits <= TOLERANCE:  # NaN is too far, too
        raise VlkitError(
            f"transformers gives other logits than this model, so nothing was kept (largest difference: "
            f"{found.logits:.2g}; allowed: {TOLERANCE:g}); keep vlkit's own format and report this"
        )
    if found.prompts <= TOLERANCE:
        return []
    return [
        "prompts differ: the library's own tokenizer or preprocessing makes other input of the same question and "
        "picture than this model does; equal ids and pixels give equal logits"
    ]
