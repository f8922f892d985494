"""Captions and names of images in the language that is asked for, beside those that the model gives without the image.

N images of a language, T width of image tokens.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vlkit import languages as language_table
from vlkit.errors import pip_install
from vlkit.evaluation.abilities import ANSWERS, Ability
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.metrics.answer_figures import AnswerFigures, FigureEstimate, Wanted, estimates, measure
from vlkit.evaluation.metrics.caption_scores import CaptionReferences
from vlkit.evaluation.metrics.fidelity import (
    IDENTIFIERS,
    LanguageIdentifier,
    NearestNames,
    identified,
    nearest,
    nearest_names,
    nearest_of_image,
)
from vlkit.evaluation.metrics.ngrams import WordOrder, bleu_tokenizer, check_sacrebleu, corpus_chrf
from vlkit.evaluation.metrics.segmentation import SEGMENTERS, CaptionWords, caption_words
from vlkit.evaluation.results.measures import Measures
from vlkit.evaluation.results.results_file import Value
from vlkit.evaluation.results.written import WrittenAnswer
from vlkit.evaluation.tasks.asking import Asked, ask_by_image, kept_answers
from vlkit.evaluation.tasks.captioning_measures import MEASURES, Form
from vlkit.evaluation.tasks.controls import ask_unseen, swapped
from vlkit.evaluation.tasks.questions import asked_in, concepts, open_pictures, prompts_for
from vlkit.evaluation.tasks.task import Fact, PlainTask, Scored, choose_languages
from vlkit.files import digest
from vlkit.obstacles import Obstacles
from vlkit.spec.evaluation import CaptioningSpec, Control
from vlkit.spec.language import GenerationSpec
from vlkit.types import AnswersQuestions, Question, Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptioningTask(PlainTask):
    """Images (``samples``) that a model is to say something of, in each language that they have captions in.

    Attributes:
        prompts: Language (BCP 47) to what is asked.
        known: All captions that there are by language, among which the nearest name is looked for; by default those of
            the samples.
        form: Whether answers are names or sentences.
        generation: How answers are written.
        prefixes: Words that answers begin with, by language; they are not scored.
        controls: What answers are compared with.
        chrf_words: Longest word n-grams of chrF; 2 for chrF++.
        identifier: What tells the language of sentences (``metrics.fidelity.IDENTIFIERS``).
        segmenters: What cuts sentences into words, by language (``metrics.segmentation.SEGMENTERS``); by default the
            usual one of its script where it is installed.
        batch_size: Questions at a time.
        private: The license forbids copies of the captions: they are written to no file.
    """

    needs: ClassVar[Ability] = ANSWERS  # type: ignore[misc]

    name: str
    samples: Sequence[Sample]
    prompts: Mapping[str, str]
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)
    form: Form = "names"
    generation: GenerationSpec = field(default_factory=GenerationSpec)
    prefixes: Mapping[str, str] = field(default_factory=dict)
    controls: tuple[Control, ...] = ("no_image", "blank_image", "other_image")
    chrf_words: WordOrder = 0
    identifier: str = "py3langid"
    segmenters: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 16
    private: bool = False

    @property
    def measures(self) -> Measures:
        """Those of names or of sentences."""
        return MEASURES[self.form]

    @cached_property
    def targets(self) -> tuple[int, ...]:  # type: ignore[override]
        """The concept of each image."""
        return concepts(self.samples)

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags with captions and a prompt, in the order in which they first occur."""
        return asked_in(self.samples, self.prompts)

    @cached_property
    def words(self) -> Mapping[str, CaptionWords]:
        """How sentences are cut into words, by language; nothing for names."""
        tags = self.languages if self.form == "sentences" else ()
        return {tag: caption_words(tag, self.segmenters.get(tag)) for tag in tags}

    @cached_property
    def digest(self) -> str:
        """Hex digest of the images' keys, captions and keywords, and of all settings."""
        images = [(one.key, one.captions, one.keywords) for one in self.samples]
        settings = [self.form, self.controls, self.chrf_words, self.identifier]
        asked = [sorted(self.prompts.items()), sorted(self.prefixes.items()), self.generation.model_dump(mode="json")]
        known = sorted((tag, sorted(texts)) for tag, texts in self.known.items())
        cut = [sorted((tag, one.said) for tag, one in self.words.items())] if self.words else []
        return digest([self.name, images, list(self.targets), known, settings, asked, *cut])

    @property
    def facts(self) -> dict[str, Fact]:  # type: ignore[override]
        """What is asked and how it is answered; digests of captions by language, with the images that they are of."""
        rows = {tag: self._rows(tag) for tag in self.languages}
        settings = self.generation.model_dump(mode="json", exclude_defaults=True)
        return {
            "prompts": "; ".join(dict.fromkeys(text.strip() for text in list(self.prompts.values())[:3])),
            "questions": {tag: text + self.prefixes.get(tag, "") for tag, text in self.prompts.items()},
            "generation": json.dumps(settings, ensure_ascii=False) if settings else "greedy",
            "caption_sets": {
                tag: digest([(row, self.samples[row].captions[tag]) for row in some]) for tag, some in rows.items()
            },
            "template_sets": {tag: digest(self._asked(tag)) for tag in self.prompts},
        }

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """See ``Task.choose``; a language needs captions."""
        return choose_languages(languages, self.languages, of=f"task {self.name}")

    def score(
        self, model: AnswersQuestions, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Iterator[Scored]:
        """One row a language, the figures of the answers as detail; each image is encoded once."""
        encoding, judge = Encoding() if encoding is None else encoding, _Judge.of(self)
        kept, asked = kept_answers(model, encoding), {tag: self._question(model, tag) for tag in languages}
        answers = ask_by_image(model, self.samples, asked, kept=kept, encoding=encoding)

        def unseen(tags: Sequence[str], images: tuple[Tensor, ...]) -> list[str]:
            return self._answers(model, tags, [images] * len(tags))

        of = {tag: self._asked(tag) for tag in languages}
        blank = ask_unseen(model, of, unseen, controls=self.controls, kept=kept, encoding=encoding)
        for tag in languages:
            rows = self._rows(tag)
            said = [self._scored(tag, answers[tag][row]) for row in rows]
            wanted = self._wanted(tag, rows)
            of_classes = [self.targets[row] for row in rows]
            captions = [self.samples[row].captions for row in rows]
            figures = measure(said, wanted, judge.of_images(said, captions, tag) | judge.faithful(said, tag))
            controls: dict[str, list[str]] = {
                name: [self._scored(tag, said_of[tag])] * len(rows) for name, said_of in blank.items()
            }
            if "other_image" in self.controls and (other := swapped(rows, self.targets, seed=seed)):
                place = {row: number for number, row in enumerate(rows)}
                controls["other_image"] = [said[place[other[row]]] for row in rows]
            against = {name: measure(one, wanted, judge.faithful(one, tag)) for name, one in controls.items()}
            own, gaps = estimates(figures, of_classes, against=against, seed=seed)
            whole = corpus_chrf(said, wanted.references, word_order=self.chrf_words)
            values = {**self._values(wanted, own, gaps), "corpus_chrf": whole}
            yield Scored(tag, values, detail=figures, written=self._written(tag, rows, said, figures))

    def _values(
        self,
        wanted: Wanted,
        own: Mapping[str, FigureEstimate],
        gaps: Mapping[str, Mapping[str, FigureEstimate]],
    ) -> dict[str, Value]:
        values: dict[str, Value] = {
            "form": self.form,
            "n_images": len(wanted.references),
            "n_references": sum(map(len, wanted.references)),
        }
        if wanted.captions:
            values["bleu_tokenizer"] = bleu_tokenizer(wanted.language)
            values["coco_tokenizer"] = self.words[wanted.language].said
        for name, one in self.measures.metrics.items():
            figure, _, control = name.partition("_over_")
            found = gaps.get(control, {}).get(figure) if control else own.get(name)
            values[name] = math.nan if found is None else found.value
            if one.low:
                low, high = (math.nan, math.nan) if found is None else found.interval
                values |= {one.low: low, one.high: high}
        for control, by_name in gaps.items():
            values |= {
                key: own[name].value - gap.value
                for name, gap in by_name.items()
                if (key := f"{name}_{control}") in self.measures.metrics
            }
        lengths = [len(text) for texts in wanted.references for text in texts]
        return values | {"reference_length": sum(lengths) / len(lengths)}

    def _rows(self, tag: str) -> list[int]:
        return [row for row, sample in enumerate(self.samples) if sample.captions.get(tag)]

    def _wanted(self, tag: str, rows: Sequence[int]) -> Wanted:
        references = [self.samples[row].captions[tag] for row in rows]
        return Wanted(
            tag,
            references,
            [self.samples[row].keywords for row in rows],
            [self.targets[row] for row in rows],
            self.chrf_words,
            captions=CaptionReferences(references, self.words[tag]) if self.words else None,
        )

    def _asked(self, tag: str) -> list[object]:
        generation = self.generation.model_dump(mode="json")
        return [self.prompts[tag], self.prefixes.get(tag, ""), tag, generation]

    def _question(self, model: AnswersQuestions, tag: str) -> Asked:
        key = digest(self._asked(tag))

        def ask(rows: Sequence[int], tokens: Sequence[Tensor]) -> list[str]:
            return self._answers(model, [tag] * len(rows), [(one,) for one in tokens])

        return Asked(dict.fromkeys(self._rows(tag), key), ask)

    def _answers(self, model: AnswersQuestions, tags: Sequence[str], images: Sequence[tuple[Tensor, ...]]) -> list[str]:
        questions = [
            Question(self.prompts[tag], images=shown, language=tag, prefix=self.prefixes.get(tag, ""))
            for tag, shown in zip(tags, images, strict=True)
        ]
        return model.answer(questions, generation=self.generation, batch_size=self.batch_size)

    def _scored(self, tag: str, answer: str) -> str:
        """What the model wrote itself."""
        return answer.strip().removeprefix(self.prefixes.get(tag, "").strip()).strip()

    def _written(
        self, tag: str, rows: Sequence[int], said: Sequence[str], figures: AnswerFigures
    ) -> list[WrittenAnswer]:
        return [
            WrittenAnswer(
                row,
                self.samples[row].key,
                self.targets[row],
                () if self.private else tuple(self.samples[row].captions[tag]),
                said[place],
                {name: round(float(each_N[place]), 6) for name, each_N in figures.each.items() if name != "length"},
            )
            for place, row in enumerate(rows)
        ]


@dataclass(frozen=True)
class _Judge:
    """What is needed to measure answers in all languages."""

    names: NearestNames | None
    identifier: LanguageIdentifier | None
    _best: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, task: CaptioningTask) -> _Judge:
        check_sacrebleu()
        if task.form == "sentences":
            return cls(None, IDENTIFIERS.get_object(task.identifier)())
        known = {tag: dict.fromkeys(texts) for tag, texts in task.known.items()}
        for sample in task.samples:
            for tag, texts in sample.captions.items():
                known.setdefault(tag, {}).update(dict.fromkeys(texts))
        return cls(nearest_names(tuple((tag, tuple(sorted(known[tag]))) for tag in sorted(known))), None)

    def faithful(self, said: Sequence[str], language: str) -> dict[str, npt.ArrayLike]:
        """Which of N answers are in a language: ``fidelity`` [N], and which in another one: ``wrong_language`` [N].

        Nothing where the identifier does not know it.
        """
        if self.identifier is not None:
            found = identified(self.identifier, said, language=language)
            return {} if found is None else {"fidelity": found[0], "wrong_language": found[1]}
        if self.names is None:
            return {}
        new = [text for text in dict.fromkeys(said) if text not in self._best]
        best = self.names.best(new)
        self._best.update(
            {text: {tag: float(one[place]) for tag, one in best.items()} for place, text in enumerate(new)}
        )
        scores = {tag: np.array([self._best[text][tag] for text in said]) for tag in best}
        own, other = nearest(scores, language=language)
        return {"fidelity": own, "wrong_language": other}

    def of_images(
        self, said: Sequence[str], captions: Sequence[Mapping[str, Sequence[str]]], language: str
    ) -> dict[str, npt.ArrayLike]:
        """Which of N names are nearest to a name of their own image in the language; nothing for sentences."""
        if self.names is None:
            return {}
        pairs = zip(said, captions, strict=True)
        return {"fidelity_same_image": [nearest_of_image(text, known, language=language) for text, known in pairs]}


