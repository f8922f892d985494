"""The kinds of models: where each one's folder is, and how any of them is built and exported."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlkit.adapt.inject import add_adapter
from vlkit.errors import UnknownName, VlkitError
from vlkit.registry import Registry
from vlkit.spec.adapt import AdapterSpec
from vlkit.spec.model import BaseModelSpec, SavedSpec
from vlkit.types import Model

_TOO_LARGE = ("allocate memory", "out of memory", "overflow")
KINDS = Registry(
    "model",
    {
        "dual_encoder": "vlkit.models.dual_encoder",
        "vision_language": "vlkit.models.vision_language",
        "query_former": "vlkit.models.query_former",
        "image_tokenizer": "vlkit.models.image_tokenizer",
        "text_to_image": "vlkit.models.text_to_image",
        "diffusion_bridge": "vlkit.models.diffusion_bridge",
        "image_text_to_text": "vlkit.models.image_text_to_text",
    },
)
"""Kind to its package, whose modules have equal names: ``build``, ``card``, where it needs them ``start``, ..."""


def module_of(kind: str, name: str) -> Any | None:
    """A module of a kind's folder, ``module_of("dual_encoder", "build")``; None where the kind has none of this name.

    Raises:
        UnknownName: There is no such kind.
    """
    full = f"{KINDS[kind]}.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name is not None and full.startswith(error.name):
            return None
        raise


def build(spec: BaseModelSpec, *, saved: Path | None = None) -> Model:
    """The model that ``spec`` describes.

    ``saved`` is a model folder: parts are built from the configuration in it, with weights unset until a state dict is
    loaded, and nothing is downloaded.

    Raises:
        UnknownName: There is no such kind of model.
        VlkitError: A part cannot be had, or parts do not fit each other.
    """
    if isinstance(spec, SavedSpec):
        from vlkit.models.folder import load

        model: Model = load(spec.path)
        if spec.image_size is not None:
            from vlkit.models.resolution import at_size

            at_size(model, spec.image_size)
        return add_adapters(model, spec.adapters)
    return _build(spec, saved=saved, empty=False)


def build_meta(spec: BaseModelSpec, *, saved: Path | None = None) -> Model:
    """The model on the meta device: all shapes, no weights. For dry runs; ``saved`` as for ``build``."""
    if isinstance(spec, SavedSpec):
        from vlkit.models.folder import load_meta

        model = load_meta(spec.path)
        with torch.device("meta"):
            return add_adapters(model, spec.adapters)
    with torch.device("meta"):
        return _build(spec, saved=saved, empty=True)


def _build(spec: BaseModelSpec, *, saved: Path | None, empty: bool) -> Model:
    if not isinstance(spec, BaseModelSpec) or spec.kind not in KINDS:
        raise UnknownName("model", getattr(spec, "kind", type(spec).__name__), allowed=(*KINDS, "saved"))
    builder = module_of(spec.kind, "build")
    if builder is None:
        raise VlkitError(f"the folder of the kind of model {spec.kind} ({KINDS[spec.kind]}) has no build.py")
    with _sizes_told():
        model: Model = builder.build(spec, saved=saved, empty=empty)
        return add_adapters(model, spec.adapters)


@contextmanager
def _sizes_told() -> Iterator[None]:
    """Turns what torch says of sizes that no memory holds into what to do."""
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        told = str(error).lower()
        if not isinstance(error, MemoryError | OverflowError) and not any(sign in told for sign in _TOO_LARGE):
            raise
        raise VlkitError(
            f"a model of these sizes does not fit into memory ({str(error).partition(chr(10))[0][:200]}); lower the "
            f"widths, layers or rows of its parts"
        ) from error


def add_adapters(model: Model, adapters: Mapping[str, AdapterSpec]) -> Model:
    """Adds adapters to the parts of a model, in place.

    Raises:
        UnknownName: There is no such part.
        VlkitError: A part has one already, or no layer that takes it.
    """
    parts: Mapping[str, nn.Module] = model.parts()
    for name in adapters:
        if name not in parts:
            raise UnknownName("part", name, allowed=parts, hint="(key: model.adapters)")
    for name, part in parts.items():
        if name in adapters:
            add_adapter(part, adapters[name])
    return model


def export(
    model: Model, folder: str | PathLike[str], *, format: str, overwrite: bool = False, repo: str | None = None
) -> Any:
    """Writes a model for another library, after that library has loaded it and given the same results.

    Args:
        model: It is not changed; LoRA adapters are merged into what is written.
        folder: A new place or an empty folder.
        format: What the model's kind offers: ``open_clip``, ``transformers`` or ``onnx`` for a dual encoder,
            ``blip2`` or ``llava`` for a vision-language model.
        overwrite: Replace an older model in the folder.
        repo: Where the folder will be on the hub, for formats that name it in their files.

    Returns:
        What the kind says of it: ``folder``, ``differences`` and ``notes``.

    Raises:
        UnknownName: The kind of model has no such format.
        VlkitError: The kind of model cannot be exported, the folder is taken, or results differ.
    """
    kind = model.spec.kind
    formats = module_of(kind, "export.formats")
    if formats is None:
        raise VlkitError(f"a model of kind {kind} cannot be exported; save it with vlkit.save")
    return formats.export(model, folder, format=format, overwrite=overwrite, repo=repo)
