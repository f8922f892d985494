"""Zero-shot classification in many languages beside CLIP_benchmark, in the same run: time, encoder rows, answers."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from vlkit.bench.contrastive import pick_device
from vlkit.bench.figures import Figures
from vlkit.bench.zeroshot_data import TEMPLATES, Images, make_images, make_model, make_names, named_languages
from vlkit.bench.zeroshot_sides import ScoredRun, ZeroShotSetting, peer_modules, run_ours, run_peer
from vlkit.errors import DataError, VlkitError

Peer = Literal["none", "clip_benchmark"]
_CHECKED = (1, 3)  # images a class, languages: of the check with several templates


@dataclass(frozen=True)
class ZeroShotBench(Figures):
    """Ratios are vlkit's figure over CLIP_benchmark's, medians over neighbouring repeats; below 1 is better.

    ``peer_*`` is of the peer what the figure without it (or ``ours_*``) is of vlkit. Without a peer, what is of it or
    needs it is None.

    Attributes:
        time_ratio: Of the wall-clock time from the model's name to the scores of all languages.
        cpu_ratio: Of the processor time of the same, which other work on the machine changes less.
        time_ratio_without_reload: As ``time_ratio``, with the peer's model loaded once: its other loads do not count.
        one_language_ratio: Of the wall-clock time for the first language alone.
        one_language_cpu_ratio: Of its processor time.
        image_forwards: Images that went through vlkit's image tower, counted, in the run over all languages.
        text_rows: Texts that went through vlkit's text tower, counted.
        agreement: Share of equal best classes over all images and languages.
        template_agreement: The same on fewer images and languages with several templates, of which one occurs twice.
        accuracy_difference: The largest absolute difference between the two sides' top-1, over languages.
        smallest_margin: The smallest distance of the peer's best cosine from its next best, over images and languages.
        ours_s: Seconds for all languages.
        ours_one_language_s: Seconds for the first language.
        peer_reload_s: Of ``peer_s``, what its loads of the model after the first took.
        languages: The languages, the first is that of ``one_language_ratio``.
        workers: Reading processes of the peer's loader.
    """

    time_ratio: float | None
    cpu_ratio: float | None
    time_ratio_without_reload: float | None
    one_language_ratio: float | None
    one_language_cpu_ratio: float | None
    image_forwards: int
    peer_image_forwards: int | None
    n_images: int
    text_rows: int
    peer_text_rows: int | None
    agreement: float | None
    template_agreement: float | None
    accuracy_difference: float | None
    smallest_margin: float | None
    ours_s: float
    peer_s: float | None
    ours_one_language_s: float
    peer_one_language_s: float | None
    peer_reload_s: float | None
    model: str
    weights: str
    peer: str | None
    languages: tuple[str, ...]
    classes: int
    batch_size: int
    workers: int
    threads: int
    device: str
    precision: str
    repeats: int


@dataclass(frozen=True)
class _Repeat:
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
) -> ZeroShotBench:
    """Times both sides by turns on the same images, class names and weights, in this process, in float32.

    Each side runs as its users run it, from the name of the model to the scores. CLIP_benchmark's command line takes
    one file of class names at a time, so it is called once a language; each call loads the model and encodes all
    images. Starting Python and importing libraries, which each of its calls would do as well, is not counted.

    ``model`` is ``MODEL`` of open_clip, which gets random weights, or ``MODEL/TAG`` or ``MODEL/FILE``; classes are
    countries and territories, named by CLDR; ``workers`` those of the peer's loader, 0 reads in the process itself.

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
            model=make_model(model, folder),
            images=make_images(folder / "images", count=images, classes=classes),
            batch_size=batch_size,
            workers=workers,
        )
        tell("answers with several templates")
        few = make_images(folder / "few", count=_CHECKED[0] * classes, classes=classes, seed=1)
        checked = _check(setting, few, dict(list(names.items())[: _CHECKED[1]]), peer=peer)  # and warms both sides up
        found = []
        for number in range(repeats):
            tell(f"repeat {number + 1} of {repeats}")
            found.append(_repeat(setting, names, peer=peer))
    common = {"model": model, "weights": "random" if "/" not in model else model.partition("/")[2], "classes": classes}
    return _result(found, setting, tuple(names), checked, **common)


def _check(setting: ZeroShotSetting, images: Images, names: dict[str, list[str]], *, peer: Peer) -> float | None:
    several = replace(setting, images=images, templates=TEMPLATES)
    ours = run_ours(several, names)
    return None if peer == "none" else _agreement(ours, run_peer(several, names))


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
) -> ZeroShotBench:
    pairs = [(repeat.ours, repeat.peer) for repeat in found if repeat.peer is not None]
    single = [(repeat.ours_one, repeat.peer_one) for repeat in found if repeat.peer_one is not None]
    peers, last = [peer for _, peer in pairs], found[-1]
    return ZeroShotBench(
        time_ratio=_median(a.seconds / b.seconds for a, b in pairs),
        cpu_ratio=_median(a.cpu_seconds / b.cpu_seconds for a, b in pairs),
        time_ratio_without_reload=_median(a.seconds / (b.seconds - b.reload_seconds) for a, b in pairs),
        one_language_ratio=_median(a.seconds / b.seconds for a, b in single),
        one_language_cpu_ratio=_median(a.cpu_seconds / b.cpu_seconds for a, b in single),
        image_forwards=last.ours.image_rows,
        peer_image_forwards=last.peer.image_rows if last.peer else None,
        n_images=setting.images.count,
        text_rows=last.ours.text_rows,
        peer_text_rows=last.peer.text_rows if last.peer else None,
        agreement=min((_agreement(a, b) for a, b in pairs), default=None),
        template_agreement=checked,
        accuracy_difference=max((_apart(a, b) for a, b in pairs), default=None),
        smallest_margin=min((b.margin for b in peers), default=None),
        ours_s=statistics.median(repeat.ours.seconds for repeat in found),
        peer_s=_median(run.seconds for run in peers),
        ours_one_language_s=statistics.median(repeat.ours_one.seconds for repeat in found),
        peer_one_language_s=_median(run.seconds for _, run in single),
        peer_reload_s=_median(run.reload_seconds for run in peers),
        peer=f"clip-benchmark {version('clip-benchmark')}" if peers else None,
        languages=languages,
        batch_size=setting.batch_size,
        workers=setting.workers,
        threads=torch.get_num_threads(),
        device=pick_device("auto", 1),
        precision="fp32",
        repeats=len(found),
        **common,
    )


def _agreement(ours: ScoredRun, peer: ScoredRun) -> float:
    """Share of equal answers over all languages.

    Raises:
        VlkitError: The sides do not have the same images in the same order.
    """
    if ours.target_N is None or peer.target_N is None or not torch.equal(ours.target_N, peer.target_N):
        raise VlkitError("the two sides read the images in another order: their answers cannot be compared")
    equal = torch.stack([ours.best_N[tag] == best_N for tag, best_N in peer.best_N.items()])
    return equal.double().mean().item()


def _apart(ours: ScoredRun, peer: ScoredRun) -> float:
    return max((abs(ours.accuracy[tag] - accuracy) for tag, accuracy in peer.accuracy.items()), default=math.nan)


def _median(values: Iterable[float]) -> float | None:
    listed = list(values)
    return statistics.median(listed) if listed else None
