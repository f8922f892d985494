"""Sampling of images beside the loop of the published code, in the same run and with the same weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict

import torch

from vlkit.bench.figures import Figures, by_turns, ratio
from vlkit.bench.ranks import on_ranks
from vlkit.bench.t2i_sides import T2iSetting, T2iSides


def bench_t2i(
    setting: T2iSetting,
    *,
    steps: int = 20,
    naive_steps: int = 50,
    repeats: int = 3,
    tell: Callable[[str], object] = str,
) -> Figures:
    """Samples the same images in both ways by turns, in this process on its CPU, in float32.

    ``fast`` is vlkit's way (prompts read once without padding, logits of codes alone) and ``prefix`` the same with
    logits of words, too, each in ``steps``; ``naive`` the published loop in as many and ``long`` in ``naive_steps``.
    Memory of a step is measured in fresh processes, one side each.

    Returns:
        Figures as docs/benchmarks.md says. Speedups are the published loop's time over vlkit's: above 1 is better.
    """
    sides = T2iSides(setting)
    ways = {
        "fast": ("vlkit", steps),
        "prefix": ("prefix", steps),
        "naive": ("naive", steps),
        "long": ("naive", naive_steps),
    }
    tell("equality")
    codes = {name: sides.sampled(*ways[name]) for name in ("fast", "naive")}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat, name in by_turns(tuple(ways), repeats):
        tell(f"{name}, repeat {repeat + 1} of {repeats}")
        start = time.perf_counter()
        sides.sampled(*ways[name])
        seconds[name].append(time.perf_counter() - start)
    tell("memory")
    target = "vlkit.bench.t2i_sides:sampling_memory"
    peaks = {
        name: on_ranks(target, {"setting": asdict(setting), "name": name}, ranks=1)[0] for name in ("vlkit", "naive")
    }
    images = setting.batch
    return Figures(
        prefix_cache_speedup=ratio(seconds["naive"], seconds["fast"]),
        fast_path_speedup=ratio(seconds["long"], seconds["fast"]),
        sliced_head_speedup=ratio(seconds["prefix"], seconds["fast"]),
        tokens_equal=float((codes["fast"] == codes["naive"]).double().mean()),
        memory_ratio=peaks["vlkit"] / peaks["naive"],
        ours_s=statistics.median(seconds["fast"]) / images,  # an image
        peer_s=statistics.median(seconds["naive"]) / images,
        peer_long_s=statistics.median(seconds["long"]) / images,
        ours_images_s=images / statistics.median(seconds["fast"]),
        peer_images_s=images / statistics.median(seconds["naive"]),
        ours_mb=peaks["vlkit"] / 1e6,  # extra at the peak of a step
        peer_mb=peaks["naive"] / 1e6,
        steps=steps,
        naive_steps=naive_steps,
        peer="the sampling loop of Show-o and NeoBabel, as they publish it, on the same weights",
        **asdict(setting),
        threads=torch.get_num_threads(),
        precision="fp32",
        repeats=repeats,
    )
