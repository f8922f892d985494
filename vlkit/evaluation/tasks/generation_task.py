"""Images that a model makes of the same prompts in many languages: are they of what was asked for, and how alike?

Shapes: P prompts, S seeds, K candidates (the first P are the prompts), E embedding width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vlkit.data.formats.images import LazyImage
from vlkit.data.sources.open import open_source
from vlkit.evaluation.abilities import EMBEDS, PAINTS, Ability, require
from vlkit.evaluation.embed.drawing import Drawing, Prompt, drawn_images
from vlkit.evaluation.embed.encode import Embedder
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.identity import model_digest
from vlkit.evaluation.embed.image_features import image_features
from vlkit.evaluation.embed.texts import check_languages, embed_texts
from vlkit.evaluation.metrics.consistency import clip_scores, code_switching, cross_lingual, shuffled_clip_scores
from vlkit.evaluation.metrics.distribution_distance import kernel_distance, kernel_distance_interval
from vlkit.evaluation.results.drawn import DrawnImage
from vlkit.evaluation.results.measures import Measures
from vlkit.evaluation.results.results_file import Value
from vlkit.evaluation.tasks.generation_figures import MEASURES, generation_values
from vlkit.evaluation.tasks.prompts_to_draw import PromptList, color_combinations, named_concepts
from vlkit.evaluation.tasks.scorer import ranks_of_right
from vlkit.evaluation.tasks.task import Fact, PlainTask, Scored, choose_languages
from vlkit.files import digest
from vlkit.models.digest import fixed_weights
from vlkit.models.folder import load
from vlkit.models.locate import locate
from vlkit.spec.generated_images import GeneratedImagesSpec, PromptGroup
from vlkit.types import Painter, Sample

_SHOWN = 16  # prompts on the page
_ORDERS = ("english_first", "english_second")


@dataclass(frozen=True)
class JudgedImages:
    """What the judge makes of all images of a task.

    Attributes:
        image_PSE: By language (BCP 47) its images.
        mixed_QSE: By language and order of the halves the images of prompts that are half English.
        text_PE: By language its prompts.
        name_KE: The candidates' names.
        real_KE: Their real images; None where there are none.
    """

    image_PSE: Mapping[str, Tensor]
    mixed_QSE: Mapping[tuple[str, str], Tensor]
    text_PE: Mapping[str, Tensor]
    name_KE: Tensor
    real_KE: Tensor | None


@dataclass(frozen=True)
class GenerationTask(PlainTask):
    """Prompts in several languages, whose images a judge looks at.

    All languages are drawn and judged together, whichever of them rows are asked for: consistency is between them.

    Attributes:
        prompts: What is asked for.
        judge: A model that embeds images and texts, or its name.
        drawing: How images are made.
        code_switching: Also draw prompts that are half English.
        told: Language to the one that the judge's tokenizer is told instead.
    """

    measures: ClassVar[Measures] = MEASURES
    needs: ClassVar[Ability] = PAINTS  # type: ignore[misc]

    name: str
    prompts: PromptList
    judge: Embedder | str
    drawing: Drawing = field(default_factory=Drawing)
    code_switching: bool = True
    told: Mapping[str, str] = field(default_factory=dict)

    @property
    def samples(self) -> Sequence[Sample]:
        """The real images of the candidates."""
        return self.prompts.real

    @cached_property
    def judging(self) -> Embedder:
        """The judge itself, loaded at its first use.

        Raises:
            VlkitError: It does not embed images and texts.
        """
        judge: Any = load(self.judge) if isinstance(self.judge, str) else self.judge
        require(judge, EMBEDS, of=f"the judge of task {self.name!r}")
        return judge  # type: ignore[no-any-return]

    @cached_property
    def digest(self) -> str:
        """Hex digest of all prompts, candidates, the judge's weights and all settings."""
        one, drawing = self.prompts, self.drawing
        texts = sorted(one.texts.items())
        settings = [drawing.num_images, drawing.seed, drawing.key, self.code_switching, sorted(self.told.items())]
        real = [sample.key for sample in one.real]
        return digest([self.name, one.languages, texts, one.anchor, one.names, real, sorted(one.parts.items()),
                       model_digest(self.judging), settings])  # fmt: skip

    @property
    def facts(self) -> dict[str, Fact]:  # type: ignore[override]
        """Who judged, how images were made, and digests of the prompts by language."""
        drawing = {"num_images": self.drawing.num_images, "seed": self.drawing.seed, **(self.drawing.settings or {})}
        called = self.judge if isinstance(self.judge, str) else type(self.judge).__name__
        return {
            "judges": f"{called} ({model_digest(self.judging)})",
            "drawing": json.dumps(drawing, ensure_ascii=False),
            "prompt_sets": {tag: digest(self.prompts.texts[tag]) for tag in self.prompts.languages},
        }

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """See ``Task.choose``."""
        return choose_languages(languages, self.prompts.languages, of=f"task {self.name}")

    def score(
        self, model: Painter, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Iterator[Scored]:
        """One row a language; as detail the figures of each prompt by name, [P]."""
        encoding = Encoding() if encoding is None else encoding
        check_languages(self.judging, {*self.prompts.languages, self.prompts.anchor}, spoken=self.told)
        mixed = self._mixed()
        asked = [Prompt(tag, text) for tag in self.prompts.languages for text in self.prompts.texts[tag]]
        asked += [Prompt(tag, text) for (tag, _), texts in mixed.items() for text in texts.values()]
        with fixed_weights(self.judging), drawn_images(model, asked, self.drawing, encoding=encoding) as drawn:
            judged = self._judged(drawn, mixed, encoding)
            real = self._real_figures(judged)
            each = {tag: self._figures(tag, judged) | real for tag in self.prompts.languages}
            for tag in languages:
                columns = each[tag]
                if "en" in each:
                    columns |= {f"english_{name}": each["en"][name] for name in ("acc1", "acc5")}
                values: dict[str, Value] = {
                    "n_prompts": len(self.prompts),
                    "n_images": len(self.prompts) * self.drawing.num_images,
                    "n_candidates": len(self.prompts.names),
                    "chance": 1 / len(self.prompts.names),
                    **generation_values(columns, seed=seed),
                    **self._switching(tag, judged, mixed, seed=seed),
                    **self._kid(tag, judged, seed=seed),
                }
                yield Scored(tag, values, detail=columns, drawn=self._shown(tag, drawn, judged))

    def _mixed(self) -> dict[tuple[str, str], dict[int, str]]:
        """By language and order of the halves, by number the prompts that are half English."""
        found = {
            (tag, order): self.prompts.mixed(tag, english_first=order == _ORDERS[0])
            for tag in self.prompts.languages
            for order in _ORDERS
            if self.code_switching
        }
        return {key: texts for key, texts in found.items() if texts}

    def _judged(
        self,
        drawn: Mapping[Prompt, Sequence[LazyImage]],
        mixed: Mapping[tuple[str, str], Mapping[int, str]],
        encoding: Encoding,
    ) -> JudgedImages:
        judge, prompts = self.judging, self.prompts
        samples = [Sample(one.name, (one,), {}) for images in drawn.values() for one in images]
        with image_features(judge, samples, encoding=encoding) as features:
            image_NSE = features[torch.arange(len(samples))].view(len(drawn), self.drawing.num_images, -1)
        place = {prompt: number for number, prompt in enumerate(drawn)}
        real_KE = None
        if prompts.real:
            with image_features(judge, prompts.real, encoding=encoding) as features:
                real_KE = features[torch.arange(len(prompts.real))]

        def texts_of(tag: str, texts: Sequence[str]) -> Tensor:
            return embed_texts(judge, texts, language=self.told.get(tag, tag), encoding=encoding)

        def images_of(tag: str, texts: Iterable[str]) -> Tensor:
            found: Tensor = image_NSE[[place[Prompt(tag, text)] for text in texts]]
            return found

        return JudgedImages(
            {tag: images_of(tag, prompts.texts[tag]) for tag in prompts.languages},
            {key: images_of(key[0], texts.values()) for key, texts in mixed.items()},
            {tag: texts_of(tag, prompts.texts[tag]) for tag in {*prompts.languages, prompts.anchor}},
            texts_of(prompts.anchor, prompts.names),
            real_KE,
        )

    def _figures(self, tag: str, judged: JudgedImages) -> dict[str, Tensor]:
        """The figures of each prompt that are of its images in one language."""
        image_PSE = judged.image_PSE[tag]
        found = _hits("", _ranks(image_PSE, judged.name_KE))
        if judged.real_KE is not None:
            found |= _hits("image_", _ranks(image_PSE, judged.real_KE))
        for part, values in self.prompts.parts.items():
            # which part it is, where all others are known
            others = [
                tuple(of[n] for name, of in self.prompts.parts.items() if name != part) for n in range(len(values))
            ]
            alike_KK = torch.tensor([[one == other for other in others] for one in others])
            found[f"{part}_acc"] = (_ranks(image_PSE, judged.name_KE, among_PK=alike_KK) == 1).double().mean(dim=1)
        elsewhere = [judged.image_PSE[other] for other in judged.image_PSE if other != tag]
        if elsewhere:
            found |= dict(zip(("clc", "clc_floor", "clc_ceiling"), cross_lingual(image_PSE, elsewhere), strict=True))
        found["clipscore"] = clip_scores(image_PSE, judged.text_PE[tag])
        found["clipscore_floor"] = shuffled_clip_scores(image_PSE, judged.text_PE[tag])
        if judged.real_KE is not None:
            found["real_clipscore"] = clip_scores(judged.real_KE[: len(image_PSE), None], judged.text_PE[tag])
        if "en" in judged.text_PE:
            found["clipscore_english"] = clip_scores(image_PSE, judged.text_PE["en"])
        return found

    def _real_figures(self, judged: JudgedImages) -> dict[str, Tensor]:
        if judged.real_KE is None:
            return {}
        return _hits("real_", _ranks(judged.real_KE[: len(self.prompts), None], judged.name_KE))

    def _switching(
        self,
        tag: str,
        judged: JudgedImages,
        mixed: Mapping[tuple[str, str], Mapping[int, str]],
        *,
        seed: int,
    ) -> dict[str, Value]:
        """CSS over the prompts that could be cut."""
        texts = mixed.get((tag, _ORDERS[0]))
        if not texts:
            return {}
        english_QSE = judged.image_PSE["en"][list(texts)]
        first, second = (code_switching(judged.mixed_QSE[tag, order], english_QSE) for order in _ORDERS)
        each = {
            "css": (first.value_P + second.value_P) / 2,
            "css_english_first": first.value_P,
            "css_english_second": second.value_P,
            "css_floor": (first.floor_P + second.floor_P) / 2,
            "css_ceiling": first.ceiling_P,
        }
        return {"n_switched": len(texts), **generation_values(each, seed=seed)}

    def _kid(self, tag: str, judged: JudgedImages, *, seed: int) -> dict[str, Value]:
        if judged.real_KE is None:
            return {}
        prompts, width = len(self.prompts), judged.real_KE.shape[1]
        # of length sqrt(E), so that the kernel's x y / E is the cosine
        own = judged.image_PSE[tag].flatten(0, 1).double().numpy() * np.sqrt(width)
        real = judged.real_KE[:prompts].double().numpy() * np.sqrt(width)
        groups = np.repeat(np.arange(prompts), self.drawing.num_images)
        if min(len(own), len(real)) < 2:
            return {}
        low, high = kernel_distance_interval(own, real, groups, np.arange(prompts), seed=seed)
        return {"kid": kernel_distance(own, real), "kid_ci_low": low, "kid_ci_high": high}

    def _shown(self, tag: str, drawn: Mapping[Prompt, Sequence[LazyImage]], judged: JudgedImages) -> list[DrawnImage]:
        """The first image of some prompts, the same ones in each language and for each model."""
        texts, titles = self.prompts.texts[tag], self.prompts.texts[self.prompts.anchor]
        order = sorted(range(len(texts)), key=lambda row: hashlib.sha256(f"shown {titles[row]}".encode()).digest())
        rank_PS = _ranks(judged.image_PSE[tag], judged.name_KE)
        return [
            DrawnImage(
                titles[row],
                texts[row],
                row if self.prompts.real else -1,
                int(rank_PS[row, 0]),
                drawn[Prompt(tag, texts[row])][0].read(),
            )
            for row in order[:_SHOWN]
        ]


def _ranks(image_PSE: Tensor, candidate_KE: Tensor, *, among_PK: Tensor | None = None) -> Tensor:
    """Rank of each prompt's own candidate for its images, [P, S] from 1; among some candidates alone."""
    prompts, seeds, _ = image_PSE.shape
    score_NK = image_PSE.flatten(0, 1).double() @ candidate_KE.double().T
    if among_PK is not None:
        score_NK = score_NK.masked_fill(~among_PK[:prompts].repeat_interleave(seeds, dim=0), -torch.inf)
    target_N = torch.arange(prompts).repeat_interleave(seeds)
    return ranks_of_right(score_NK, target_N, torch.arange(len(candidate_KE)))[0].view(prompts, seeds)


def _hits(prefix: str, rank_PS: Tensor) -> dict[str, Tensor]:
    return {f"{prefix}acc{k}": (rank_PS <= k).double().mean(dim=1) for k in (1, 5)}


def open_generation(task: GeneratedImagesSpec, languages: Iterable[str] | None) -> list[GenerationTask]:
    """Finds the prompts and real images of a task of a suite; reads none, and loads no model.

    Raises:
        DataError: Files that are missing or wrong, or too few concepts with names in all languages.
        UnknownName: No such split, language or judge.
    """
    if ":" not in task.judge.path:
        locate(task.judge.path)  # a folder that is not there is told before anything is drawn
    wanted = None if languages is None else tuple(languages)
    source = open_source(task.source)
    every = [source[index] for index in range(len(source))]
    groups = {f"{task.name}-{name}": group for name, group in task.groups.items()} or {task.name: PromptGroup()}
    lists = {
        name: named_concepts(every, group, wanted, candidates=task.candidates, of=f"task {name}")
        for name, group in groups.items()
    }
    if task.combinations is not None:
        name = f"{task.name}-combinations"
        lists[name] = color_combinations(task.combinations, wanted, of=f"task {name}")
    drawing = Drawing(task.num_images, task.seed, task.settings, task.batch_size)
    return [
        GenerationTask(name, prompts, task.judge.path, drawing, task.code_switching, task.told)
        for name, prompts in lists.items()
    ]
