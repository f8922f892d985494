"""Writes a model of any kind for another library."""

from __future__ import annotations

from os import PathLike
from typing import Any

from vlkit.errors import VlkitError
from vlkit.models.registry import module_of
from vlkit.types import Model


def export(
    model: Model,
    folder: str | PathLike[str],
    *,
    format: str,
    overwrite: bool = False,
    repo: str | None = None,
) -> Any:
    """Writes a model for another library, after that library has loaded it and given the same results.

    Args:
        model: It is not changed; LoRA adapters are merged into what is written.
        folder: A new place or an empty folder.
        format: What the model's kind offers: ``open_clip`` or ``transformers`` for a dual encoder.
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
