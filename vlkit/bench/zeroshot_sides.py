"""The two sides of the zero-shot bench, each as its users run it: from the name of a model to its scores.

N images, M best answers, K classes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from vlkit.bench.contrastive import pick_device
from vlkit.bench.zeroshot_data import write_names
from vlkit.data.sources.classes.collection import any_classes
from vlkit.data.sources.classes.find import find_images
from vlkit.errors import MissingPackage
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.tasks.engine import score_task
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load
from vlkit.parts.open_clip_files import OpenClipName

_DATASET = "fer2013"  # the set of CLIP_benchmark that reads any ROOT/test of class folders; names come from a file


@dataclass(frozen=True)
class ZeroShotSetting:
    """What both sides are given: processes, precision (float32) and threads are those of this process.

    ``batch_size`` images a forward pass; ``workers`` read for CLIP_benchmark, vlkit reads in the process itself.
    """

    name: OpenClipName
    images: Path
    batch_size: int
    workers: int
    templates: tuple[str, ...] = ("{}",)


@dataclass
class ScoredRun:
    """One side over some languages: its time, what went through its towers, and what it answered.

    ``cpu_seconds`` include processes that it started and that have ended; ``reload_seconds`` is what loading the model
    again took of ``seconds``. By language: ``best_N``, the best class of each image, and ``accuracy`` as the side
    reports it; ``margin`` is the smallest distance of the best from the next best cosine, where the side tells scores.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    reload_seconds: float = 0.0
    loads: int = 0
    image_rows: int = 0
    text_rows: int = 0
    best_N: dict[str, Tensor] = field(default_factory=dict)
    target_N: Tensor = field(default_factory=lambda: torch.empty(0))
    accuracy: dict[str, float] = field(default_factory=dict)
    margin: float = float("inf")

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the time of a block."""
        start, cpu = time.perf_counter(), _processor_time()
        yield
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += _processor_time() - cpu

    def count(self, module: nn.Module, side: str) -> None:
        """Counts the rows that go through a module."""

        def see(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            rows = len(getattr(inputs[0], "ids_BL", inputs[0]))
            setattr(self, f"{side}_rows", getattr(self, f"{side}_rows") + rows)

        module.register_forward_pre_hook(see)


def run_ours(setting: ZeroShotSetting, names: Mapping[str, list[str]]) -> ScoredRun:
    """vlkit: loads the model and scores all languages in one pass, with intervals and the best five answers."""
    run = ScoredRun(loads=1)
    with run.timed():
        name = f"open_clip:{setting.name.model}/{setting.name.weights}"
        model = load(name, device=pick_device("auto", 1), expect=DualEncoder)
        run.count(model.get_submodule("image"), "image")
        run.count(model.get_submodule("text"), "text")
        images = any_classes(find_images(str(setting.images / "test")))
        labels = {tag: [(name,) for name in listed] for tag, listed in names.items()}
        task = ZeroShotTask("bench", images.samples, labels, images.targets, setting.templates)
        scores = score_task(model, task, encoding=Encoding(batch_size=setting.batch_size))
        rows = {tag: found.values(task) for tag, found in scores.languages.items()}
    run.accuracy = {tag: float(row["acc1"]) for tag, row in rows.items()}
    run.best_N = {tag: found.best_NM[:, 0] for tag, found in scores.languages.items()}
    run.target_N = torch.tensor(images.targets)
    return run


def run_peer(setting: ZeroShotSetting, names: Mapping[str, list[str]], *, run: ScoredRun | None = None) -> ScoredRun:
    """CLIP_benchmark: its command line once a language, in this process.

    ``clip_benchmark eval --model .. --pretrained .. --no_amp --custom_classname_file LANGUAGE.json ..``; it has names
    of its own in five languages only, so those of others come from files. ``run`` goes on with this one: its model
    counts as loaded.
    """
    run = ScoredRun() if run is None else run
    cli, metrics = peer_modules()
    with tempfile.TemporaryDirectory(prefix="vlkit-bench-") as scratch:
        folder = Path(scratch)
        write_names(folder, _DATASET, dict(names), setting.templates)
        for tag in names:
            with _watched(cli, metrics, run, tag), patch.object(sys, "argv", _words(setting, folder, tag)), run.timed():
                cli.main()
            found = json.loads((folder / f"{tag}-scores.json").read_text(encoding="utf-8"))
            run.accuracy[tag] = found["metrics"]["acc1"]
    return run


def peer_modules() -> tuple[Any, Any]:
    """CLIP_benchmark's command line and its zero-shot metrics.

    Raises:
        MissingPackage: It is not installed.
    """
    try:
        cli = importlib.import_module("clip_benchmark.cli")
        metrics = importlib.import_module("clip_benchmark.metrics.zeroshot_classification")
    except ImportError:
        raise MissingPackage("clip-benchmark", purpose="the peer of vlkit bench zeroshot", extra="bench") from None
    return cli, metrics


def _words(setting: ZeroShotSetting, folder: Path, tag: str) -> list[str]:
    values = {
        "--dataset": _DATASET,
        "--dataset_root": setting.images,
        "--task": "zeroshot_classification",
        "--model": setting.name.model,
        "--pretrained": setting.name.weights,
        "--batch_size": setting.batch_size,
        "--num_workers": setting.workers,
        "--custom_classname_file": folder / f"{tag}.json",
        "--custom_template_file": folder / "templates.json",
        "--output": folder / f"{tag}-scores.json",
    }
    return ["clip_benchmark", "eval", *(str(part) for pair in values.items() for part in pair), "--no_amp", "--quiet"]


@contextlib.contextmanager
def _watched(cli: Any, metrics: Any, run: ScoredRun, tag: str) -> Iterator[None]:
    """Looks on as CLIP_benchmark loads the model, encodes and scores; what it does stays its own."""
    load_clip, classify, accuracy = cli.load_clip, metrics.run_classification, metrics.accuracy

    def watched_load(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        found = load_clip(*args, **options)
        run.loads += 1
        if run.loads > 1:
            run.reload_seconds += time.perf_counter() - start
        model = found[0]
        run.count(model.visual, "image")
        run.count(model.text if hasattr(model, "text") else model.token_embedding, "text")
        return found

    def watched_classify(*args: Any, **options: Any) -> Any:
        logits_NK, run.target_N = found = classify(*args, **options)
        best_N2, run.best_N[tag] = logits_NK.topk(min(2, logits_NK.shape[1])).values, logits_NK.argmax(1)
        if best_N2.shape[1] == 2:  # its logits are 100 times the cosines
            run.margin = min(run.margin, (best_N2[:, 0] - best_N2[:, 1]).min().item() / 100)
        return found

    cli.load_clip, metrics.run_classification = watched_load, watched_classify
    metrics.accuracy = functools.partial(_accuracy, accuracy)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # bars, one a language and more
            yield
    finally:
        cli.load_clip, metrics.run_classification, metrics.accuracy = load_clip, classify, accuracy


def _accuracy(given: Any, logits_NK: Tensor, target_N: Tensor, topk: tuple[int, ...] = (1,)) -> list[float]:
    """CLIP_benchmark's own, or the same figures where NumPy (2.4) no longer makes a number of its array."""
    try:
        found: list[float] = given(logits_NK, target_N, topk=topk)
    except TypeError:
        hit_NM = logits_NK.topk(max(topk)).indices == target_N[:, None]
        found = [hit_NM[:, :k].any(1).double().mean().item() for k in topk]
    return found


def _processor_time() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
