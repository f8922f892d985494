"""Specs of evaluation suites: which images, named how, in which languages."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from vlkit.spec.any_task import AnyTask
from vlkit.spec.base import Kinds, LocalPath, Spec
from vlkit.spec.generated_images import GeneratedImagesSpec
from vlkit.spec.language import GenerationSpec
from vlkit.spec.probing import LinearProbeSpec
from vlkit.spec.question_sets import FORMS, PRESET_FORMS, QuestionForm, QuestionSetSpec, YesNoWords
from vlkit.spec.sources import HoldsOneSplit, IndexedSourceSpec, LabelFiles, LabelsSpec, NamedImages, OwnLabels

Control = Literal["no_image", "blank_image", "other_image"]
Negatives = Literal["random", "popular", "adversarial"]


class BuiltImages(Spec):
    """Drawings of a data set that vlkit builds itself; each is a class of its own, named in many languages."""

    kind: Literal["built"] = "built"
    name: Literal["openmoji", "flags"]
    """Which one."""
    split: Literal["test", "all"] = "test"
    """test: the concepts that are kept back from training; all: every image (flags only)."""
    image_size: int = Field(default=224, ge=16, le=1024)
    """Side of the rendered images in pixels."""

    @model_validator(mode="after")
    def _one_image_a_class(self) -> BuiltImages:
        if self.name == "openmoji" and self.split == "all":
            raise ValueError("openmoji has several drawings of one concept; only its split test has one of each")
        return self


ImagesSpec = Annotated[BuiltImages | NamedImages, Field(discriminator="kind")]


class BareTemplates(Spec):
    """The bare name."""

    kind: Literal["none"] = "none"


class PackagedTemplates(Spec):
    """The frames that vlkit has for each language; the bare name where it has none."""

    kind: Literal["packaged"] = "packaged"


class EnglishTemplates(Spec):
    """OpenAI's 80 English templates around the names of every language."""

    kind: Literal["english"] = "english"


class ListedTemplates(Spec):
    """Templates given here, the same in every language."""

    kind: Literal["list"] = "list"
    texts: tuple[str, ...] = Field(min_length=1)
    """Each with one `{}` for the name; one that stands twice weighs twice."""


class TemplateFile(Spec):
    """A JSON or YAML file of language codes and templates; the bare name for languages that are not in it."""

    kind: Literal["file"] = "file"
    path: LocalPath
    """The file."""
    english: Literal["openai", "file"] = "openai"
    """openai: OpenAI's 80 templates for English, as in Babel-ImageNet's own evaluation; file: those of the file."""
    normalize_whitespace: bool = False
    """Take out stray blanks of machine translation; published scores were made with them."""


TemplatesSpec = Annotated[
    BareTemplates | PackagedTemplates | EnglishTemplates | ListedTemplates | TemplateFile, Field(discriminator="kind")
]


class ComparableSpec(Spec):
    """Languages name different numbers of classes; what makes their accuracies comparable."""

    size: Annotated[int, Field(ge=2)] | Literal["smallest"] | None = "smallest"
    """Rows also give the accuracy among so many classes, averaged over all subsets; null leaves it out.

    smallest: as many as the language with the fewest has, where they differ.
    """
    shared: bool = False
    """Run the task a second time, as NAME-shared, on the classes that all its languages name."""


class ZeroShotSpec(AnyTask):
    """Images to be told apart by the names of their classes."""

    kind: Literal["zero_shot"] = "zero_shot"
    images: ImagesSpec
    """The images and their classes."""
    labels: LabelsSpec = OwnLabels()
    """The names of the classes."""
    templates: TemplatesSpec = BareTemplates()
    """What names are put into."""
    per_template: bool = False
    """Also score each template alone, in each language (`templates.csv`); nothing is encoded for it."""
    comparable: ComparableSpec = ComparableSpec()
    """How accuracies over different numbers of classes are made comparable."""

    @model_validator(mode="after")
    def _labels_fit_images(self) -> ZeroShotSpec:
        if isinstance(self.images, BuiltImages) and isinstance(self.labels, LabelFiles):
            raise ValueError("labels: images of kind built have names of their own; label files are for the others")
        return self


