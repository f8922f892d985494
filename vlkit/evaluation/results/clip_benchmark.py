"""Results in the form that CLIP_benchmark writes, for tables that hold runs of both."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlkit.evaluation.results.results_file import ResultRow, Results, plain
from vlkit.files import write_atomic

_TOP = 5  # it gives acc5 for at least so many classes
_KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "zero_shot": ("zeroshot_classification", ("acc1", "acc5", "mean_per_class_recall")),
    "retrieval": ("zeroshot_retrieval", ("image_retrieval_recall", "text_retrieval_recall")),
}  # our kind of task: its name there, and its figures, whatever stands behind an @


def clip_benchmark_rows(results: Results) -> list[dict[str, Any]]:
    """One object a row; kinds of tasks that CLIP_benchmark does not have are left out.

    ``dataset`` is the task, ``pretrained`` the digest of the weights. As there, acc5 is null for fewer than five
    classes.
    """
    weights = results.meta.get("models")
    return [
        {
            "dataset": row.task,
            "model": row.variant,
            "pretrained": str(weights.get(row.variant, "")) if isinstance(weights, Mapping) else "",
            "task": _KINDS[row.measures.kind][0],
            "metrics": plain(_metrics(row)),
            "language": row.language,
        }
        for row in results.rows
        if row.measures.kind in _KINDS
    ]


def _metrics(row: ResultRow) -> dict[str, float | None]:
    wanted = _KINDS[row.measures.kind][1]
    found: dict[str, float | None] = {
        name: one.value for name, one in row.metrics.items() if name.partition("@")[0] in wanted
    }
    return found | {"acc5": None} if row["num_classes"] < _TOP else found


def save_clip_benchmark(results: Results, folder: Path) -> list[Path]:
    """Writes each row to a file of its own, as `clip_benchmark build FOLDER` reads them.

    Raises:
        VlkitError: The place cannot be written to.
    """
    paths = []
    for one in clip_benchmark_rows(results):
        name = re.sub(r"[^\w.-]+", "-", f"{one['dataset']}_{one['model']}_{one['language']}_{one['task']}.json")
        write_atomic(folder / name, json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n")
        paths.append(folder / name)
    return paths
