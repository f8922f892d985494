"""Whether something is in an image, asked as often where it is as where it is not: hallucination by yes and no.

POPE (arXiv 2305.10355): half of the questions are about things in the image, the others about things drawn at random,
the most frequent ones, or those most often seen with what is there. N images, C columns of sums, S ways to choose.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

from torch import Tensor

from vlkit import languages as language_table
from vlkit.errors import DataError
from vlkit.evaluation.abilities import ANSWERS, Ability
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.metrics.yes_no import Verdict, YesNoJudge, other_language, yes_no_words
from vlkit.evaluation.results.measures import Measures
from vlkit.evaluation.results.written import WrittenAnswer
from vlkit.evaluation.tasks.asking import Asked, Said, ask_by_image, kept_answers
from vlkit.evaluation.tasks.controls import about_others, ask_unseen, swapped
from vlkit.evaluation.tasks.presence_figures import MEASURES, Judged, accuracy_of, presence_values
from vlkit.evaluation.tasks.questions import THING, asked_in, concepts, open_pictures, prompts_for
from vlkit.evaluation.tasks.task import Fact, PlainTask, Scored, choose_languages
from vlkit.evaluation.tasks.things import EVERY, Things, first_that_differ
from vlkit.files import digest
from vlkit.spec.evaluation import Control, Negatives, PresenceSpec
from vlkit.spec.language import GenerationSpec
from vlkit.spec.question_sets import YesNoWords
from vlkit.types import AnswersQuestions, Question, Sample

_OTHER: Control = "other_image"


class AskedThing(NamedTuple):
    """Something that an image is asked for: the number of a thing, and how it was chosen; None where it is there."""

    thing: int
    kind: Negatives | None


@dataclass(frozen=True)
class PresenceTask(PlainTask):
    """Images (``samples``) that are asked for things, in each language that these have names in.

    Attributes:
        things: Those of all images of the set, ``samples`` first.
        prompts: Language (BCP 47) to what is asked, with ``questions.THING`` for the name.
        words: Language to its words of yes and no.
        negatives: How things are chosen that are not there.
        questions: Most things that an image is asked for and has.
        by_likelihood: The likelier of yes and no counts; else an answer is written.
        generation: How answers are written.
        controls: What answers are compared with.
        batch_size: Questions at a time.
        private: The license forbids copies of the names.
    """

    measures: ClassVar[Measures] = MEASURES
    needs: ClassVar[Ability] = ANSWERS  # type: ignore[misc]

    name: str
    samples: Sequence[Sample]
    things: Things
    prompts: Mapping[str, str]
    words: Mapping[str, YesNoWords]
    negatives: tuple[Negatives, ...] = EVERY
    questions: int = 3
    by_likelihood: bool = False
    generation: GenerationSpec = field(default_factory=lambda: GenerationSpec(max_tokens=8))
    controls: tuple[Control, ...] = ("no_image", "blank_image", "other_image")
    batch_size: int = 16
    private: bool = False

    @cached_property
    def targets(self) -> tuple[int, ...]:  # type: ignore[override]
        """The concept of each image."""
        return concepts(self.samples)

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags with names and a prompt, in the order in which they first occur."""
        return asked_in(self.samples, self.prompts)

    @property
    def left_out(self) -> dict[str, str]:  # type: ignore[override]
        """Languages whose words of yes and no are not known."""
        unknown = [tag for tag in self.languages if tag not in self.words]
        return dict.fromkeys(unknown, "no words of yes and no are known; give them in the suite (words)")

    @cached_property
    def digest(self) -> str:
        """Hex digest of the images' keys, all names, and all settings."""
        images = [(one.key, one.captions) for one in self.samples]
        names = sorted((tag, sorted(of.items())) for tag, of in self.things.names.items())
        words = sorted((tag, one.yes, one.no) for tag, one in self.words.items())
        settings = [self.negatives, self.questions, self.by_likelihood, self.controls]
        return digest([self.name, images, self.things.present, names, sorted(self.prompts.items()), words, settings,
                       self.generation.model_dump(mode="json")])  # fmt: skip

    @property
    def facts(self) -> dict[str, Fact]:  # type: ignore[override]
        """What is asked and how it is judged; digests of the names by language, with the images that they are of."""
        settings = self.generation.model_dump(mode="json", exclude_defaults=True)
        rows = {tag: self._rows(tag) for tag in self.languages}
        return {
            "prompts": "; ".join(dict.fromkeys(text.strip() for text in list(self.prompts.values())[:3])),
            "questions": dict(self.prompts),
            "words": {tag: f"{', '.join(one.yes)} / {', '.join(one.no)}" for tag, one in self.words.items()},
            "generation": "likelihood" if self.by_likelihood else json.dumps(settings, ensure_ascii=False),
            "caption_sets": {
                tag: digest([(row, self.samples[row].captions[tag]) for row in some]) for tag, some in rows.items()
            },
            "template_sets": {tag: digest(text) for tag, text in self.prompts.items()},
        }

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """See ``Task.choose``; a language needs names, and words of yes and no."""
        return choose_languages(languages, self.languages, of=f"task {self.name}", left_out=self.left_out)

    def probes(self, language: str, *, seed: int = 0) -> dict[int, tuple[AskedThing, ...]]:
        """By row of the image what it is asked for: first what is there, then as much that is not, of each choice.

        Other languages have the same things where they name them. An image for which too few are found that are not
        there is asked for fewer that are; without any it is left out.
        """
        found: dict[int, tuple[AskedThing, ...]] = {}
        for row in self._rows(language):
            of_image = f"{seed} {self.samples[row].key}"
            shown = self._shown(row, language, seed=of_image)
            absent = {
                kind: first_that_differ(
                    self.things, row, self.things.order(row, kind, seed=of_image), language=language, count=len(shown)
                )
                for kind in self.negatives
            }
            size = min(len(shown), *(len(some) for some in absent.values()))
            if size:
                away = [AskedThing(thing, kind) for kind, some in absent.items() for thing in some[:size]]
                found[row] = (*(AskedThing(thing, None) for thing in shown[:size]), *away)
        return found

    def score(
        self, model: AnswersQuestions, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Iterator[Scored]:
        """One row a language; each image is encoded once, and asked for a thing once however often it was chosen."""
        encoding = Encoding() if encoding is None else encoding
        kept = kept_answers(model, encoding)
        probes = {tag: self.probes(tag, seed=seed) for tag in languages}
        asked = {tag: self._question(model, tag, probes[tag]) for tag in languages}
        others: dict[str, dict[int, int]] = {}
        if _OTHER in self.controls:
            others = {tag: swapped(list(rows), self.targets, seed=seed) for tag, rows in probes.items()}
        more = {f"{tag} {_OTHER}": about_others(asked[tag], other) for tag, other in others.items() if other}
        said = ask_by_image(model, self.samples, asked | more, kept=kept, encoding=encoding)
        every = {tag: sorted({one.thing for some in rows.values() for one in some}) for tag, rows in probes.items()}

        def unseen(tags: Sequence[str], images: tuple[Tensor, ...]) -> list[list[Said]]:
            return self._ask(model, [(tag, images, every[tag]) for tag in tags])

        of = {tag: [self._asked(tag), [self.things.names[tag][one] for one in every[tag]]] for tag in languages}
        blank = ask_unseen(model, of, unseen, controls=self.controls, kept=kept, encoding=encoding)
        for tag in languages:
            things = {row: _distinct(some) for row, some in probes[tag].items()}
            sides = {"": {row: dict(zip(some, said[tag][row], strict=True)) for row, some in things.items()}}
            for control, by_language in blank.items():
                of_thing = dict(zip(every[tag], by_language[tag], strict=True))
                sides[control] = dict.fromkeys(things, of_thing)
            if other := others.get(tag):
                found = said[f"{tag} {_OTHER}"]
                sides[_OTHER] = {row: dict(zip(some, found[other[row]], strict=True)) for row, some in things.items()}
            yield self._scored(tag, probes[tag], sides, seed=seed)

    def _rows(self, tag: str) -> list[int]:
        return [row for row, sample in enumerate(self.samples) if sample.captions.get(tag)]

    def _shown(self, row: int, language: str, *, seed: str) -> tuple[int, ...]:
        """The things in an image that it is asked for."""
        named = [thing for thing in self.things.present[row] if thing in self.things.names[language]]
        return tuple(random.Random(f"{seed} there").sample(named, min(self.questions, len(named))))

    def _asked(self, tag: str) -> list[object]:
        how: object = self.generation.model_dump(mode="json")
        if self.by_likelihood:
            how = [self.words[tag].yes[0], self.words[tag].no[0]]
        return [self.prompts[tag], tag, how]

    def _question(self, model: AnswersQuestions, tag: str, probes: Mapping[int, Sequence[AskedThing]]) -> Asked:
        things = {row: _distinct(some) for row, some in probes.items()}
        names = self.things.names[tag]
        keys = {row: digest([*self._asked(tag), [names[one] for one in some]]) for row, some in things.items()}

        def ask(rows: Sequence[int], tokens: Sequence[Tensor]) -> list[list[Said]]:
            return self._ask(model, [(tag, (one,), things[row]) for row, one in zip(rows, tokens, strict=True)])

        return Asked(keys, ask)

    def _ask(
        self, model: AnswersQuestions, asked: Sequence[tuple[str, tuple[Tensor, ...], Sequence[int]]]
    ) -> list[list[Said]]:
        """What is said of each thing: a text, or the log-likelihoods of yes and of no."""
        questions = [
            Question(self.prompts[tag].replace(THING, self.things.names[tag][thing]), images, language=tag)
            for tag, images, things in asked
            for thing in things
        ]
        said: Iterator[Said]
        if self.by_likelihood:
            words = [self.words[tag] for tag, _, things in asked for _ in things]
            twice = [question for question in questions for _ in range(2)]
            texts = [text for one in words for text in (one.yes[0], one.no[0])]
            weights = model.log_likelihoods(twice, texts, batch_size=self.batch_size)[:, 0].double().cpu().tolist()
            said = iter([[yes, no] for yes, no in zip(weights[::2], weights[1::2], strict=True)])
        else:
            said = iter(model.answer(questions, generation=self.generation, batch_size=self.batch_size))
        return [[next(said) for _ in things] for _, _, things in asked]

    def _scored(
        self,
        tag: str,
        probes: Mapping[int, Sequence[AskedThing]],
        sides: Mapping[str, Mapping[int, Mapping[int, Said]]],
        *,
        seed: int,
    ) -> Scored:
        judge = YesNoJudge(self.words[tag], language=tag)
        judged = {
            control: [
                [Judged(one.kind, *self._verdict(said[row][one.thing], judge)) for one in some]
                for row, some in probes.items()
            ]
            for control, said in sides.items()
        }
        rows = list(probes)
        values = presence_values(judged, [self.targets[row] for row in rows], kinds=self.negatives, seed=seed)
        written = [
            self._written(tag, row, probes[row], sides[""][row], one) for row, one in zip(rows, judged[""], strict=True)
        ]
        return Scored(tag, values, detail=judged, written=written)

    def _verdict(self, said: Said, judge: YesNoJudge) -> tuple[Verdict, bool]:
        """What was answered, and whether in another language."""
        if self.by_likelihood:
            yes, no = said
            return ("yes" if yes > no else "no" if no > yes else ""), False
        verdict = judge(str(said))
        return verdict, not verdict and other_language(str(said), language=judge.language)

    def _written(
        self, tag: str, row: int, probes: Sequence[AskedThing], said: Mapping[int, Said], judged: Sequence[Judged]
    ) -> WrittenAnswer:
        """One image: what it was asked for, each with what was said, and what it shows."""
        names, words = self.things.names[tag], self.words[tag]
        plain = {"yes": words.yes[0], "no": words.no[0], "": "-"}
        answers = {
            probe.thing: plain[one.verdict] if self.by_likelihood else str(said[probe.thing]).strip()
            for probe, one in zip(probes, judged, strict=True)
        }
        shown = "; ".join(text if self.private else f"{names[thing]}: {text}" for thing, text in answers.items())
        there = () if self.private else tuple(names[probe.thing] for probe in probes if probe.kind is None)
        figures = {"accuracy": round(accuracy_of(judged, self.negatives), 6)}
        return WrittenAnswer(row, self.samples[row].key, self.targets[row], there, shown, figures)


def open_presence(task: PresenceSpec, languages: Iterable[str] | None) -> list[PresenceTask]:
    """Finds the images and names of a task of a suite; reads no image.

    Raises:
        DataError: Files that are missing or wrong, a language without a template, images of one thing alone, or none
            that is popular where such are asked for.
        UnknownName: No such split or language.
    """
    pictures = open_pictures(task)
    chosen = {id(one) for one in pictures.samples}
    rest = [one for one in pictures.every if id(one) not in chosen]
    things = Things.of([*pictures.samples, *rest], several=task.several)
    if len(things.images) < 2:
        raise DataError(f"task {task.name!r}: all its images show one thing, and nothing is left that is not there")
    if task.negatives is not None and "popular" in task.negatives and "popular" not in things.kinds:
        raise DataError(
            f"task {task.name!r}: all its things are in equally many images, and none is popular; leave popular out of "
            f"negatives"
        )
    tags = dict.fromkeys(tag for sample in pictures.samples for tag, texts in sample.captions.items() if texts)
    wanted = choose_languages(languages, tags, of=f"task {task.name}")
    own = {language_table.normalize(tag): words for tag, words in task.words.items()}
    opened = PresenceTask(
        task.name,
        pictures.samples,
        things,
        prompts_for(task, wanted),
        {tag: words for tag, words in (yes_no_words() | own).items() if tag in tags},
        negatives=task.negatives or things.kinds,
        questions=task.questions,
        by_likelihood=task.judge == "likelihood",
        generation=task.generation,
        controls=task.controls,
        batch_size=task.batch_size,
        private=pictures.private,
    )
    return [opened]


def _distinct(probes: Sequence[AskedThing]) -> list[int]:
    return list(dict.fromkeys(one.thing for one in probes))
