"""An evaluation of a vision-language model beside one call a sample, as lmms-eval's simple models make them."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
from PIL import Image

from vlkit.bench.figures import Figures, by_turns, ratio
from vlkit.bench.reading import made_photo
from vlkit.bench.vlm_sides import Sides, VlmSetting
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.tasks.captioning_task import CaptioningTask
from vlkit.spec.language import GenerationSpec
from vlkit.types import Sample

_TAGS = ("en", "ar", "de", "es", "fr", "hi", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")
_PHOTO = {"width": 320, "height": 240}
_ASKED = 8  # words of a question
_GAIN = 3.0  # of the weights: standard deviation of what a layer gives for inputs of 1; at 5, rounding changes answers
_SIDES = ("peer", "vlkit")
_SCALED = VlmSetting("bloom", batch=2, vocabulary=32_000, width=256, layers=4, image_layers=6)
Said = dict[tuple[str, int], str]
"""Answers by BCP 47 tag and row of the image."""


@dataclass(frozen=True)
class EvalSetting:
    """What both sides are given: so many images, each asked about in so many languages.

    ``batch_size`` are questions that vlkit answers at a time, ``written`` tokens of an answer. ``model`` is the shape
    of both: BLIP-2's, scaled down.
    """

    images: int = 16
    languages: int = 7
    batch_size: int = 16
    written: int = 8
    model: VlmSetting = _SCALED


class EvalSides:
    """The same model on both sides, and the same questions about the same photos, which are files."""

    def __init__(self, setting: EvalSetting) -> None:
        self.setting, self.sides = setting, Sides(setting.model)
        with torch.no_grad():
            for own, theirs in self.sides.matched:
                if own.ndim > 1:  # large enough for answers to hang on the image
                    theirs.normal_(std=_GAIN * own.shape[-1] ** -0.5)
                    own.copy_(theirs.view_as(own))
        noise = np.random.default_rng(0)
        files = [made_photo(noise, **_PHOTO) for _ in range(setting.images)]
        tags = _TAGS[: setting.languages]
        self.prompts = {tag: self.sides.words(_ASKED, seed=number) for number, tag in enumerate(tags)}
        self.samples = [
            Sample(f"{row}", (partial(_decoded, file),), {tag: (f"{tag} {row}",) for tag in tags}, concept=f"{row}")
            for row, file in enumerate(files)
        ]

    def run(self, name: str) -> Said:
        """All answers of ``vlkit`` or of ``peer``."""
        return self._vlkit() if name == "vlkit" else self._peer()

    def _vlkit(self) -> Said:
        count = self.setting.written
        task = CaptioningTask(
            "bench",
            self.samples,
            self.prompts,
            generation=GenerationSpec(max_tokens=count, min_tokens=count),
            controls=(),
            batch_size=self.setting.batch_size,
        )
        scored = task.score(self.sides.ours, list(self.prompts), encoding=Encoding(workers=1))
        return {(one.language, said.image): said.answer for one in scored for said in one.written}

    @torch.no_grad()
    def _peer(self) -> Said:
        """Request after request: the image is decoded, both are prepared, the model writes, the text is read."""
        count = self.setting.written
        return {
            (tag, row): self.sides.write_with_peer([sample.image()], [prompt], count=count)[0].strip()
            for tag, prompt in self.prompts.items()
            for row, sample in enumerate(self.samples)
        }


def bench_vlm_eval(setting: EvalSetting, *, repeats: int = 5, tell: Callable[[str], object] = str) -> Figures:
    """Measures both sides by turns on the same images and questions, in this process on its CPU, in float32.

    vlkit's side is a task of captions without controls, scored: images are encoded once, questions answered in batches.

    Returns:
        ``time_ratio``: vlkit's seconds over the peer's; ``agreement``: share of equal answers.

    Raises:
        MissingPackage: sacrebleu is not installed, which the task is scored with.
    """
    tell("equality")
    sides = EvalSides(setting)
    found = {name: sides.run(name) for name in _SIDES}
    tell("time")
    seconds: dict[str, list[float]] = {name: [] for name in _SIDES}
    for _, name in by_turns(_SIDES, repeats):
        start = time.perf_counter()
        sides.run(name)
        seconds[name].append(time.perf_counter() - start)
    equal = [said == found["peer"][key] for key, said in found["vlkit"].items()]
    return Figures(
        time_ratio=ratio(seconds["vlkit"], seconds["peer"]),
        agreement=statistics.fmean(equal),
        ours_s=statistics.median(seconds["vlkit"]),
        peer_s=statistics.median(seconds["peer"]),
        n_answers=len(equal),
        n_images=setting.images,
        n_languages=len(sides.prompts),
        batch_size=setting.batch_size,
        written=setting.written,
        peer=f"transformers {version('transformers')}, one call a sample",
        threads=torch.get_num_threads(),
        device="cpu",
        precision="fp32",
        repeats=repeats,
    )


def _decoded(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file)).convert("RGB")