class RetrievalSpec(AnyTask):
    """Images to be found by their captions, and captions by their images."""

    kind: Literal["retrieval"] = "retrieval"
    source: IndexedSourceSpec
    """Images with captions."""
    split: str | None = None
    """Take the samples of this split alone; null takes all."""
    captions: Literal["all", "first"] = "all"
    """Which captions of an image are queries; first: one a language, as CLIP_benchmark does."""
    gallery: Literal["language", "all"] = "language"
    """Candidates: the images with a caption in the language, or all."""

    @model_validator(mode="after")
    def _sets_are_one_split(self) -> RetrievalSpec:
        if self.split is not None and isinstance(self.source, HoldsOneSplit):
            raise ValueError(f"split: files of kind {self.source.kind} hold one split; leave it out")
        return self


class ReconstructionSpec(AnyTask):
    """Images through an image tokenizer and back, whatever the language: one row, under the first of `languages`."""

    kind: Literal["reconstruction"] = "reconstruction"
    source: IndexedSourceSpec
    """Images."""
    split: str | None = None
    """Take the samples of this split alone (`test` of a built set: what is kept back from training); null takes all."""


class AskingSpec(AnyTask):
    """What tasks share in which a model is asked about images and answers in words."""

    source: IndexedSourceSpec
    """Images with captions or names, in one or more languages; those without an image are left out."""
    split: str | None = None
    """Take the samples of this split alone (`test` of a built set: what is kept back from training); null takes all."""
    limit: int | None = Field(default=None, ge=1)
    """Take so many images, chosen by a stable hash of their keys; null takes all."""
    template: str | dict[str, str] | None = None
    """What is asked: a text with `{language}`, the English name of the language, or `{autonym}`, its own; or by BCP 47
    tag. Null takes vlkit's own."""
    wording: Literal["english", "native"] = "english"
    """In which language vlkit's own prompts are; native: in the one that is to be answered in, where there is one."""
    batch_size: int = Field(default=16, ge=1)
    """Questions that are answered at a time."""
    controls: tuple[Control, ...] = ("no_image", "blank_image", "other_image")
    """What answers are compared with: those without any image, those to a plain grey picture, and those to the image
    of another concept."""

    _slots: ClassVar[tuple[str, ...]] = ("language", "autonym")

    @field_validator("template")
    @classmethod
    def _slots_are_known(cls, template: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for text in [template] if isinstance(template, str) else (template or {}).values():
            if not text.strip():
                raise ValueError("a blank template asks nothing; null takes vlkit's own")
            if unknown := sorted(set(re.findall(r"{(\w*)}", text)) - {*cls._slots}):
                allowed = " and ".join(f"{{{slot}}}" for slot in cls._slots)
                raise ValueError(f"{text!r} has {{{unknown[0]}}}; a template may have {allowed}")
        return template

    @model_validator(mode="after")
    def _sets_are_one_split(self) -> AskingSpec:
        if self.split is not None and isinstance(self.source, HoldsOneSplit):
            raise ValueError(f"split: files of kind {self.source.kind} hold one split; leave it out")
        return self


class NamingSpec(AskingSpec):
    """What tasks share in which images are described or named with vlkit's own prompts."""

    prompt: Literal["caption", "name"] | None = None
    """Which of vlkit's own prompts: for a caption, or for the name of what is shown; null: a caption where answers are
    sentences, else a name."""

    @property
    def asks(self) -> Literal["caption", "name"]:
        """Which prompts are taken."""
        return self.prompt or "name"


class CaptioningSpec(NamingSpec):
    """Images to be described or named, in the language that is asked for."""

    kind: Literal["captioning"] = "captioning"
    form: Literal["names", "sentences"] = "names"
    """What answers are. Of names the nearest known name tells the language, of sentences `identifier`; sentences are
    scored by CIDEr-D, ROUGE-L and BLEU too."""
    generation: GenerationSpec = GenerationSpec()
    """How answers are written."""
    prefixes: dict[str, str] = Field(default_factory=dict)
    """Words that answers begin with, by BCP 47 tag: `{fr: La photo montre}`. They are not scored."""
    chrf_words: Literal[0, 2] = 0
    """Longest word n-grams of chrF; 2 for chrF++."""
    identifier: str = "py3langid"
    """What tells the language of sentences."""
    segmenters: dict[str, str] = Field(default_factory=dict)
    """What cuts sentences without blanks into words for CIDEr-D, ROUGE-L and BLEU of COCO, by BCP 47 tag: `{zh:
    characters, ja: sudachipy}`. A language without an entry takes the usual one of its script where that is installed,
    else characters."""

    @property
    def asks(self) -> Literal["caption", "name"]:
        """Which prompts are taken."""
        return self.prompt or ("caption" if self.form == "sentences" else "name")

    @model_validator(mode="after")
    def _names_are_not_cut(self) -> CaptioningSpec:
        if self.segmenters and self.form == "names":
            raise ValueError("segmenters: names are not cut into words; leave it out, or set form to sentences")
        return self


class ChoicesSpec(NamingSpec):
    """Images to be named out of a list, by the likelihood of each name as an answer (as BLOOMZ and mT0 are ranked)."""

    kind: Literal["choices"] = "choices"
    options: Annotated[int, Field(ge=2)] | None = 10
    """How many names an image has to choose from: its own, and others drawn by the suite's seed; null for all."""
    answers: dict[str, Annotated[tuple[str, ...], Field(min_length=2)]] | None = None
    """By BCP 47 tag the options of every image, one of which is a caption of it: `{en: [yes, no]}`; null takes the
    names of the images themselves."""


class QuestionsSpec(AnyTask):
    """Questions about images out of a published set, to be answered in words, by a letter, or by likelihood."""

    kind: Literal["questions"] = "questions"
    source: QuestionSetSpec
    """The set, from files of one's own."""
    prompt: Literal["vlkit", "mblip", "centurio", "m5"] = "vlkit"
    """Whose prompts, decoding and comparison of answers."""
    wording: Literal["english", "native", "both"] = "english"
    """In which language prompts are; native: vlkit's own ones in the language that is to be answered in. both: a task
    for each, NAME-english and NAME-native. Yes and no need `words`."""
    words: dict[str, Annotated[tuple[str, ...], Field(min_length=2)]] = Field(default_factory=dict)
    """For native prompts of sets of statements, by BCP 47 tag the words for yes and no: `{de: [ja, nein]}`."""
    template: str | dict[str, str] | None = None
    """What is asked instead: a text with `{question}`, and where wanted `{language}` or `{autonym}` of the answer,
    `{options}` in lines, and `{images}` for their places; or by BCP 47 tag of the question."""
    answer: Literal["generate", "letters", "likelihood"] | None = None
    """How: written in words; by the letter of an option; or whichever option is the likeliest answer. null: by letters
    where a set gives options to choose from, else in words."""
    generation: GenerationSpec | None = None
    """How answers are written; null: as whose prompts are taken."""
    clean: bool | None = None
    """Whether VQAv2's processing (numbers, articles, punctuation of English) goes over answers before they are
    compared; null: as whose prompts are taken, of answers in English."""
    categories: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Ask the questions of these categories of the set alone."""
    limit: int | None = Field(default=None, ge=1)
    """Ask so many questions in each language, chosen by a stable hash of their keys; null asks all."""
    controls: tuple[Control, ...] = ("no_image",)
    """What answers are compared with: those to the same questions without any image, about a grey one, and about the
    image of another question."""
    identifier: str | None = None
    """What tells whether an answer is in the language that was asked for: an identifier of sentences (`py3langid`);
    null: the nearest right answer of all, in any language, to which answers of a word or two can be compared."""
    batch_size: int = Field(default=16, ge=1)
    """Questions that are answered at a time."""

    @property
    def form(self) -> QuestionForm:
        """What the questions of the set are."""
        return FORMS[self.source.kind]

    @model_validator(mode="after")
    def _the_prompt_fits_the_set(self) -> QuestionsSpec:
        if self.template is None and self.form not in (known := PRESET_FORMS[self.prompt]):
            raise ValueError(
                f"prompt: {self.prompt} has none for {self.source.kind}, whose questions are of the form {self.form} "
                f"(it has {', '.join(known)}); take another, or give a template"
            )
        if self.answer == "letters" and self.form != "choice":
            raise ValueError(f"answer: letters are for sets with options to choose from, not for {self.source.kind}")
        if self.answer == "likelihood" and self.form == "open" and self.source.kind != "smpqa":
            raise ValueError(f"answer: likelihood needs options, and the questions of {self.source.kind} are open")
        return self

    @field_validator("template")
    @classmethod
    def _has_the_question(cls, template: str | dict[str, str] | None) -> str | dict[str, str] | None:
        known = ("question", "language", "autonym", "options", "images", "count")
        for text in [template] if isinstance(template, str) else (template or {}).values():
            if "{question}" not in text:
                raise ValueError(f"{text!r} has no {{question}}")
            if unknown := sorted(set(re.findall(r"{(\w*)}", text)) - set(known)):
                raise ValueError(f"{text!r} has {{{unknown[0]}}}; a template may have {', '.join(known)}")
        return template


class PresenceSpec(AskingSpec):
    """Whether something is in an image: as many questions whose answer is yes as no (POPE, arXiv 2305.10355)."""

    kind: Literal["presence"] = "presence"
    several: bool = False
    """Each text of an image is a thing of its own (lists of objects); else they are names of one thing. Languages of an
    image then have as many texts each, in the same order."""
    negatives: tuple[Negatives, ...] | None = Field(default=None, min_length=1)
    """How things are chosen that are not in the image. random; popular: those in most images; adversarial: those that
    are most often seen with what is in it, or where images show one thing each, those of the most alike names. Null:
    popular where things are not all in equally many images, and the others."""
    questions: int = Field(default=3, ge=1)
    """Most things in an image that are asked for, and as many that are not in it, of each choice (POPE: 3)."""
    judge: Literal["words", "likelihood"] = "words"
    """words: an answer is written and looked for yes and no; likelihood: the likelier of the two counts."""
    words: dict[str, YesNoWords] = Field(default_factory=dict)
    """Words of yes and no by BCP 47 tag, for languages that vlkit has none for, or others: `{cy: {yes: [ydy, oes], no:
    [nac ydy, nac oes]}}`."""
    wording: Literal["english", "native"] = "native"
    """In which language vlkit's own questions are; native: in that of the names, where there is one. The names are in
    their language in both."""
    generation: GenerationSpec = GenerationSpec(max_tokens=8)
    """How answers are written."""

    _slots: ClassVar[tuple[str, ...]] = ("language", "autonym", "thing")

    @field_validator("template")
    @classmethod
    def _asks_for_a_thing(cls, template: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for text in [template] if isinstance(template, str) else (template or {}).values():
            if text.count("{thing}") != 1:
                raise ValueError(f"{text!r} must have one {{thing}}, for the name of what is asked for")
        return template

    @field_validator("negatives")
    @classmethod
    def _choices_differ(cls, negatives: tuple[Negatives, ...] | None) -> tuple[Negatives, ...] | None:
        if negatives is not None and len(set(negatives)) < len(negatives):
            raise ValueError(f"negatives = {', '.join(negatives)}: each may stand once")
        return negatives


TASK_KINDS = Kinds(
    ZeroShotSpec, RetrievalSpec, CaptioningSpec, ChoicesSpec, PresenceSpec, QuestionsSpec, ReconstructionSpec,
    GeneratedImagesSpec,
    LinearProbeSpec,
)  # fmt: skip
TaskSpec = Annotated[AnyTask, TASK_KINDS]
"""The spec of any kind of task."""


class SuiteSpec(Spec):
    """An evaluation suite: tasks, each in many languages."""

    description: str = ""
    """One or two sentences: what it measures, its source."""
    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    """What is evaluated."""
    languages: tuple[str, ...] | None = Field(default=None, min_length=1)
    """BCP 47 tags, for tasks that do not say theirs; null takes every language of a task."""
    seed: int = Field(default=0, ge=0)
    """Seed of the bootstrap intervals."""
    batch_size: int = Field(default=64, ge=1)
    """Images a forward pass."""
    workers: int | None = Field(default=None, ge=1)
    """Threads that read images while others are encoded; null: one a core, at most 8."""

    @field_validator("tasks")
    @classmethod
    def _names_differ(cls, tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
        name, count = Counter(task.name for task in tasks).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{count} tasks are named {name!r}; give each a name of its own")
        return tasks
