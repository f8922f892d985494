"""What trains: freezing by part name, the table that shows it, and the check that it was so.

A part is a direct child of a model (``image``, ``text_head``), a module inside one (``image.model.blocks``) or a
parameter there (``bridge.queries``, without the legend of its shape), ``scale``: the parameters that the model itself
owns (scale and bias of the similarities), or the adapter inside a child: ``text_adapter`` is what an adapter added to
``text``, and ``text`` then means all else in it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from vlkit.adapt.inject import adapter_of, is_adapter
from vlkit.errors import UnknownName, VlkitError, some
from vlkit.models.digest import tensor_digest
from vlkit.models.weights import uncompiled
from vlkit.notebook import bar, table
from vlkit.spec.adapt import AdapterSpec
from vlkit.types import Model

if TYPE_CHECKING:
    from rich.table import Table

SCALE, ADAPTER = "scale", "_adapter"
_HEADER, _SIDES = ("part", "parameters", "trainable", "dtype", "lr"), "<>><>"
_TRAINED_BYTES = 4  # of a weight that trains


def part_names(model: nn.Module) -> tuple[str, ...]:
    """The parts that every report lists: children, their adapters, ``scale`` where the model owns parameters."""
    adapted = {part_of(name) for name, _ in model.named_parameters() if is_adapter(name)}
    children = [name for name, _ in model.named_children()]
    parts = [part for child in children for part in (child, f"{child}{ADAPTER}") if part in (child, *adapted)]
    return (*parts, SCALE) if any(True for _ in model.parameters(recurse=False)) else tuple(parts)


def part_of(name: str) -> str:
    """The reported part that a parameter or buffer belongs to, by its full name."""
    child, dot, _ = name.partition(".")
    if not dot:
        return SCALE
    return f"{child}{ADAPTER}" if is_adapter(name) else child


def part_parameters(model: nn.Module, part: str) -> list[nn.Parameter]:
    """All parameters of one part.

    Raises:
        UnknownName: There is no such part.
    """
    names = part_names(model)
    module, seen = model, ""
    for step in () if part in names else part.split("."):
        children = dict(module.named_children())
        own = {_plain(name) for name, _ in module.named_parameters(recurse=False)} if seen else set()
        if f"{seen}.{step}" == part and _plain(step) in own:
            break
        if step not in children:
            raise UnknownName(f"part of {seen}" if seen else "part", step, allowed={*children, *own} if seen else names)
        module, seen = children[step], f"{seen}.{step}".strip(".")
    # of the whole model's names, so that what two parts share belongs to the first alone and a frozen one cannot move
    return [parameter for name, parameter in model.named_parameters() if _belongs(name, part)]


def adapter_specs(model: Model) -> dict[str, AdapterSpec]:
    """The specs of the adapters in the parts of a model, by part.

    Raises:
        VlkitError: One was added inside of a part, which could not be built again.
    """
    found: dict[str, AdapterSpec] = {}
    adapted = part_names(cast("nn.Module", model))
    for name, part in model.parts().items():
        if (spec := adapter_of(part)) is not None:
            found[name] = spec
        elif f"{name}{ADAPTER}" in adapted:
            raise VlkitError(
                f"an adapter was added inside of model.{name}; add it to model.{name} itself, so it is saved"
            )
    return found


def freeze(model: nn.Module, *parts: str) -> None:
    """Stops these parts from training; they also go to eval mode and stay there (dropout off, batch statistics still).

    Raises:
        UnknownName: There is no such part; nothing was changed.
    """
    model = uncompiled(model)
    _set(_collect(model, parts), trains=False)
    _settle(model)


def unfreeze(model: nn.Module, *parts: str) -> None:
    """Lets these parts train.

    Raises:
        UnknownName: There is no such part; nothing was changed.
        VlkitError: A part has no parameters; nothing was changed.
    """
    model = uncompiled(model)
    _set(_collect(model, parts, needs_parameters=True), trains=True)
    _settle(model)


def set_trainable(model: nn.Module, parts: Iterable[str]) -> None:
    """Exactly these parts train, all others are frozen.

    Raises:
        UnknownName: There is no such part; nothing was changed.
        VlkitError: A part has no parameters or holds them in 16 bits, or none are named; nothing was changed.
    """
    model, parts = uncompiled(model), tuple(parts)
    if not parts:
        raise VlkitError(f"no part is named, so nothing would train; there are: {', '.join(part_names(model))}")
    chosen = _collect(model, parts, needs_parameters=True)
    _refuse_short_weights(model, parts)
    _set(model.parameters(), trains=False)
    _set(chosen, trains=True)
    _settle(model)


def hold_frozen_in_eval(model: nn.Module) -> None:
    """Puts every part of ``model`` whose parameters are all frozen into eval mode, as deep as needed."""
    for child in model.children():
        if not any(True for _ in child.parameters()):
            continue  # nothing to freeze: follows the model
        if any(parameter.requires_grad for parameter in child.parameters()):
            hold_frozen_in_eval(child)
        else:
            child.eval()


@contextmanager
def in_eval(module: nn.Module) -> Iterator[None]:
    """Inside the block all of a module is in eval mode; afterwards each part of it is in the mode it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _settle(model: nn.Module) -> None:
    model.train(model.training)  # parts that train again leave eval mode
    hold_frozen_in_eval(model)


