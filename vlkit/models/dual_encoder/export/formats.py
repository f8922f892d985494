"""Export to open_clip, transformers and ONNX: written, loaded there, compared, and only then put in its place."""

from __future__ import annotations

import copy
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import torch

from vlkit.adapt.inject import adapter_of, merge
from vlkit.errors import UnknownName, VlkitError
from vlkit.files import atomic_folder
from vlkit.models.card_text import CardFacts
from vlkit.models.dual_encoder.card import render_card
from vlkit.models.dual_encoder.export.check import Differences, Probe, compare, probe
from vlkit.models.dual_encoder.export.to_onnx import USAGE, OnnxDifferences, compare_onnx, write_onnx
from vlkit.models.dual_encoder.export.to_open_clip import name_text_tower, write_open_clip
from vlkit.models.dual_encoder.export.to_transformers import write_transformers
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.export_folder import Exported, claimed, without_logs
from vlkit.parts.building import said

Format = Literal["open_clip", "transformers", "onnx"]
TOLERANCE = 1e-5
ONNX_TOLERANCE = 1e-4  # other kernels, which add up in another order
_WRITERS = {"open_clip": write_open_clip, "transformers": write_transformers, "onnx": write_onnx}


def export(
    model: DualEncoder, folder: str | PathLike[str], *, format: Format, overwrite: bool = False, repo: str | None = None
) -> Exported:
    """Writes a model for another library; see ``models.registry.export``.

    ``open_clip``: ``open_clip_config.json``, ``open_clip_model.safetensors`` and tokenizer files, for
    ``open_clip.create_model_and_transforms("local-dir:FOLDER")``. ``transformers``: ``config.json``,
    ``model.safetensors``, processor and tokenizer, for ``AutoModel.from_pretrained("FOLDER")``. ``onnx``:
    ``image.onnx``, ``text.onnx``, ``onnx_config.json``, tokenizer files. ``repo``: open_clip's config names the folder
    of a transformers text tower; a hub id (``ORG/NAME``) makes a folder to be uploaded there.

    Raises:
        VlkitError: The other library has no such model, the folder is taken, or the embeddings differ by more than
            TOLERANCE (ONNX_TOLERANCE); a package that writes the format is not installed.
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
            differences = _checked(plain, scratch, own=own, format=format, notes=notes)
        if format == "open_clip":
            name_text_tower(scratch, repo or str(target))
        facts = CardFacts(title=target.name, limits=notes)
        card = render_card(plain, facts, library=format, usage=_usage(format, repo))
        (scratch / "README.md").write_text(card, encoding="utf-8")
    return Exported(target, differences, tuple(notes), _tolerance(format))


def _tolerance(format: Format) -> float:
    return ONNX_TOLERANCE if format == "onnx" else TOLERANCE


def _checked(
    model: DualEncoder, folder: Path, *, own: Probe, format: Format, notes: list[str]
) -> Differences | OnnxDifferences:
    found: Differences | OnnxDifferences
    try:
        if format == "onnx":
            found = compare_onnx(model, folder, own=own)
        else:
            found = compare(model, folder, own=own, library=format)
    except Exception as error:  # whatever the other library raises
        raise VlkitError(f"{format} cannot load what was written, so nothing was kept: {said(error)}") from error
    allowed = _tolerance(format)
    worst = {name: value for name, value in found._asdict().items() if not value <= allowed}  # NaN is too far, too
    if any(note.startswith("preprocessing differs") for note in notes):
        worst.pop("images", None)
    if worst:
        shown = ", ".join(f"{name} {value:.2g}" for name, value in worst.items())
        raise VlkitError(
            f"{format} gives other embeddings than this model, so nothing was kept (largest differences: {shown}; "
            f"allowed: {allowed:g}); keep vlkit's own format and report this"
        )
    return found


def _usage(format: Format, repo: str | None) -> str:
    if format == "onnx":
        return USAGE
    if format == "open_clip":
        name = f"hf-hub:{repo}" if repo else "local-dir:path/to/this/folder"
        return f"""import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("{name}")
tokenizer = open_clip.get_tokenizer("{name}")"""
    name = repo or "path/to/this/folder"
    return f"""from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("{name}")
processor = AutoImageProcessor.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")"""
