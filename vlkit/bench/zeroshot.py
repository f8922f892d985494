"""Zero-shot classification in many languages beside CLIP_benchmark, in the same run: time, encoder rows, answers."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from vlkit.bench.contrastive import pick_device
from vlkit.bench.figures import Figures
from vlkit.bench.zeroshot_data import TEMPLATES, make_images, make_model, make_names, named_languages
from vlkit.bench.zeroshot_sides import ScoredRun, ZeroShotSetting, peer_modules, run_ours, run_peer
from vlkit.errors import DataError, VlkitError

Peer = Literal["none", "clip_benchmark"]
_CHECKED = (1, 3)  # images a class, languages: of the check with several templates


class _Repeat(NamedTuple):
    """One language and all of them; the peer's run over all goes on from its first language."""

    ours_one: ScoredRun
    ours: ScoredRun
    peer_one: ScoredRun | None = None
    peer: ScoredRun | None = None


def bench_zeroshot(
    model: str = "ViT-B-32",
    *,
    images: int = 500,
    languages: int = 12,
    classes: int = 50,
    batch_size: int = 64,
    workers: int = 2,
    repeats: int = 3,
    peer: Peer = "clip_benchmark",
    tell: Callable[[str], object] = str,
) -> Figures:
    """Times both sides by turns on the same images, class names and weights, in this process, in float32.

    Each side runs as its users run it, from the name of the model to the scores. CLIP_benchmark's command line takes
    one file of class names at a time, so it is called once a language; each call loads the model and encodes all
    images. Starting Python and importing libraries, which each of its calls would do as well, is not counted.

    ``model`` is ``MODEL`` of open_clip, which gets random weights, or ``MODEL/TAG`` or ``MODEL/FILE``; classes are
    countries and territories, named by CLDR; ``workers`` those of the peer's loader, 0 reads in the process itself.

    Returns:
        Figures as docs/benchmarks.md says. Ratios are vlkit's over CLIP_benchmark's, medians over neighbouring repeats;
        below 1 is better. ``peer_*`` is of the peer what the figure without it (or ``ours_*``) is of vlkit. Without a
        peer, what is of it or needs it is None.

    Raises:
        MissingPackage: clip-benchmark or babel is not installed.
        UnknownName: open_clip has no such model.
        DataError: More classes or languages than there are names for, or fewer images than classes.
    """
    if peer != "none":
        peer_modules()  # before anything is made
    known = named_languages(classes)
    if not 1 <= languages <= len(known):
        raise DataError(f"--languages {languages}: CLDR names {classes} countries in {len(known)} languages")
    names = make_names(known[:languages], classes=classes)
    with tempfile.TemporaryDirectory(prefix="vlkit-bench-") as scratch:
        folder = Path(scratch)
        tell(f"{images} images")
        setting = ZeroShotSetting(
            name=make_model(model, folder),
            images=make_images(folder / "images", count=images, classes=classes),
            batch_size=batch_size,
            workers=workers,
        )
        tell("answers with several templates")
        few = make_images(folder / "few", count=_CHECKED[0] * classes, classes=classes, seed=1)
        several = replace(setting, images=few, templates=TEMPLATES)
        checked = _check(several, dict(list(names.items())[: _CHECKED[1]]), peer=peer)  # and warms both sides up
        found = []
        for number in range(repeats):
            tell(f"repeat {number + 1} of {repeats}")
            found.append(_repeat(setting, names, peer=peer))
    common = {"model": model, "weights": model.partition("/")[2] or "random", "classes": classes}
    return _result(found, setting, tuple(names), checked, **common)


def _check(setting: ZeroShotSetting, names: dict[str, list[str]], *, peer: Peer) -> float | None:
    ours = run_ours(setting, names)
    return None if peer == "none" else _agreement(ours, run_peer(setting, names))


def _repeat(setting: ZeroShotSetting, names: dict[str, list[str]], *, peer: Peer) -> _Repeat:
    """Neighbours in time are compared: one language of either side, then all of either side."""
    first = dict([next(iter(names.items()))])
    ours_one = run_ours(setting, first)
    if peer == "none":
        return _Repeat(ours_one, run_ours(setting, names))
    begun = run_peer(setting, first)
    peer_one = replace(begun)
    ours = run_ours(setting, names)
    rest = {tag: listed for tag, listed in names.items() if tag not in first}
    return _Repeat(ours_one, ours, peer_one, run_peer(setting, rest, run=begun))


def _result(
    found: Sequence[_Repeat], setting: ZeroShotSetting, languages: tuple[str, ...], checked: float | None, **common: Any
) -> Figures:
    pairs = [(repeat.ours, repeat.peer) for repeat in found if repeat.peer is not None]
    single = [(repeat.ours_one, repeat.peer_one) for repeat in found if repeat.peer_one is not None]
    peers, last = [peer for _, peer in pairs], found[-1]
    return Figures(
        time_ratio=_median(a.seconds / b.seconds for a, b in pairs),
        cpu_ratio=_median(a.cpu_seconds / b.cpu_seconds for a, b in pairs),
        time_ratio_without_reload=_median(a.seconds / (b.seconds - b.reload_seconds) for a, b in pairs),
        one_language_ratio=_median(a.seconds / b.seconds for a, b in single),
        one_language_cpu_ratio=_median(a.cpu_seconds / b.cpu_seconds for a, b in single),
        image_forwards=last.ours.image_rows,
        peer_image_forwards=last.peer.image_rows if last.peer else None,
        n_images=len(last.ours.target_N),
        text_rows=last.ours.text_rows,
        peer_text_rows=last.peer.text_rows if last.peer else None,
        agreement=min((_agreement(a, b) for a, b in pairs), default=None),
        template_agreement=checked,
        accuracy_difference=max(
            (abs(a.accuracy[tag] - accuracy) for a, b in pairs for tag, accuracy in b.accuracy.items()), default=None
        ),
        smallest_margin=min((b.margin for b in peers), default=None),
        ours_s=statistics.median(repeat.ours.seconds for repeat in found),
        peer_s=_median(run.seconds for run in peers),
        ours_one_language_s=statistics.median(repeat.ours_one.seconds for repeat in found),
        peer_one_language_s=_median(run.seconds for _, run in single),
        peer_reload_s=_median(run.reload_seconds for run in peers),
        **common,
        peer=f"clip-benchmark {version('clip-benchmark')}" if peers else None,
        languages=languages,  # the first is that of one_language_ratio
        batch_size=setting.batch_size,
        workers=setting.workers,
        threads=torch.get_num_threads(),
        device=pick_device("auto", 1),
        precision="fp32",
        repeats=len(found),
    )


def _agreement(ours: ScoredRun, peer: ScoredRun) -> float:
    """Share of equal answers over all languages."""
    if not torch.equal(ours.target_N, peer.target_N):
        raise VlkitError("the two sides read the images in another order: their answers cannot be compared")
    equal = torch.stack([ours.best_N[tag] == best_N for tag, best_N in peer.best_N.items()])
    return equal.double().mean().item()


def _median(values: Iterable[float]) -> float | None:
    listed = list(values)
    return statistics.median(listed) if listed else None
