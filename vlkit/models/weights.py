"""Tensors in files and out of them: safetensors, in shards when large, with shared tensors written once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vlkit.errors import VlkitError, some
from vlkit.files import write_atomic
from vlkit.foreign import parse_json, read_json

M = TypeVar("M")
_COMPILED = "_orig_mod."  # what torch.compile puts before the names of what it wraps
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 4 << 30


def uncompiled(module: M) -> M:
    """What torch.compile wraps, or the module itself."""
    inner: M = getattr(module, "_orig_mod", module)
    return inner


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by the names that they have where nothing is compiled."""
    return {name.replace(_COMPILED, ""): tensor for name, tensor in module.state_dict().items()}


def write_weights(
    model: nn.Module | Mapping[str, Any],
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes parameters and persistent buffers as ``model.safetensors``, or as shards with an index like transformers'.

    Args:
        model: Whose tensors, or the tensors by name; those that are shared are written once, the others named in the
            file's metadata.
        folder: An existing folder.
        dtype: Store floating-point tensors in this type (scalars keep theirs); None keeps all as they are.
        shard_bytes: Largest size of one file; a single larger tensor has a file of its own.

    Raises:
        VlkitError: Something in the state dict is not a tensor.
    """
    kept, shared = _without_copies(plain_state(model) if isinstance(model, nn.Module) else model)
    sizes = {name: tensor.numel() * _stored(tensor, dtype).itemsize for name, tensor in kept.items()}
    shards = _split(sizes, shard_bytes)
    metadata = {"format": "pt"} | ({"shared": json.dumps(shared)} if shared else {})
    where: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors({name: kept[name] for name in names}, folder / file, metadata=metadata, dtype=dtype)
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())} | metadata, "weight_map": where}
        write_atomic(folder / INDEX, json.dumps(index, indent=2) + "\n")


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str], dtype: torch.dtype | None = None
) -> None:
    """Writes one file of tensors, on the CPU and apart from each other; ``dtype`` as for ``write_weights``.

    What the disk refuses is named by whoever writes the folder (``files.atomic_folder``).
    """
    save_file({name: _alone(tensor, dtype) for name, tensor in tensors.items()}, path, metadata=metadata)
    path.chmod(0o644)  # as all other files; safetensors lets the owner alone read


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, on the CPU (mapped from the file, so cheap until used).

    Raises:
        VlkitError: A file is missing or damaged.
    """
    if (folder / INDEX).is_file():
        files, metadata = _read_index(folder / INDEX)
    elif (folder / WEIGHTS).is_file():
        files, metadata = [WEIGHTS], {}
    else:
        raise VlkitError(f"no weights in {folder}: neither {WEIGHTS} nor {INDEX} is there; save the model again")
    state: dict[str, Tensor] = {}
    for file in files:
        tensors, found = _read_file(folder / file)
        state |= tensors
        metadata = metadata | found
    where = f"cannot read the weights in {folder}: the note on shared tensors is damaged"
    shared = parse_json(metadata.get("shared", "{}"), where=where, expected=dict, error=VlkitError)
    if not all(isinstance(source, str) for source in shared.values()):
        raise VlkitError(f"{where}: it should say which tensor is the same as which other")
    return state | {name: state[source] for name, source in shared.items() if source in state}


def assign_weights(
    model: nn.Module, state: Mapping[str, Tensor], *, dtype: torch.dtype | None = None, where: object = "the weights"
) -> None:
    """Puts ``state`` in the place of the model's parameters and persistent buffers, without copying.

    Shared parameters stay shared. Buffers that are computed and not saved (rotary frequencies, position ids) keep their
    values and their type.

    ``state`` has exactly the model's names and shapes; ``dtype`` casts floating-point tensors (scalars keep theirs);
    ``where`` is the file or folder, for messages.

    Raises:
        VlkitError: Names or shapes differ.
    """
    wanted = model.state_dict()
    _check_names(wanted, state, where)
    ties = _ties(model)
    model.load_state_dict({name: tensor.to(_stored(tensor, dtype)) for name, tensor in state.items()}, assign=True)
    for first, *others in ties:
        parameter = model.get_parameter(first)
        for name in others:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, parameter)


def _without_copies(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    kept: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise VlkitError(
                f"cannot save {name!r}: it is a {type(tensor).__name__}, and a model folder holds tensors only"
            )
        if tensor.is_meta:
            raise VlkitError(
                f"cannot save {name!r}: it is on the meta device and has no values; build the model with its weights"
            )
        key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in first:
            shared[name] = first[key]
        else:
            first[key] = name
            kept[name] = tensor
    return kept, shared


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    # A scalar (the similarity scale, a step count) gains nothing from fewer bits and loses what it says.
    return dtype if dtype and tensor.is_floating_point() and tensor.ndim else tensor.dtype


def _alone(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    plain = tensor.detach().to("cpu", _stored(tensor, dtype)).contiguous()
    # A view would drag its whole storage along, and safetensors refuses two views of one.
    return plain if plain.untyped_storage().nbytes() == plain.nbytes else plain.clone()


def _split(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _read_index(path: Path) -> tuple[list[str], dict[str, str]]:
    try:
        index = read_json(path, expected=dict)
        files = sorted(set(index["weight_map"].values()))
        metadata = {name: value for name, value in index.get("metadata", {}).items() if isinstance(value, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VlkitError(f"cannot read {path}: {error!r}; the file is damaged: copy the model folder again") from error
    for file in files:
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise VlkitError(f"{path} names {file!r}, which is no safetensors file beside it; do not trust this folder")
        if not (path.parent / file).is_file():
            raise VlkitError(f"{path} names {file}, which is not there; copy the model folder again, all of it")
    return files, metadata


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise VlkitError(
            f"cannot read {path}: {error}; the file is damaged: copy it again or save the model again"
        ) from error


def _check_names(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: object) -> None:
    problems = []
    if missing := [name for name in wanted if name not in given]:
        problems.append(f"{len(missing)} tensors are missing ({some(missing, most=3)})")
    if extra := [name for name in given if name not in wanted]:
        problems.append(f"{len(extra)} are not of this model ({some(extra, most=3)})")
    for name, tensor in given.items():
        if name in wanted and wanted[name].shape != tensor.shape:
            problems.append(f"{name} is {list(tensor.shape)} and should be {list(wanted[name].shape)}")
        elif name in wanted and wanted[name].is_floating_point() != tensor.is_floating_point():
            problems.append(f"{name} is of {tensor.dtype} and should be of {wanted[name].dtype}")
    if problems:
        shown = "; ".join(problems[:4])
        raise VlkitError(
            f"{where} does not fit the model its spec describes: {shown}. "
            f"Its files do not belong together; copy or save it again"
        )


def _ties(model: nn.Module) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]