def _collect(model: nn.Module, parts: Iterable[str], *, needs_parameters: bool = False) -> list[nn.Parameter]:
    found: list[nn.Parameter] = []
    for part in parts:
        parameters = part_parameters(model, part)
        if needs_parameters and not parameters:
            raise VlkitError(f"part {part!r} has no parameters, so it cannot train; leave it out")
        found += parameters
    return found


def _refuse_short_weights(model: nn.Module, parts: Iterable[str]) -> None:
    for part in parts:
        for dtype in {parameter.dtype for parameter in part_parameters(model, part)}:
            if dtype.is_floating_point and dtype.itemsize < _TRAINED_BYTES:
                short = str(dtype).removeprefix("torch.")
                raise VlkitError(
                    f"part {part!r} is to train and holds its weights in {short}, where most steps of an optimizer are "
                    f"rounded away: set dtype: float32 in its spec (loop.precision: bf16 computes in fewer bits all "
                    f"the same), or leave it frozen and train an adapter in it, which has float32 weights"
                )


def _set(parameters: Iterable[nn.Parameter], *, trains: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(trains)


@dataclass(frozen=True)
class PartRow:
    """One part: how many parameters it has, how many of them train, in which precision, at which peak learning rate."""

    part: str
    parameters: int
    trainable: int
    dtype: str
    lr: float | None


@dataclass(frozen=True)
class Report:
    """What trains, part by part; prints as a table. A parameter shared by two parts counts once in the totals.

    ``note`` says what trains beside adapters, where that may not be meant.
    """

    rows: tuple[PartRow, ...]
    parameters: int
    trainable: int
    note: str = ""

    def cells(self) -> list[tuple[str, str, str, str, str]]:
        """The rows as text, the totals last."""
        body = [
            (row.part, f"{row.parameters:,}", f"{row.trainable:,}", row.dtype, "-" if row.lr is None else f"{row.lr:g}")
            for row in self.rows
        ]
        return [*body, ("total", f"{self.parameters:,}", f"{self.trainable:,}", "", "")]

    def __str__(self) -> str:
        table = [_HEADER, *self.cells()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for line in table:
            cells = (f"{cell:{side}{width}}" for cell, side, width in zip(line, _SIDES, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, self.note] if self.note else lines)

    def _repr_html_(self) -> str:
        *body, total = self.cells()
        shares = [row.trainable / max(row.parameters, 1) for row in self.rows] + [
            self.trainable / max(self.parameters, 1)
        ]
        rows = [[*cells, bar(share)] for cells, share in zip([*body, total], shares, strict=True)]
        right = ("parameters", "trainable", "lr")
        return table((*_HEADER, "share"), rows, right=right, strong=(len(body),), below=self.note)

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(show_edge=False, pad_edge=False, caption=self.note or None, caption_justify="left")
        for name, side in zip(_HEADER, _SIDES, strict=True):
            table.add_column(name, justify="left" if side == "<" else "right")
        *body, total = self.cells()
        for row, cells in zip(self.rows, body, strict=True):
            table.add_row(*cells, style="" if row.trainable else "dim")
        table.add_section()
        table.add_row(*total, style="bold")
        return table


def trainable_report(model: nn.Module, lrs: Mapping[str, float] | None = None) -> Report:
    """The table of what trains.

    Parts are the direct children of any module; ``lrs`` are peak learning rates by part name, shown where something of
    the part trains.

    Raises:
        UnknownName: ``lrs`` names a part that does not exist.
    """
    model, lrs = uncompiled(model), dict(lrs or {})
    names = part_names(model)
    for name in lrs:
        if name not in names:
            raise UnknownName("part", name, allowed=names)
    rows = []
    for name in names:
        parameters = part_parameters(model, name)
        trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters})
        count = sum(parameter.numel() for parameter in parameters)
        rows.append(PartRow(name, count, trainable, "+".join(dtypes) or "-", lrs.get(name) if trainable else None))
    everything = list(model.parameters())
    trains = sum(parameter.numel() for parameter in everything if parameter.requires_grad)
    note = "" if lrs else _beside_adapters(rows)
    return Report(tuple(rows), sum(parameter.numel() for parameter in everything), trains, note)


