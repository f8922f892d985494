"""Images named out of a list: the name that the model finds likeliest as its answer counts (rank evaluation).

BLOOMZ and mT0 are ranked by the log-likelihood of the whole answer (arXiv 2211.01786, section 4); here that leads, and
beside it stand the mean over tokens, which does not favour short names, and the gain over the likelihood without the
image, which does not favour frequent ones. N images of a language, O options of one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vlkit import languages as language_table
from vlkit.errors import DataError
from vlkit.evaluation.abilities import ANSWERS, Ability
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.metrics.intervals import PairedDifference, bootstrap_interval, paired_comparison
from vlkit.evaluation.metrics.text_match import normalized
from vlkit.evaluation.results.answers import Answers
from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.results.results_file import Value
from vlkit.evaluation.tasks.asking import Asked, ask_by_image, kept_answers
from vlkit.evaluation.tasks.controls import CONTROLS, about_others, ask_unseen, control_measures, swapped
from vlkit.evaluation.tasks.questions import asked_in, concepts, open_pictures, prompts_for
from vlkit.evaluation.tasks.task import Fact, PlainTask, Scored, choose_languages
from vlkit.files import digest
from vlkit.spec.evaluation import ChoicesSpec, Control
from vlkit.types import AnswersQuestions, Question, Sample

Floats = npt.NDArray[np.float64]
_OTHER: Control = "other_image"
_RANKED = {"acc1": "likeliest answer", "acc1_per_token": "per token", "acc1_gain": "gain over no image"}
MEASURES = Measures(
    kind="choices",
    headline="acc1",
    metrics={
        **{
            name: Measure(title, title if name == "acc1" else "", low=f"{name}_ci_low", high=f"{name}_ci_high")
            for name, title in _RANKED.items()
        },
        **control_measures({"acc1": "likeliest answer"}, lead="acc1", brief=""),
        "chance": Measure("chance"),
        "mean_reciprocal_rank": Measure(),
    },
    bars=tuple(_RANKED),
    chance="chance",
    alike={"n_images": "images", "n_options": "options"},
    table="choices",
    explained="Each image is named out of a list. Likeliest answer: the whole name has the highest log-likelihood; per "
    "token: the mean over its tokens has; gain over no image: the difference to its log-likelihood without the image "
    "has. Names that are as likely as the right one count as likelier. Without the image, with a grey picture and with "
    "the image of another concept the same names are weighed; differences are paired.",
)
"""``chance``: 1 / options, on average over images; ``n_options`` is the most that an image has."""


class Options(NamedTuple):
    """What an image has to choose from: O distinct texts, the right one's place, and the concept of each (or -1)."""

    texts: tuple[str, ...]
    right: int
    concepts: tuple[int, ...]


