"""Questions of published sets: what a model answers in each language, beside what it answers without the image.

N questions of a language, O options of one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from vlkit import languages as language_table
from vlkit.data.formats.images import image_place
from vlkit.data.questions.open_set import open_set
from vlkit.data.questions.question_records import ImageQuestion, Picture
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.abilities import ANSWERS, Ability
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.metrics.fidelity import IDENTIFIERS
from vlkit.evaluation.results.measures import Measures
from vlkit.evaluation.results.results_file import Value
from vlkit.evaluation.results.written import WrittenAnswer
from vlkit.evaluation.tasks.asking import Inquiry, Shown, ask_about, kept_answers
from vlkit.evaluation.tasks.controls import blank_picture, swapped
from vlkit.evaluation.tasks.published_prompts import PRESETS, SHORT_OPEN, asked, template_of
from vlkit.evaluation.tasks.question_figures import (
    MEASURES,
    Answering,
    Figures,
    LanguageJudge,
    likelihood_figures,
    question_values,
    written_figures,
)
from vlkit.evaluation.tasks.task import Fact, PlainTask, Scored, choose_languages
from vlkit.files import digest
from vlkit.spec.evaluation import Control, QuestionsSpec
from vlkit.spec.language import GenerationSpec
from vlkit.types import AnswersQuestions, Question, Sample


@dataclass(frozen=True)
class QuestionTask(PlainTask):
    """Questions about images in several languages.

    Attributes:
        questions: All of them; in one language a key stands once.
        templates: By BCP 47 tag of the question how it is asked (``published_prompts``).
        answering: How it is answered.
        generation: How answers are written.
        clean: VQAv2's processing goes over answers in English.
        controls: What answers are compared with.
        identifier: What tells the language of answers (``metrics.fidelity.IDENTIFIERS``); None for the nearest answer.
        batch_size: Questions, or options weighed, at a time.
    """

    needs: ClassVar[Ability] = ANSWERS  # type: ignore[misc]

    name: str
    questions: Sequence[ImageQuestion]
    templates: Mapping[str, str]
    answering: Answering = "generate"
    generation: GenerationSpec = field(default_factory=GenerationSpec)
    clean: bool = False
    controls: tuple[Control, ...] = ("no_image",)
    identifier: str | None = None
    batch_size: int = 16

    @property
    def closed(self) -> bool:
        """Whether all questions have options."""
        return all(one.options for one in self.questions)

    @property
    def measures(self) -> Measures:
        """Those of how it is answered."""
        return MEASURES[self.answering, self.closed]

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags of the questions, in the order in which they first occur."""
        return tuple(dict.fromkeys(one.language for one in self.questions))

    @cached_property
    def _rows(self) -> dict[int, int]:
        """Number of a question to the row of its sample: translations about the same images share one."""
        rows: dict[tuple[object, ...], int] = {}
        marks = ((one.key, *map(_place, one.images)) for one in self.questions)
        return {number: rows.setdefault(mark, len(rows)) for number, mark in enumerate(marks)}

    @cached_property
    def _groups(self) -> tuple[int, ...]:
        """By number of a question the number of its group."""
        names: dict[str, int] = {}
        return tuple(names.setdefault(one.group, len(names)) for one in self.questions)

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """The images of each question, once for all languages."""
        first: dict[int, ImageQuestion] = {}
        for number, row in self._rows.items():
            first.setdefault(row, self.questions[number])
        return tuple(Sample(one.key, one.images, {}, one.group, "test") for one in first.values())

    @cached_property
    def pictures(self) -> tuple[tuple[Picture, ...], dict[object, int]]:
        """All images, each once, and the row of each by where it lies."""
        found: dict[object, Picture] = {}
        for one in self.questions:
            for image in one.images:
                found.setdefault(_place(image), image)
        return tuple(found.values()), {place: row for row, place in enumerate(found)}

    @cached_property
    def digest(self) -> str:
        """Hex digest of all questions and their answers, and of all settings."""
        asked_ = [
            (one.key, one.language, one.text, one.answers, one.options, one.right, one.answer_language, one.group)
            for one in self.questions
        ]
        settings = [self.answering, self.clean, self.controls, self.identifier]
        generation = self.generation.model_dump(mode="json")
        return digest([self.name, asked_, settings, sorted(self.templates.items()), generation])

    @property
    def facts(self) -> dict[str, Fact]:  # type: ignore[override]
        """What is asked and how it is answered; digests of questions and templates by language."""
        settings = self.generation.model_dump(mode="json", exclude_defaults=True)
        by_tag = {tag: self.of(tag) for tag in self.languages}
        return {
            "prompts": "; ".join(dict.fromkeys(self.templates.values())),
            "questions": dict(self.templates),
            "generation": "likelihood of options" if self.answering == "likelihood"
            else json.dumps(settings, ensure_ascii=False) if settings else "greedy",
            "caption_sets": {
                tag: digest([(self.questions[n].key, self.questions[n].answers) for n in some])
                for tag, some in by_tag.items()
            },
            "template_sets": {tag: digest([text, self.answering]) for tag, text in self.templates.items()},
        }  # fmt: skip

    def of(self, language: str) -> list[int]:
        """Numbers of the questions in a language (BCP 47)."""
        return [number for number, one in enumerate(self.questions) if one.language == language]

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """See ``Task.choose``; a language needs questions."""
        return choose_languages(languages, self.languages, of=f"task {self.name}")

    def score(
        self, model: AnswersQuestions, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Iterator[Scored]:
        """One row a language, the figures of each answer as detail; each image is encoded once for all languages."""
        encoding = Encoding() if encoding is None else encoding
        numbers = [number for tag in languages for number in self.of(tag)]
        shown_of = {(number, None): self._images(number) for number in numbers} | self._unseen(languages, seed=seed)
        every = list(shown_of)
        inquiries = [
            Inquiry(digest(self._asked(number, side)), images, self.questions[number].language)
            for (number, side), images in shown_of.items()
        ]

        def ask(some: Sequence[int], shown: Sequence[Shown]) -> Sequence[Any]:
            return self._answers(model, [every[place] for place in some], shown)

        pictures = (*self.pictures[0], blank_picture)
        answers = ask_about(model, pictures, inquiries, ask, kept=kept_answers(model, encoding), encoding=encoding)
        said = dict(zip(every, answers, strict=True))
        judge = None if self.closed else LanguageJudge.of(self.questions, self.identifier)
        for tag in languages:
            yield self._scored(tag, said, judge, seed=seed)

    def _images(self, number: int) -> tuple[int, ...]:
        """Rows of the pictures of a question."""
        rows = self.pictures[1]
        return tuple(rows[_place(image)] for image in self.questions[number].images)

    def _unseen(self, languages: Sequence[str], *, seed: int) -> dict[tuple[int, Control | None], tuple[int, ...]]:
        """What is shown instead in each control, by question and control; not where there is nothing else to show."""
        grey, found = len(self.pictures[0]), dict[tuple[int, Control | None], tuple[int, ...]]()
        for tag in languages:
            for number in self.of(tag):
                if "no_image" in self.controls:
                    found[number, "no_image"] = ()
                if "blank_image" in self.controls:
                    found[number, "blank_image"] = (grey,) * len(self.questions[number].images)
            if "other_image" in self.controls:
                found |= {(number, "other_image"): self._images(other) for number, other in self._others(tag, seed)}
        return found

    def _others(self, tag: str, seed: int) -> Iterator[tuple[int, int]]:
        """Each question of a language with another one about other images, as many of them."""
        alike: dict[int, list[int]] = {}
        for number in self.of(tag):
            alike.setdefault(len(self.questions[number].images), []).append(number)
        for numbers in alike.values():
            yield from swapped(numbers, self._groups, seed=seed).items()

    def _scored(
        self, tag: str, said: Mapping[tuple[int, Control | None], Any], judge: LanguageJudge | None, *, seed: int
    ) -> Scored:
        numbers = self.of(tag)
        asked_ = [self.questions[number] for number in numbers]

        def answers(side: Control | None) -> list[Any] | None:
            found = [said[number, side] for number in numbers if (number, side) in said]
            return found if len(found) == len(numbers) else None

        own, blank = answers(None) or [], answers("no_image")

        def figures(one: Sequence[Any]) -> Figures:
            if self.answering == "likelihood":
                return likelihood_figures(asked_, one, blank=blank)
            return written_figures(asked_, one, letters=self.answering == "letters", clean=self.clean, judge=judge)

        each = figures(own)
        groups = [self._groups[number] for number in numbers]
        unseen = {side: figures(found) for side in self.controls if (found := answers(side)) is not None}
        values: dict[str, Value] = {
            "answering": self.answering,
            "n_questions": len(numbers),
            "n_images": len({_place(image) for number in numbers for image in self.questions[number].images}),
        }
        values |= question_values(self.measures, each, unseen, groups=groups, seed=seed)
        if "chance" in self.measures.metrics:
            values["chance"] = float(np.mean([1 / len(one.options) for one in asked_]))
        return Scored(tag, values, detail=each, written=self._written(numbers, own, each, groups))

    def _text(self, number: int, side: Control | None) -> str:
        one = self.questions[number]
        return asked(self.templates[one.language], one, seen=side != "no_image")

    def _asked(self, number: int, side: Control | None) -> list[object]:
        one = self.questions[number]
        how = one.options if self.answering == "likelihood" else self.generation.model_dump(mode="json")
        return ["question", self._text(number, side), one.answer_language, how]

    def _answers(
        self, model: AnswersQuestions, some: Sequence[tuple[int, Control | None]], shown: Sequence[tuple[Tensor, ...]]
    ) -> list[Any]:
        questions = [
            Question(self._text(number, side), images, self.questions[number].answer_language)
            for (number, side), images in zip(some, shown, strict=True)
        ]
        if self.answering != "likelihood":
            return model.answer(questions, generation=self.generation, batch_size=self.batch_size)
        options = [self.questions[number].options for number, _ in some]
        flat = [(one, text) for one, texts in zip(questions, options, strict=True) for text in texts]
        found_N2 = model.log_likelihoods([q for q, _ in flat], [text for _, text in flat], batch_size=self.batch_size)
        pairs = iter(found_N2.double().cpu().tolist())
        return [[next(pairs) for _ in texts] for texts in options]

    def _written(
        self,
        numbers: Sequence[int],
        said: Sequence[Any],
        each: Figures,
        groups: Sequence[int],
    ) -> list[WrittenAnswer]:
        return [
            WrittenAnswer(
                self._rows[number],
                self.questions[number].key,
                groups[place],
                self.questions[number].answers,
                self._said(self.questions[number], said[place]),
                {name: round(float(each_N[place]), 6) for name, each_N in each.items()},
                self.questions[number].text,
            )
            for place, number in enumerate(numbers)
        ]

    def _said(self, question: ImageQuestion, said: Any) -> str:
        if self.answering != "likelihood":
            return str(said).strip()
        weight_O = [pair[0] for pair in said]
        return question.options[weight_O.index(max(weight_O))]


def _place(image: Picture) -> object:
    return image_place(image) or id(image)


def open_questions(task: QuestionsSpec, languages: Iterable[str] | None) -> list[QuestionTask]:
    """Finds the questions and images of a task of a suite; reads no image.

    Raises:
        DataError: Files that are missing or wrong, no such category, or a language without a template or words.
        UnknownName: No such language or identifier.
        MissingPackage: A package that reads the files is not installed, or what tells languages.
    """
    if task.identifier is not None:
        IDENTIFIERS.get_object(task.identifier)()
    every = _of_categories(open_set(task.source), task)
    answering: Answering = task.answer or ("letters" if task.form == "choice" else "generate")
    if answering != "generate":
        every = [one for one in every if one.options]
    tags = dict.fromkeys(one.language for one in every)
    chosen = choose_languages(languages, tags, of=f"task {task.name}")
    every = [one for tag in chosen for one in _limited([one for one in every if one.language == tag], task.limit)]
    preset = PRESETS[task.prompt]
    settings = {
        "answering": answering,
        "generation": task.generation or preset.generation,
        "clean": preset.cleaned if task.clean is None else task.clean,
        "controls": task.controls,
        "identifier": task.identifier,
        "batch_size": task.batch_size,
    }
    wordings = ("english", "native") if task.wording == "both" else (task.wording,)
    opened = []
    for wording in wordings:
        name = f"{task.name}-{wording}" if task.wording == "both" else task.name
        asked_, templates = _native(every, task) if wording == "native" else (every, _templates(every, task, answering))
        opened.append(QuestionTask(name, tuple(asked_), templates, **settings))  # type: ignore[arg-type]
    return opened


def _of_categories(questions: Sequence[ImageQuestion], task: QuestionsSpec) -> list[ImageQuestion]:
    if task.categories is None:
        return list(questions)
    there = dict.fromkeys(one.category for one in questions)
    for category in task.categories:
        if category not in there:
            raise UnknownName(f"category in the questions of task {task.name}", category, allowed=there)
    return [one for one in questions if one.category in task.categories]


def _limited(questions: Sequence[ImageQuestion], limit: int | None) -> list[ImageQuestion]:
    """So many of them, by a stable hash of their keys, which takes the same ones in every language."""
    if limit is None:
        return list(questions)
    ranked = sorted(range(len(questions)), key=lambda row: hashlib.sha256(questions[row].key.encode()).digest())
    return [questions[row] for row in sorted(ranked[:limit])]


def _templates(questions: Sequence[ImageQuestion], task: QuestionsSpec, answering: Answering) -> dict[str, str]:
    """What is asked in each language of questions, the slots still in it."""
    spoken = {one.language: one.answer_language for one in questions}
    if isinstance(task.template, str):
        return dict.fromkeys(spoken, task.template)
    if task.template is not None:
        given = {language_table.normalize(tag): text for tag, text in task.template.items()}
        if missing := [tag for tag in spoken if tag not in given]:
            raise DataError(
                f"task {task.name!r}: template has none for {', '.join(missing)}; add them, leave these languages out, "
                "or give one template for all"
            )
        return {tag: given[tag] for tag in spoken}
    if task.source.kind == "smpqa" and task.prompt == "centurio":
        return dict.fromkeys(spoken, SHORT_OPEN)
    form = "open" if task.form == "choice" and answering == "likelihood" else task.form
    return {tag: template_of(task.prompt, form, language) for tag, language in spoken.items()}


def _native(questions: Sequence[ImageQuestion], task: QuestionsSpec) -> tuple[list[ImageQuestion], dict[str, str]]:
    """Questions that are to be answered in their own language, and what is asked in it.

    Raises:
        DataError: There is no such language, or words are of another number than the options.
    """
    words = {language_table.normalize(tag): given for tag, given in task.words.items()}
    found, templates, left = list[ImageQuestion](), dict[str, str](), dict[str, str]()
    for one in questions:
        tag = one.language
        if one.options and task.form != "choice":
            given = words.get(tag, one.options if tag == "en" else ())
            if given and len(given) != len(one.options):
                raise DataError(
                    f"task {task.name!r}: words has {len(given)} for {tag} ({', '.join(given)}), and the options are "
                    f"{', '.join(one.options)}; give one word for each, in this order"
                )
            if not given:
                left[tag] = "words has none"
                continue
            one = replace(one, options=given, answers=(given[one.right],), answer_language=tag)
        template = template_of(task.prompt, task.form, one.answer_language, wording="native")
        if one.answer_language != tag or (tag != "en" and template == template_of("vlkit", task.form, tag)):
            left[tag] = "there is no prompt in it that asks for an answer in it"
            continue
        templates[tag] = template
        found.append(one)
    if not found:
        raise DataError(
            f"task {task.name!r}: no language can be asked in itself; "
            + "; ".join(f"{tag}: {reason}" for tag, reason in left.items())
        )
    return found, templates