def parameter_counts(model: nn.Module, stages: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """How many parameters a model has in ``total``, and by the name of each stage how many train in it."""
    trainable = {
        stage: sum(one.numel() for one in {id(one): one for one in _collect(model, parts)}.values())
        for stage, parts in stages.items()
    }
    return {"total": sum(one.numel() for one in model.parameters()), "trainable": trainable}


def _beside_adapters(rows: Sequence[PartRow]) -> str:
    """An adapter freezes the part that it is in, and no other one."""
    adapters = [row.part for row in rows if row.part.endswith(ADAPTER)]
    others = [row.part for row in rows if row.trainable and row.part not in adapters]
    if not adapters or not others:
        return ""
    names = ", ".join(repr(name) for name in others)
    return f"beside {', '.join(adapters)} also {', '.join(others)} train; vlkit.freeze(model, {names}) stops them"


@dataclass(frozen=True)
class Snapshot:
    """Digests of every parameter and buffer of a model at one moment, by name."""

    parameters: Mapping[str, str]
    buffers: Mapping[str, str]


def snapshot(model: nn.Module) -> Snapshot:
    """Digests of all parameters and buffers (about 1 s a GB)."""
    return Snapshot(
        {name: tensor_digest(tensor) for name, tensor in model.named_parameters()},
        {name: tensor_digest(tensor) for name, tensor in model.named_buffers()},
    )


def changed(before: Snapshot, after: Snapshot) -> set[str]:
    """Names of the parameters and buffers that differ."""
    old, new = {**before.parameters, **before.buffers}, {**after.parameters, **after.buffers}
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def check_moved(before: Snapshot, after: Snapshot, expected: Collection[str]) -> None:
    """Checks that training moved what it should and nothing else.

    Each part of ``expected`` must have a parameter that moved; outside of them no parameter and no buffer may have.

    Raises:
        VlkitError: Names every part that stood still, and every tensor that moved and should not have.
    """
    missing = (before.parameters.keys() ^ after.parameters.keys()) | (before.buffers.keys() ^ after.buffers.keys())
    if missing:
        raise VlkitError(
            f"the model itself changed between the two snapshots: {some(sorted(missing), most=3)} is in only one of "
            f"them"
        )
    moved = [name for name, digest in before.parameters.items() if after.parameters[name] != digest]
    stirred = [name for name, digest in before.buffers.items() if after.buffers[name] != digest]
    still = [part for part in expected if not any(_belongs(name, part) for name in moved)]
    stray = [name for name in (*moved, *stirred) if not any(_belongs(name, part) for part in expected)]
    problems = []
    if still:
        problems.append(
            f"{some(still, most=3)} should have trained and did not move (is it in the loss, and its learning rate "
            f"above 0?)"
        )
    if stray:
        problems.append(
            f"{some(stray, most=3)} moved and should not have (only {', '.join(expected) or 'nothing'} trains)"
        )
    if problems:
        raise VlkitError("; ".join(problems))


def _belongs(name: str, part: str) -> bool:
    own = part_of(name)
    return own == part or (not own.endswith(ADAPTER) and f"{_plain(name)}.".startswith(f"{_plain(part)}."))


def _plain(name: str) -> str:
    """The name of a tensor without the legend of its shape: ``queries_MW`` is ``queries``."""
    return re.sub(r"_[A-Z0-9]+$", "", name)


def training_batch_norms(model: nn.Module) -> list[str]:
    """Names of the batch norms that train: their statistics are those of the rows at hand."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
    ]


def refuse_batch_norm(model: nn.Module) -> None:
    """Refuses what a micro-batch would change: batch statistics that are taken of the rows at hand.

    Raises:
        VlkitError: A batch norm trains.
    """
    for name in training_batch_norms(model):
        raise VlkitError(
            f"loop.micro_batch: {name} is a batch norm in training, whose statistics would be those of the "
            f"micro-batch, taken twice; freeze that part or leave loop.micro_batch out"
        )