@dataclass(frozen=True)
class ChoicesTask(PlainTask):
    """Images (``samples``) with captions, of which the first one in a language is the right answer in it.

    Attributes:
        prompts: Language (BCP 47) to what is asked.
        options: How many options an image has, the names of other concepts besides its own; None for all.
        given: By language options that are the same for all images; empty for names.
        controls: What answers are compared with; without ``no_image`` there is no ``acc1_gain``.
        batch_size: Options weighed at a time.
        private: The license forbids copies of the names.
    """

    measures: ClassVar[Measures] = MEASURES
    needs: ClassVar[Ability] = ANSWERS  # type: ignore[misc]

    name: str
    samples: Sequence[Sample]
    prompts: Mapping[str, str]
    options: int | None = 10
    given: Mapping[str, Sequence[str]] = field(default_factory=dict)
    controls: tuple[Control, ...] = ("no_image", "blank_image", "other_image")
    batch_size: int = 16
    private: bool = False

    @cached_property
    def targets(self) -> tuple[int, ...]:  # type: ignore[override]
        """The concept of each image."""
        return concepts(self.samples)

    @property
    def titles(self) -> tuple[str, ...]:  # type: ignore[override]
        """The English name of each concept."""
        if self.private:
            return ()
        named = self._names("en")
        return tuple(named.get(concept, "") for concept in range(max(self.targets) + 1)) if named else ()

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags with names and a prompt, in the order in which they first occur."""
        return asked_in(self.samples, self.prompts)

    @cached_property
    def digest(self) -> str:
        """Hex digest of the images' keys, their names, and all settings."""
        images = [(one.key, one.captions) for one in self.samples]
        return digest([self.name, images, list(self.targets), sorted(self.prompts.items()), self.options,
                       sorted(self.given.items()), self.controls])  # fmt: skip

    @property
    def facts(self) -> dict[str, Fact]:  # type: ignore[override]
        """What is asked; digests of the names by language, with the images that they are of."""
        rows = {tag: self._rows(tag) for tag in self.languages}
        return {
            "prompts": "; ".join(dict.fromkeys(text.strip() for text in list(self.prompts.values())[:3])),
            "questions": dict(self.prompts),
            "caption_sets": {
                tag: digest([(row, self.samples[row].captions[tag]) for row in some]) for tag, some in rows.items()
            },
            "template_sets": {tag: digest(text) for tag, text in self.prompts.items()},
        }

    @property
    def left_out(self) -> dict[str, str]:  # type: ignore[override]
        """Languages with a single name."""
        if self.given:
            return {}
        few = [tag for tag in self.languages if len({normalized(one) for one in self._names(tag).values()}) < 2]
        return dict.fromkeys(few, "one name, which leaves nothing to tell apart")

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """See ``Task.choose``; a language needs names."""
        return choose_languages(languages, self.languages, of=f"task {self.name}", left_out=self.left_out)

    def score(
        self, model: AnswersQuestions, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Iterator[Scored]:
        """One row a language; each image is encoded once."""
        encoding = Encoding() if encoding is None else encoding
        kept = kept_answers(model, encoding)
        chosen = {tag: self.choices(tag, seed=seed) for tag in languages}
        asked = {tag: self._question(model, tag, chosen[tag]) for tag in languages}
        others = self._others(chosen, seed=seed)
        every_one = asked | {f"{tag} {_OTHER}": about_others(asked[tag], other) for tag, other in others.items()}
        weighed = ask_by_image(model, self.samples, every_one, kept=kept, encoding=encoding)
        every = {tag: sorted({text for one in found.values() for text in one.texts}) for tag, found in chosen.items()}

        def unseen(tags: Sequence[str], images: tuple[Tensor, ...]) -> list[list[float]]:
            weighed = self._weigh(model, [(tag, images, every[tag]) for tag in tags])
            return [[pair[0] for pair in pairs] for pairs in weighed]  # in order: what is kept holds no names

        of = {tag: [tag, self.prompts[tag], texts] for tag, texts in every.items()}
        blank = ask_unseen(model, of, unseen, controls=self.controls, kept=kept, encoding=encoding)
        for tag in languages:
            against: dict[str, dict[int, Floats]] = {}
            for control, said in blank.items():
                of_text = dict(zip(every[tag], said[tag], strict=True))
                against[control] = {
                    row: np.array([of_text[text] for text in one.texts]) for row, one in chosen[tag].items()
                }
            if other := others.get(tag):
                found = weighed[f"{tag} {_OTHER}"]
                against[_OTHER] = {row: np.array(found[shown])[:, 0] for row, shown in other.items()}
            yield self._scored(tag, chosen[tag], weighed[tag], against, seed=seed)

    def _others(self, chosen: Mapping[str, Mapping[int, Options]], *, seed: int) -> dict[str, dict[int, int]]:
        """By language whose image each image's options are weighed about too, where that is wanted and there is one."""
        if _OTHER not in self.controls:
            return {}
        found = {tag: swapped(list(rows), self.targets, seed=seed) for tag, rows in chosen.items()}
        return {tag: other for tag, other in found.items() if other}

    def choices(self, language: str, *, seed: int = 0) -> dict[int, Options]:
        """By row of the image what it has to choose from; other languages have the same concepts where they name them.

        Raises:
            DataError: Of options that are given, none is a caption of the image, or several are.
        """
        if self.given:
            return {row: self._given(language, row) for row in self._rows(language)}
        names, found = self._names(language), {}
        every = sorted(dict.fromkeys(self.targets))
        for row in self._rows(language):
            own = self.samples[row].captions[language]
            taken = {normalized(text) for text in own}
            texts, of = [own[0]], [self.targets[row]]
            order = every[:]
            random.Random(f"{seed} {self.samples[row].key}").shuffle(order)
            for concept in order:
                name = names.get(concept, "")
                if self.options is not None and len(texts) == self.options:
                    break
                if name and normalized(name) not in taken:
                    taken.add(normalized(name))
                    texts.append(name)
                    of.append(concept)
            if len(texts) > 1:
                found[row] = Options(tuple(texts), 0, tuple(of))
        return found

    def _given(self, language: str, row: int) -> Options:
        sample, texts = self.samples[row], tuple(self.given[language])
        own = {normalized(text) for text in sample.captions[language]}
        right = [place for place, text in enumerate(texts) if normalized(text) in own]
        if len(right) != 1:
            said, listed = ", ".join(sample.captions[language]), ", ".join(texts)
            raise DataError(
                f"task {self.name!r}, sample {sample.key!r} in {language}: its captions ({said}) are "
                f"{'none' if not right else 'several'} of the options ({listed}); one of them must be right"
            )
        return Options(texts, right[0], (-1,) * len(texts))

    def _rows(self, tag: str) -> list[int]:
        return [row for row, sample in enumerate(self.samples) if sample.captions.get(tag)]

    def _names(self, tag: str) -> dict[int, str]:
        """The name of each concept: the first one of the first image that has any."""
        names: dict[int, str] = {}
        for sample, concept in zip(self.samples, self.targets, strict=True):
            if texts := sample.captions.get(tag):
                names.setdefault(concept, texts[0])
        return names

    def _question(self, model: AnswersQuestions, tag: str, chosen: Mapping[int, Options]) -> Asked:
        keys = {row: digest([self.prompts[tag], tag, one.texts]) for row, one in chosen.items()}

        def ask(rows: Sequence[int], tokens: Sequence[Tensor]) -> list[list[list[float]]]:
            return self._weigh(model, [(tag, (one,), chosen[row].texts) for row, one in zip(rows, tokens, strict=True)])

        return Asked(keys, ask)

    def _weigh(
        self, model: AnswersQuestions, asked: Sequence[tuple[str, tuple[Tensor, ...], Sequence[str]]]
    ) -> list[list[list[float]]]:
        """Of each language, image and list of texts the log-likelihood and tokens of each text as the answer."""
        questions = [Question(self.prompts[tag], images, language=tag) for tag, images, texts in asked for _ in texts]
        answers = [text for _, _, texts in asked for text in texts]
        found_N2 = model.log_likelihoods(questions, answers, batch_size=self.batch_size)
        pairs = iter(found_N2.double().cpu().tolist())
        return [[next(pairs) for _ in texts] for _, _, texts in asked]

    def _scored(
        self,
        tag: str,
        chosen: Mapping[int, Options],
        weighed: Mapping[int, Sequence[Sequence[float]]],
        against: Mapping[str, Mapping[int, Floats]],
        *,
        seed: int,
    ) -> Scored:
        rows = list(chosen)
        classes = np.array([self.targets[row] for row in rows], dtype=np.int32)
        ranks: dict[str, list[int]] = {}
        answered: list[int] = []
        for row, one in chosen.items():
            weight_O2 = np.array(weighed[row], dtype=np.float64)
            scores = {"acc1": weight_O2[:, 0], "acc1_per_token": weight_O2[:, 0] / np.maximum(weight_O2[:, 1], 1)}
            if "no_image" in against:
                scores["acc1_gain"] = weight_O2[:, 0] - against["no_image"][row]
            scores |= {f"acc1_{control}": found[row] for control, found in against.items()}
            for name, score_O in scores.items():
                ranks.setdefault(name, []).append(_rank(score_O, one.right))
            answered.append(one.concepts[_best(weight_O2[:, 0], one.right)])
        sizes = [len(one.texts) for one in chosen.values()]
        values: dict[str, Value] = {"n_images": len(rows), "n_options": max(sizes)}
        hits = {name: np.array(found) == 1 for name, found in ranks.items()}
        for name in _RANKED:
            value, low, high = math.nan, math.nan, math.nan
            if name in hits:
                value, (low, high) = float(hits[name].mean()), bootstrap_interval(hits[name], classes, seed=seed)
            values |= {name: value, f"{name}_ci_low": low, f"{name}_ci_high": high}
        for control in CONTROLS:
            found_N, gap = hits.get(f"acc1_{control}"), PairedDifference(*[math.nan] * 4)
            if found_N is not None:
                gap = paired_comparison(hits["acc1"], found_N, classes, seed=seed)
            values |= {
                f"acc1_{control}": math.nan if found_N is None else float(found_N.mean()),
                f"acc1_over_{control}": gap.difference,
                f"acc1_over_{control}_ci_low": gap.low,
                f"acc1_over_{control}_ci_high": gap.high,
            }
        values["chance"] = float(np.mean([1 / size for size in sizes]))
        values["mean_reciprocal_rank"] = float(np.mean([1 / rank for rank in ranks["acc1"]]))
        answers = Answers(
            np.array(rows, dtype=np.int32), classes, np.array(ranks["acc1"], dtype=np.int32),
            np.array(answered, dtype=np.int32),
        )  # fmt: skip
        return Scored(tag, values, answers, detail=weighed)


def _rank(score_O: Floats, right: int) -> int:
    """Rank of the right option from 1, where those that equal it stand before it."""
    return int((score_O >= score_O[right]).sum())


def _best(score_O: Floats, right: int) -> int:
    """The option that is answered; of equal ones a wrong one."""
    return max((place for place in range(len(score_O))), key=lambda place: (score_O[place], place != right))


def open_choices(task: ChoicesSpec, languages: Iterable[str] | None) -> list[ChoicesTask]:
    """Finds the images and names of a task of a suite; reads no image.

    Raises:
        DataError: Files that are missing or wrong, a language without a template or options, or options none of which
            is right.
        UnknownName: No such split or language.
    """
    pictures = open_pictures(task)
    tags = dict.fromkeys(tag for sample in pictures.samples for tag, texts in sample.captions.items() if texts)
    given = {language_table.normalize(tag): texts for tag, texts in (task.answers or {}).items()}
    had = [tag for tag in tags if tag in given] if given else list(tags)
    chosen = choose_languages(languages, had, of=f"task {task.name}")
    opened = ChoicesTask(
        task.name,
        pictures.samples,
        prompts_for(task, chosen),
        options=task.options,
        given=given,
        controls=task.controls,
        batch_size=task.batch_size,
        private=pictures.private,
    )
    if given:
        for tag in chosen:
            opened.choices(tag)
    return [opened]