def open_captioning(task: CaptioningSpec, languages: Iterable[str] | None) -> list[CaptioningTask]:
    """Finds the images and captions of a task of a suite; reads no image.

    Raises:
        DataError: Files that are missing or wrong, or a language without a template.
        UnknownName: No such split, language, identifier or segmenter.
        MissingPackage: sacrebleu is not installed, or what tells the language of sentences, or a segmenter.
    """
    obstacles = Obstacles()
    with obstacles.met():
        check_sacrebleu()
    with obstacles.met():
        if task.form == "sentences":
            IDENTIFIERS.get_object(task.identifier)()
    with obstacles.met():
        segmenters = {language_table.normalize(tag): name for tag, name in task.segmenters.items() if SEGMENTERS[name]}
    with obstacles.met():
        pictures = open_pictures(task)
    obstacles.refuse()
    tags = dict.fromkeys(tag for sample in pictures.samples for tag, texts in sample.captions.items() if texts)
    chosen = choose_languages(languages, tags, of=f"task {task.name}")
    opened = CaptioningTask(
        task.name,
        pictures.samples,
        prompts_for(task, chosen),
        pictures.known if task.form == "names" else {},
        form=task.form,
        generation=task.generation,
        prefixes={language_table.normalize(tag): text for tag, text in task.prefixes.items()},
        controls=task.controls,
        chrf_words=task.chrf_words,
        identifier=task.identifier,
        segmenters=segmenters,
        batch_size=task.batch_size,
        private=pictures.private,
    )
    if lacking := {tag: one.lacking for tag, one in opened.words.items() if one.lacking}:
        log.warning(
            "%s: captions in %s are cut into characters, as %s is not installed; run: %s",
            *(task.name, ", ".join(lacking), ", ".join(dict.fromkeys(lacking.values())), pip_install("segmentation")),
        )
    return [opened]
