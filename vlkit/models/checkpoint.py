"""Model folders: a spec, weights, the encoders' own files and a card, all that ``load`` needs."""

from __future__ import annotations

import contextlib
import json
import re
from os import PathLike
from pathlib import Path

import torch
from pydantic import ValidationError

from vlkit.errors import SpecError, VlkitError
from vlkit.files import atomic_folder
from vlkit.models.build import build
from vlkit.models.card import render_card
from vlkit.models.dual_encoder import DualEncoder
from vlkit.models.locate import SPEC, Located, locate
from vlkit.models.weights import assign_weights, read_weights, write_weights
from vlkit.nn.heads import build_head
from vlkit.spec.base import Spec
from vlkit.spec.load import dump_yaml, read_document
from vlkit.spec.model import DualEncoderSpec, ModelSpec
from vlkit.spec.parts import IdentityHead, MlpHead, TinyImage, TinyText
from vlkit.spec.problems import problems_of
from vlkit.version import __version__

_HEADER = "# A model folder of vlkit: vlkit.load() needs nothing else.\n"
_TINY = DualEncoderSpec(
    image=TinyImage(), text=TinyText(), embed_dim=32, image_head=MlpHead(hidden=64), text_head=MlpHead(hidden=64)
)


class _SpecFile(Spec):
    """What spec.yaml holds."""

    vlkit: str
    """The version that wrote it."""
    model: ModelSpec
    """What the folder's weights are of."""


def save(
    model: DualEncoder, folder: str | PathLike[str], *, card: str | None = None, dtype: torch.dtype | None = None
) -> Path:
    """Writes a model folder; an older one of the same name is replaced only when the new one is whole.

    Args:
        model: Every part needs a ``.spec``.
        folder: A new place, an empty folder, or an older model folder.
        card: The README.md; None writes one from what the model itself tells.
        dtype: Store floating-point weights in this type; None keeps theirs.

    Raises:
        VlkitError: A part has no spec, the folder holds something else, or the disk is full.
    """
    target = Path(folder).expanduser()
    spec = model.spec
    _check_target(target)
    with atomic_folder(target) as scratch:
        write_weights(model, scratch, dtype=dtype)
        for name, part in (("image", model.image), ("text", model.text)):
            (scratch / name).mkdir()
            part.save_config(scratch / name)
            with contextlib.suppress(OSError):
                (scratch / name).rmdir()  # parts that have nothing to tell leave no folder
        (scratch / "README.md").write_text(render_card(model) if card is None else card, encoding="utf-8")
        (scratch / SPEC).write_text(_HEADER + dump_yaml(_SpecFile(vlkit=__version__, model=spec)), encoding="utf-8")
    return target


def load(
    name_or_path: str | PathLike[str], *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> DualEncoder:
    """A model in eval mode, ready to use; torch's random state is left as it was.

    Args:
        name_or_path: A folder of vlkit's, open_clip's or transformers'; ``open_clip:MODEL/TAG`` or
            ``open_clip:MODEL/FILE``; ``hf:ID`` or ``hf-hub:ORG/NAME``; ``tiny`` for a small random model.
        device: Where to put it; None is the CPU.
        dtype: Cast floating-point weights to this type; None takes them as stored.

    Raises:
        UnknownName: Nothing of this name.
        VlkitError: The files are missing, damaged, of a newer version, or do not belong together.
    """
    found = locate(str(name_or_path))
    with torch.random.fork_rng(devices=[]):
        if found.kind == "vlkit":
            model = _load_folder(Path(found.where), dtype)
        else:
            model = _load_other(found)
            if dtype is not None:
                assign_weights(model, model.state_dict(), dtype=dtype)
    return model.eval() if device is None else model.eval().to(device)


def read_spec(folder: Path) -> ModelSpec:
    """The spec in a model folder.

    Raises:
        VlkitError: It is missing or damaged, or has keys of a newer version.
    """
    path = folder / SPEC
    tree = read_document(path)
    try:
        return _SpecFile.model_validate_json(json.dumps(tree.plain())).model
    except ValidationError as error:
        raise VlkitError(
            str(SpecError(problems_of(error, tree, _SpecFile))) + _newer(tree.plain().get("vlkit"))
        ) from error


def _newer(version: object) -> str:
    if not isinstance(version, str) or _numbers(version) <= _numbers(__version__):
        return ""
    return f"\nIt was saved by vlkit {version}, this is vlkit {__version__}; run: pip install -U vlkit"


def _numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version)[:3]]


def _load_folder(folder: Path, dtype: torch.dtype | None) -> DualEncoder:
    spec = read_spec(folder)
    state = read_weights(folder)
    try:
        model = build(spec, saved=folder)
    except OSError as error:
        raise VlkitError(f"the model folder {folder} is not complete: {error}; copy or save the model again") from error
    assign_weights(model, state, dtype=dtype, where=folder)
    return model


def _load_other(found: Located) -> DualEncoder:
    from vlkit.parts import clip_models

    if found.kind == "tiny":
        torch.default_generator.manual_seed(0)
        return build(_TINY)
    loader = clip_models.load_open_clip if found.kind == "open_clip" else clip_models.load_hf_clip
    image, text, similarity = loader(found.where)
    usual = DualEncoderSpec.model_fields["max_scale"].default
    width = image.width
    return DualEncoder(
        image,
        text,
        embed_dim=width,
        image_head=build_head(IdentityHead(), width, width),
        text_head=build_head(IdentityHead(), text.width, width),
        init_scale=similarity.scale,
        max_scale=max(usual, similarity.scale),  # SigLIP's own is above 100
        init_bias=similarity.bias,
    )


def _check_target(target: Path) -> None:
    if target.is_dir():
        if any(target.iterdir()) and not (target / SPEC).is_file():
            raise VlkitError(
                f"{target} holds something else than a model (no {SPEC}), and saving would replace all of it; "
                f"choose a new folder"
            )
    elif target.exists():
        raise VlkitError(f"{target} is a file; choose a folder")
