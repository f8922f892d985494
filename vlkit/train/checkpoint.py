"""Checkpoints that make a resumed run equal to an uninterrupted one.

A checkpoint holds what training changes (everything but the encoders that were frozen so far), the optimiser's state,
the state of torch's random numbers, and the place in the recipe. Encoders that never trained are built again from the
recipe.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.files import atomic_folder, sha256
from vlkit.models.freeze import Snapshot

log = logging.getLogger(__name__)
_TENSORS, _STATE = "state.safetensors", "state.json"
_ENCODERS = ("image", "text")  # large, and built again from the recipe where they never trained


@dataclass(frozen=True)
class Place:
    """Where a run stands: ``step`` optimizer steps are done in all, ``stage_step`` of them in stage number ``stage``.

    ``metrics_bytes`` is the length of metrics.jsonl then; ``recipe`` the digest of the recipe.
    """

    step: int
    stage: int
    stage_step: int
    metrics_bytes: int
    recipe: str


class Saved(NamedTuple):
    """What a checkpoint holds; ``before`` is the model at the start of the stage."""

    place: Place
    before: Snapshot
    tensors: dict[str, Tensor]


def write_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    place: Place,
    before: Snapshot,
    trained: Collection[str],
    keep: int,
) -> Path:
    """Writes ``folder/step-N`` whole or not at all, then deletes all but the ``keep`` newest.

    Args:
        folder: Where checkpoints lie.
        model: Its state is written,
        optimizer: and that of its optimiser.
        place: Where the run stands.
        before: The model at the start of the stage.
        trained: Direct parts of the model in which something trains in this stage or did in an earlier one.
        keep: How many checkpoints to leave.

    Raises:
        VlkitError: The disk is full; older checkpoints are untouched.
    """
    tensors = {f"model/{name}": tensor for name, tensor in _changing(model, trained).items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in _optimizer_tensors(model, optimizer)}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    target = folder / f"step-{place.step}"
    with atomic_folder(target) as scratch:
        try:
            save_file(
                {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
                scratch / _TENSORS,
            )
        except SafetensorError as error:  # an OSError would have been named by atomic_folder
            raise VlkitError(f"cannot write {target}: {error}; free some space and go on with --resume") from error
        state = {"place": asdict(place), "before": asdict(before), "sha256": sha256(scratch / _TENSORS)}
        (scratch / _STATE).write_text(json.dumps(state), encoding="utf-8")
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def read_checkpoint(folder: Path) -> Saved | None:
    """The newest whole checkpoint under ``folder``; damaged ones are passed over with a warning. None without any.

    Raises:
        VlkitError: There are checkpoints and all are damaged.
    """
    found = _newest_first(folder)
    for path in found:
        try:
            state = json.loads((path / _STATE).read_text(encoding="utf-8"))
            if sha256(path / _TENSORS) != state["sha256"]:
                raise ValueError("its tensors are not those that were written")
            return Saved(Place(**state["place"]), Snapshot(**state["before"]), load_file(path / _TENSORS))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged (%s); trying the one before", path, error)
    if found:
        raise VlkitError(
            f"all {len(found)} checkpoints in {folder} are damaged; start anew with --overwrite or another run.folder"
        )
    return None


def restore_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Puts the checkpoint's parameters and buffers into the model.

    Raises:
        VlkitError: The checkpoint is of another model.
    """
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    saved = {name.removeprefix("model/"): tensor for name, tensor in tensors.items() if name.startswith("model/")}
    for name, tensor in saved.items():
        if name not in own or own[name].shape != tensor.shape:
            raise VlkitError(f"the checkpoint has {name} {list(tensor.shape)}, which the recipe's model has not")
        own[name].data.copy_(tensor)


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back the optimiser's running averages and the random state."""
    by_name = dict(model.named_parameters())
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            parameter, _, field = rest.rpartition("/")
            optimizer.state[by_name[parameter]][field] = tensor.to(by_name[parameter].device) if tensor.ndim else tensor
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])


def _changing(model: nn.Module, trained: Collection[str]) -> dict[str, Tensor]:
    """Everything but encoders that never trained: a warm start changes heads that do not train."""
    every = (*model.named_parameters(), *model.named_buffers())
    return {
        name: tensor
        for name, tensor in every
        if name.partition(".")[0] in trained or name.partition(".")[0] not in _ENCODERS
    }


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, state in optimizer.state.items():
        for field, tensor in state.items():
            yield f"{names[parameter]}/{field}", tensor


def _newest_first(folder: Path) -> list[Path]:
    numbered = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)
