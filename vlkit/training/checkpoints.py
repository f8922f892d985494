"""Checkpoints that make a resumed run equal to an uninterrupted one.

A checkpoint holds what training changed, the optimiser's state, the state of each process's random numbers, and the
place in the recipe. Weights that are still those that the recipe's model was built with are only named, by digest: they
are built again.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlkit.distributed.runtime import Runtime
from vlkit.distributed.sharding import like, tensors_of, whole
from vlkit.errors import VlkitError, some
from vlkit.files import atomic_folder, sha256
from vlkit.models.trainable import Snapshot, part_of
from vlkit.training.average import WeightAverage
from vlkit.training.run_folder import steps_in
from vlkit.training.trainee import Trainee
from vlkit.types import Model, as_module

log = logging.getLogger(__name__)
_TENSORS, _STATE = "state.safetensors", "state.json"
FORMAT = 2
"""Of checkpoints: 2 since vlkit 0.4."""
_DAMAGE = (ValueError, KeyError, TypeError, SafetensorError)


@dataclass(frozen=True)
class Place:
    """Where a run stands: ``step`` optimizer steps are done in all, ``stage_step`` of them in stage number ``stage``.

    ``metrics_bytes`` is the length of metrics.jsonl then; ``recipe`` the digest of the recipe; ``skipped`` how many
    steps changed nothing because a loss or gradient was not finite.
    """

    step: int
    stage: int
    stage_step: int
    metrics_bytes: int
    recipe: str
    skipped: int = 0


class Saved(NamedTuple):
    """What a checkpoint holds.

    ``before`` is the model at the start of the stage, ``processes`` what each one noted, ``untouched`` the digests of
    the weights that are not in it.
    """

    path: Path
    place: Place
    before: Snapshot
    processes: list[dict[str, Any]]
    tensors: dict[str, Tensor]
    untouched: Mapping[str, str]

    def under(self, kind: str) -> dict[str, Tensor]:
        """The tensors of one kind by name: ``model``, ``average``."""
        start = f"{kind}/"
        return {name.removeprefix(start): x for name, x in self.tensors.items() if name.startswith(start)}


def untouched(origin: Snapshot, before: Snapshot, trained: Collection[str]) -> dict[str, str]:
    """Digests of the parameters and buffers that training leaves as the model was built, by name.

    ``trained`` are the reported parts in which something trains in this stage or did in an earlier one.
    """
    built = {**origin.parameters, **origin.buffers}
    now = {**before.parameters, **before.buffers}
    children = {part.partition(".")[0] for part in trained}
    return {name: digest for name, digest in built.items() if part_of(name) not in children and now.get(name) == digest}


def changing_tensors(
    trainee: Trainee,
    optimizer: torch.optim.Optimizer,
    *,
    left_out: Collection[str],
    average: WeightAverage | None = None,
) -> dict[str, Tensor]:
    """Copies on the CPU of what training changes; every process calls it, and only rank 0 gets them.

    The model was brought up to date (``settle``); ``left_out`` names the tensors that are still as it was built.
    """
    tensors: dict[str, Tensor] = {}
    own = tensors_of(as_module(trainee.home))
    found = [(f"model/{name}", tensor) for name, tensor in own if name not in left_out]
    found += [(f"optimizer/{name}", tensor) for name, tensor in _optimizer_tensors(trainee.model, optimizer)]
    found += [] if average is None else [(f"average/{name}", tensor) for name, tensor in average.tensors.items()]
    for name, tensor in found:
        one = whole(tensor)
        if trainee.runtime.leads:
            tensors[name] = one.cpu().contiguous().clone()
    return tensors


def random_state() -> dict[str, Tensor]:
    """The state of torch's random numbers in this process."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def write_checkpoint(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    place: Place,
    before: Snapshot,
    processes: Sequence[Mapping[str, Any]],
    untouched: Mapping[str, str],
    keep: int,
) -> Path:
    """Writes ``folder/step-N`` whole or not at all, then deletes all but the ``keep`` newest.

    ``before`` is the model at the start of the stage; ``processes`` are notes of each process, which JSON can hold, and
    under ``random`` its ``random_state``; ``untouched`` the digests of the weights that are not in ``tensors``.

    Raises:
        VlkitError: The disk is full; older checkpoints are untouched.
    """
    target, notes = folder / f"step-{place.step}", []
    tensors = dict(tensors)
    for rank, process in enumerate(processes):
        notes.append({name: value for name, value in process.items() if name != "random"})
        tensors |= {f"random/{rank}/{device}": state for device, state in process["random"].items()}
    with atomic_folder(target, then="go on with --resume") as scratch:
        save_file(tensors, scratch / _TENSORS)
        state = {
            "format": FORMAT,
            "place": asdict(place),
            "before": asdict(before),
            "processes": notes,
            "untouched": dict(untouched),
            "sha256": sha256(scratch / _TENSORS),
        }
        (scratch / _STATE).write_text(json.dumps(state), encoding="utf-8")
    for old in steps_in(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def read_checkpoint(folder: Path, runtime: Runtime) -> Saved | None:
    """The newest whole checkpoint under ``folder``; damaged ones are passed over with a warning. None without any.

    With several processes, rank 0 chooses and all others take the same one.

    Raises:
        VlkitError: There are checkpoints and all are damaged, or another machine does not see them.
    """
    chosen: list[Saved | None] = []
    runtime.first(lambda: chosen.append(_newest_whole(folder)))
    path = runtime.host.gather_objects(str(chosen[0].path) if chosen and chosen[0] else None)[0]
    if chosen or path is None:
        return chosen[0] if chosen else None
    try:
        return _read(Path(path))
    except (OSError, *_DAMAGE) as error:
        raise VlkitError(
            f"rank {runtime.ranks.rank} cannot read {path} ({error}); the run folder must lie on a file system that "
            f"all machines share"
        ) from error


def checkpoint_model(path: Path) -> dict[str, Tensor]:
    """The model's tensors that a checkpoint holds, by name.

    Raises:
        VlkitError: It is damaged, or of another format.
    """
    try:
        return _read(path).under("model")
    except (OSError, *_DAMAGE) as error:
        raise VlkitError(f"checkpoint {path} is damaged ({error}); delete it and try again") from error


def _newest_whole(folder: Path) -> Saved | None:
    found = steps_in(folder)
    for path in found:
        try:
            return _read(path)
        except VlkitError:
            raise
        except (OSError, *_DAMAGE) as error:
            log.warning("checkpoint %s is damaged (%s); trying the one before", path, error)
    if found:
        raise VlkitError(
            f"all {len(found)} checkpoints in {folder} are damaged; start anew with --overwrite or another run.folder"
        )
    return None


def restore_model(model: nn.Module, saved: Saved, origin: Snapshot) -> None:
    """Puts the checkpoint's parameters and buffers into a model that was built anew.

    ``origin`` are the digests of the model as the recipe builds it.

    Raises:
        VlkitError: The checkpoint is of another model, or what it does not hold is no longer what it was.
    """
    own, built = dict(tensors_of(model)), {**origin.parameters, **origin.buffers}
    if others := [name for name, digest in saved.untouched.items() if built.get(name) != digest]:
        raise VlkitError(
            f"cannot go on from {saved.path}: of the frozen weights, {some(others, most=3)} are not those that "
            f"the run was started with; bring back the same files and versions of the libraries, or start anew with "
            f"--overwrite"
        )
    for name, tensor in saved.under("model").items():
        if name not in own or own[name].shape != tensor.shape:
            raise VlkitError(f"the checkpoint has {name} {list(tensor.shape)}, which the recipe's model has not")
        own[name].data.copy_(tensor)


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back the optimiser's running averages."""
    by_name = dict(model.named_parameters())
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            parameter, _, field = rest.rpartition("/")
            owner = by_name[parameter]
            optimizer.state[owner][field] = tensor if field == "step" else like(tensor, owner)


def restore_random(tensors: Mapping[str, Tensor], rank: int) -> None:
    """Puts back the random numbers of a process; leaves them where the checkpoint has none for it."""
    if f"random/{rank}/cpu" in tensors:
        torch.set_rng_state(tensors[f"random/{rank}/cpu"])
    if f"random/{rank}/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"random/{rank}/cuda"])


def _read(path: Path) -> Saved:
    state = json.loads((path / _STATE).read_text(encoding="utf-8"))
    if state.get("format") != FORMAT:
        raise VlkitError(
            f"{path} is a checkpoint of format {state.get('format', 1)}, and this version of vlkit goes on from format "
            f"{FORMAT}: start anew with --overwrite, or go on with the version that the run was started with"
        )
    if sha256(path / _TENSORS) != state["sha256"]:
        raise ValueError("its tensors are not those that were written")
    place, before = Place(**state["place"]), Snapshot(**state["before"])
    return Saved(path, place, before, state["processes"], load_file(path / _TENSORS), state["untouched"])


def _optimizer_tensors(model: Model, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in as_module(model).named_parameters()}
    for parameter, state in optimizer.state.items():
        for field, tensor in state.items():
            yield f"{names[parameter]}/{field}", tensor
