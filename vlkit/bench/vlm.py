"""Training and writing of a vision-language model beside transformers' own Blip2, in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version

import torch

from vlkit.bench.figures import Figures, by_turns, ratio
from vlkit.bench.ranks import on_ranks
from vlkit.bench.vlm_sides import Sides, VlmSetting

_STEPS = ("cached", "transformers", "vlkit")
_WRITERS = ("transformers", "vlkit")
Times = dict[str, list[float]]


def bench_vlm(setting: VlmSetting, *, repeats: int = 5, tell: Callable[[str], object] = str) -> Figures:
    """Measures both sides by turns on the same images and texts, in this process on its CPU, in float32.

    Both have the same architecture and weights, the same parts frozen and the same adapter; see ``vlm_sides.Sides``. A
    step is forward, backward and optimizer; batches are made before. Memory is measured in fresh processes, one side
    each. Before any of it, logits, loss and gradients of the two are compared.

    Returns:
        Figures as docs/benchmarks.md says. Ratios are vlkit's over transformers'; below 1 is better. ``cached_*`` is
        vlkit with the frozen encoder's tokens from its cache, against the same step of transformers.
    """
    tell("equality")
    sides = Sides(setting)
    found = sides.differences()
    answers = [sides.write(name) for name in _WRITERS]
    tell("steps")
    seconds, cpu = _timed(sides.step, _STEPS, repeats)
    tell("generation")
    writing, writing_cpu = _timed(sides.write, _WRITERS, repeats)
    tell("memory")
    target = "vlkit.bench.vlm_sides:step_memory"
    peaks = {name: on_ranks(target, {"setting": asdict(setting), "name": name}, ranks=1)[0] for name in _STEPS}
    batch = sides.batch
    return Figures(
        step_time_ratio=ratio(seconds["vlkit"], seconds["transformers"]),
        memory_ratio=peaks["vlkit"] / peaks["transformers"],
        cached_step_time_ratio=ratio(seconds["cached"], seconds["transformers"]),
        cached_memory_ratio=peaks["cached"] / peaks["transformers"],
        generate_time_ratio=ratio(writing["vlkit"], writing["transformers"]),
        **found,
        step_cpu_ratio=ratio(cpu["vlkit"], cpu["transformers"]),
        cached_step_cpu_ratio=ratio(cpu["cached"], cpu["transformers"]),
        generate_cpu_ratio=ratio(writing_cpu["vlkit"], writing_cpu["transformers"]),
        equal_answers=sum(a == b for a, b in zip(*answers, strict=True)) / setting.batch,
        ours_s=statistics.median(seconds["vlkit"]),  # a step
        cached_s=statistics.median(seconds["cached"]),
        peer_s=statistics.median(seconds["transformers"]),
        ours_generate_s=statistics.median(writing["vlkit"]),  # all answers of the batch
        peer_generate_s=statistics.median(writing["transformers"]),
        ours_mb=peaks["vlkit"] / 1e6,  # extra at the peak of a step
        cached_mb=peaks["cached"] / 1e6,
        peer_mb=peaks["transformers"] / 1e6,
        places=int(batch.mask_BL.sum()),  # real ones that are read, images included
        padded_places=batch.mask_BL.numel(),
        labelled_places=int((batch.labels_BS >= 0).sum()),
        peer=f"transformers {version('transformers')} Blip2ForConditionalGeneration",
        **asdict(setting),
        threads=torch.get_num_threads(),
        precision="fp32",
        repeats=repeats,
    )


def _timed(call: Callable[[str], object], names: tuple[str, ...], repeats: int) -> tuple[Times, Times]:
    """Seconds and processor seconds of each repeat, by side; a first call of each is not counted."""
    seconds: Times = {name: [] for name in names}
    cpu: Times = {name: [] for name in names}
    for repeat, name in by_turns(names, repeats + 1):
        start, start_cpu = time.perf_counter(), time.process_time()
        call(name)
        if repeat:
            seconds[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
    return seconds, cpu
