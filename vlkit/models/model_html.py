"""A model as a notebook shows it: its parts, what each one is, how large it is and what of it trains."""

from __future__ import annotations

from typing import Any

from vlkit.errors import VlkitError
from vlkit.models.assembly import part_kind
from vlkit.models.registry import module_of
from vlkit.models.trainable import ADAPTER, trainable_report
from vlkit.notebook import Markup, bar, quiet, table
from vlkit.types import Model, as_module

_DETAILS = ("image mean", "image std")  # facts of no interest at a glance


def model_html(model: Model) -> str:
    """The parts as a table, with a bar for the share of each that trains, and below it what its kind tells of it."""
    rows: list[list[object]] = []
    report = trainable_report(as_module(model))
    for row in report.rows:
        share = row.trainable / row.parameters if row.parameters else 0.0
        trains = Markup(f"{bar(share)} {quiet(f'{row.trainable:,}' if row.trainable else 'frozen')}")
        rows.append([row.part, part_label(model, row.part), f"{row.parameters:,}", row.dtype, trains])
    whole = Markup(f"{bar(report.trainable / max(report.parameters, 1))} {quiet(f'{report.trainable:,}')}")
    rows.append(["total", "", f"{report.parameters:,}", "", whole])
    headers = ("part", "what", "parameters", "precision", "trains")
    facts = ", ".join(
        f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}" for name, value in _facts(model).items()
    )
    shown = table(headers, rows, right=("parameters",), strong=(len(rows) - 1,), below=facts)
    return f"<p><b>{type(model).__name__}</b></p>{shown}"


def part_label(model: Model, part: str) -> str:
    """What a part of the trainable table is: ``timm: NAME``, a kind of vlkit's, or the class of one's own module."""
    module = model.parts().get(part.removesuffix(ADAPTER))
    if module is None:
        return ""
    kind, name = part_kind(module, adapter=part.endswith(ADAPTER))
    return f"{kind}: {name}" if name else kind or type(module).__name__


def _facts(model: Model) -> dict[str, Any]:
    """What the kind tells; nothing of a model with a part of one's own that no spec describes."""
    try:
        home = module_of(model.spec.kind, "facts")
    except VlkitError:
        return {}
    found = {} if home is None else home.facts(model)
    return {name: value for name, value in found.items() if name not in _DETAILS}
