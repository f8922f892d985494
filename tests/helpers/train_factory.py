"""Tiny training runs: a folder of drawings with captions in three languages, and recipes on them."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from vlkit.spec.recipe import Recipe
from vlkit.training import steps
from vlkit.training.loop import train
from vlkit.training.run_folder import Run

TIMES = ("images_per_s", "data_wait")
LANGUAGES = ("de", "en", "fr")
HEADS = ("image_head", "text_head", "scale")
ALL = ("image", "text", *HEADS)
_BUSY = 0.01  # seconds a step takes at least in a run that will be killed: time to hit it
# From a server that has imported everything and started no thread: a fork of the tests' own process may hang.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def drawings(folder: Path, count: int = 24, *, variants: int = 2) -> Path:
    """A table of ``count`` images, ``variants`` of each concept; some lack French."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        draw = random.Random(number)
        image = Image.new("RGB", (24, 24), tuple(draw.randrange(256) for _ in range(3)))
        corner = draw.randrange(4, 12)
        ImageDraw.Draw(image).ellipse((corner, 4, corner + 9, 18), fill=tuple(draw.randrange(256) for _ in range(3)))
        image.save(folder / f"{number}.png")
        captions = {"en": [f"thing {number}", f"a thing {number}"], "de": f"Ding {number}", "fr": f"chose {number}"}
        if number % 5 == 0:
            del captions["fr"]
        rows.append({"image": f"{number}.png", "captions": captions, "concept": f"c{number // variants}"})
    table = folder / "table.jsonl"
    write_rows(table, rows)
    return table


def write_rows(table: Path, rows: list[dict[str, Any]]) -> None:
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_rows(table: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]


def recipe(
    table: Path, folder: Path, *stages: Mapping[str, Any], loop: Mapping[str, Any] | None = None, **more: Any
) -> Recipe:
    """A recipe on ``table`` that is written to ``folder``; without stages the heads train for 6 steps."""
    plain = {
        "run": {"folder": str(folder), "name": "test"},
        "model": {
            "image": {"kind": "tiny", "image_size": 16, "width": 16, "depth": 1},
            "text": {"kind": "tiny", "width": 16, "depth": 1},
            "embed_dim": 12,
            "image_head": {"kind": "mlp", "hidden": 16, "dropout": 0.3},
            "text_head": {"kind": "mlp", "hidden": 16, "dropout": 0.3},
        },
        "data": {"sources": [{"kind": "folder", "path": str(table)}]},
        "stages": stages or ({"name": "heads", "trainable": HEADS, "steps": 6},),
        "optim": {"warmup_steps": 3, "lr": 3e-3},
        "loop": {"batch_size": 6, "num_workers": 0, "log_every": 1, "checkpoint_every": 20, **(loop or {})},
    }
    return Recipe.model_validate(merged(plain, more))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid upon ``base``; a part of another kind takes nothing over."""
    both = {**base, **over}
    for key in base.keys() & over.keys():
        old, new = base[key], over[key]
        if (
            isinstance(old, Mapping)
            and isinstance(new, Mapping)
            and new.get("kind", old.get("kind")) == old.get("kind")
        ):
            both[key] = merged(old, new)
    return both


def figures(run: Run) -> list[dict[str, Any]]:
    """What a run logged, without the time it took."""
    return [{key: value for key, value in line.items() if key not in TIMES} for line in run.metrics()]


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in run.metrics()]


def killed(made: Recipe, *, after: tuple[int, int]) -> int:
    """Runs a recipe in another process and kills it at a random moment between two steps; returns the step then."""
    run, step = Run(Path(str(made.run.folder))), random.SystemRandom().randrange(*after)
    child = CONTEXT.Process(target=_slow, args=(made, dict(os.environ)))
    child.start()
    try:
        wait_for(run, step, child)
        time.sleep(random.SystemRandom().random() * 2 * _BUSY)
    finally:
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
    if child.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"the run was over before it could be killed (exit code {child.exitcode})")
    return step


def wait_for(run: Run, step: int, child: Any) -> None:
    """Waits until a run has logged ``step`` lines."""
    for _ in range(60_000):
        if run.metrics_path.exists() and run.metrics_path.read_bytes().count(b"\n") >= step:
            return
        running = child.is_alive() if hasattr(child, "is_alive") else child.poll() is None
        if not running:
            raise RuntimeError("the run ended by itself")
        time.sleep(0.001)
    raise RuntimeError(f"no step {step} within a minute")


def _slow(made: Recipe, environment: dict[str, str]) -> None:
    os.environ.update(environment)  # the server's is that of the first test
    multiprocessing.set_start_method("fork", force=True)  # its own workers, too, as everywhere; else they outlive it
    advance = steps.Steps._advance

    def slowly(*args: Any, **kwargs: Any) -> None:
        time.sleep(_BUSY)
        advance(*args, **kwargs)

    steps.Steps._advance = slowly
    train(made)
