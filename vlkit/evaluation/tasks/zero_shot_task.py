"""What is evaluated: images, and the names of their classes in each language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from vlkit import prompts
from vlkit.data.names.imagenet import openai_templates
from vlkit.data.names.label_set import count_ambiguous
from vlkit.data.names.template_files import read_templates
from vlkit.data.sources.classes.open_classes import open_images
from vlkit.data.sources.combine import SampleList, identities
from vlkit.data.sources.open import open_source
from vlkit.errors import DataError
from vlkit.evaluation.abilities import EMBEDS, Ability
from vlkit.evaluation.embed.encode import Embedder, device_of
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.image_features import image_features
from vlkit.evaluation.embed.texts import ClassTexts, stream_class_embeddings
from vlkit.evaluation.metrics.intervals import bootstrap_interval
from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.tasks.engine import iter_scores
from vlkit.evaluation.tasks.scorer import ClassEmbeddings, Scorer, first_of_equals
from vlkit.evaluation.tasks.task import Fact, Scored, choose_languages
from vlkit.files import digest
from vlkit.obstacles import Obstacles
from vlkit.paths import local_path
from vlkit.spec import evaluation as spec
from vlkit.spec.sources import BuiltSource, FolderImages
from vlkit.types import Sample, Source

MEASURES = Measures(
    kind="zero_shot",
    headline="acc1",
    metrics={
        "acc1": Measure("top-1", "top-1", low="ci_low", high="ci_high"),
        "acc5": Measure("top-5", "top-5"),
        "chance": Measure(),
        "chance_corrected": Measure("chance-corrected"),
        "acc1_tolerant": Measure(),
        "acc1_en_subset": Measure("English, same classes"),
        "mean_per_class_recall": Measure(),
        "mean_reciprocal_rank": Measure(),
        "median_rank": Measure("median rank", share=False),
        "acc1_subset": Measure("among fewer"),
    },
    english="acc1_en_subset",
    chance="chance",
    alike={"num_classes": "classes", "n_images": "images"},
)
"""``acc5``: right among the best five, or among all where there are fewer than five classes. ``chance_corrected``:
(acc1 - chance) / (1 - chance), NaN for one class. ``acc1_tolerant``: where a class with just the names of the right one
counts as right. ``acc1_en_subset``: ``acc1`` with the English names of the same classes and images.
``mean_per_class_recall``: mean over classes of their top-1. ``acc1_subset``: ``acc1`` among ``subset_size`` classes, on
average over all subsets; NaN for languages that have fewer. Counts: ``n_ambiguous`` classes share all their names with
another one; on ``n_tied`` images a class of other names scores exactly as the right one (the lower one is first)."""


@dataclass(frozen=True)
class ZeroShotTask:
    """Images (``samples``) to be told apart by the names of their classes.

    Attributes:
        names: By BCP 47 tag, for each of the K classes one or more names, or None where the language has none: such
            classes and their images are left out of that language.
        targets: Class of each sample, 0..K-1; by default sample i is the only one of class i.
        templates: Texts with one ``{}`` for a name, the same in every language (``("{}",)`` is the bare name), or by
            BCP 47 tag (languages left out take the bare name); None takes each language's own (``vlkit.prompts``).
        tokenizer_languages: BCP 47 tag to the one that a tokenizer is told in its place, for tokenizers that mark the
            language of their input and do not know every one.
        subset_size: Rows also give the accuracy among so many classes, on average over all subsets; 0 for none.
        notice: Origin and license of the names.
        private: The license forbids copies of the names: they are written to no file.
        known_titles: What files and pages call the classes; by default their English names, unless ``private``.
        per_template: Also score each template alone (``templates.csv``).
        best: How many best answers to each image to find, to be looked at.
    """

    measures: ClassVar[Measures] = MEASURES
    needs: ClassVar[Ability] = EMBEDS

    name: str
    samples: Sequence[Sample]
    names: Mapping[str, Sequence[tuple[str, ...] | None]]
    targets: Sequence[int] = field(default=())
    templates: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = ("{}",)
    tokenizer_languages: Mapping[str, str] = field(default_factory=dict)
    subset_size: int = 0
    notice: str = ""
    private: bool = False
    known_titles: Sequence[str] = ()
    per_template: bool = False
    best: int = 0

    def __post_init__(self) -> None:
        if not self.targets:
            object.__setattr__(self, "targets", tuple(range(len(self.samples))))
        if not self.samples:
            raise DataError(f"task {self.name!r} has no images")
        if len(self.targets) != len(self.samples):
            raise DataError(f"task {self.name!r} has {len(self.samples)} images but {len(self.targets)} targets")
        highest = max(self.targets)
        if not self.names:
            raise DataError(f"task {self.name!r} has class names in no language")
        if len({len(names) for names in self.names.values()}) > 1:
            counts = ", ".join(f"{tag} {len(names)}" for tag, names in self.names.items())
            raise DataError(
                f"task {self.name!r} must list every class in every language (None where it has no name): {counts}"
            )
        for tag, names in self.names.items():
            if len(names) <= highest or min(self.targets) < 0:
                raise DataError(
                    f"task {self.name!r} names {len(names)} classes in {tag!r} but has targets up to {highest}"
                )
            if not any(names[target] for target in set(self.targets)):
                raise DataError(f"task {self.name!r} has no image whose class has a name in {tag!r}")

    @property
    def prompt(self) -> str:
        """What stands for a class.

        ``label`` (the bare name), ``templates`` (the language's own), ``translated`` (given by language), ``english``
        (OpenAI's, in every language) or ``custom``.
        """
        if self.templates is None:
            return "templates"
        if isinstance(self.templates, Mapping):
            return "translated"
        if self.templates == ("{}",):
            return "label"
        return "english" if len(self.templates) > 1 and self.templates == openai_templates() else "custom"

    def templates_of(self, language: str) -> tuple[str, ...]:
        """The templates of a language of the task."""
        if self.templates is None:
            return prompts.templates(language)
        return self.templates.get(language, ("{}",)) if isinstance(self.templates, Mapping) else self.templates

    def spoken(self, language: str) -> str:
        """What a tokenizer is told that the texts of a language are in."""
        return self.tokenizer_languages.get(language, language)

    @property
    def digest(self) -> str:
        """Hex digest of the images' keys and of all names, for provenance."""
        keys, told = [sample.key for sample in self.samples], sorted(self.tokenizer_languages.items())
        more = [*([told] if told else []), *([self.subset_size] if self.subset_size else [])]
        return digest([self.name, keys, list(self.targets), self.names, self.templates, *more])

    @property
    def facts(self) -> dict[str, Fact]:
        """What stands for a class, and digests of classes, names and templates by language; no name is in it."""
        return {
            "prompts": self.prompt,
            "class_sets": {tag: digest(self.classes(tag)[0]) for tag in self.names},
            "label_sets": {tag: digest(names) for tag, names in self.names.items()},
            "template_sets": {tag: digest(self.templates_of(tag)) for tag in self.names},
        }

    @property
    def titles(self) -> tuple[str, ...]:
        """What files and pages may call the classes; empty where nothing may be written."""
        if self.known_titles or self.private or "en" not in self.names:
            return tuple(self.known_titles)
        return tuple(names[0] if names else "" for names in self.names["en"])

    @property
    def left_out(self) -> dict[str, str]:
        """Languages that name one class alone: all of its images are right whatever the model."""
        counts = {tag: sum(1 for one in names if one) for tag, names in self.names.items()}
        return {tag: "one class is named, which leaves nothing to tell apart" for tag in counts if counts[tag] < 2}

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """See ``Task.choose``; a language needs names."""
        return choose_languages(languages, self.names, of=f"task {self.name}", left_out=self.left_out)

    def compared_with(self, languages: Sequence[str]) -> str:
        """English: each language is compared with it on its own classes, where it is among them."""
        return "en" if "en" in languages else ""

    def score(
        self, model: Embedder, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Iterator[Scored]:
        """One row a language; see ``engine.iter_scores``, whose answers are the detail."""
        for found in iter_scores(model, self, languages=languages, answers=self.best, encoding=encoding):
            yield Scored(found.language, found.values(self, seed=seed), found.answers(), found)

    def tables(
        self, model: Embedder, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """Each template alone, where that is wanted; after an evaluation with a cache nothing is encoded."""
        if not self.per_template:
            return {}
        found = [one for tag in languages for one in template_scores(model, self, tag, seed=seed, encoding=encoding)]
        return {"templates.csv": [one._asdict() for one in found]}

    def classes(self, language: str) -> tuple[tuple[int, ...], list[tuple[str, ...]]]:
        """The classes that have names in a language: their ids, and their names."""
        named = [(class_id, names) for class_id, names in enumerate(self.names[language]) if names]
        return tuple(class_id for class_id, _ in named), [names for _, names in named]

    def ambiguous(self, language: str) -> int:
        """How many classes share all their names with another one, so that no model can tell them apart."""
        return count_ambiguous(names for names in self.names[language] if names)


def openmoji_unseen(source: Source) -> ZeroShotTask:
    """Held-out concepts of OpenMoji: the samples whose split is ``test``; see ``captioned_task``."""
    return captioned_task("openmoji-unseen", source)


def captioned_task(name: str, source: Source, *, split: str | None = "test") -> ZeroShotTask:
    """Samples of a split (None: all) that are a class of their own each, named by their captions in all languages.

    Raises:
        DataError: No sample is of that split, or two are of one concept.
    """
    every = (source[index] for index in range(len(source)))
    samples = [sample for sample in every if split is None or sample.split == split]
    if not samples:
        raise DataError(f"the data has no sample with split {split!r}, so nothing is held out to evaluate on")
    concept, count = Counter(identities(SampleList(samples))).most_common(1)[0]
    if count > 1:
        kind = "samples" if split is None else f"{split} samples"
        raise DataError(f"{count} {kind} are of one concept, {concept!r}; a class needs an image of its own")
    tags = dict.fromkeys(tag for sample in samples for tag in sorted(sample.captions))
    names = {tag: [sample.captions.get(tag) or None for sample in samples] for tag in tags}
    return ZeroShotTask(name, samples, names)


class TemplateScore(NamedTuple):
    """Top-1 with one template alone, a share in 0..1, and its 95 % class-cluster bootstrap interval."""

    task: str
    language: str
    template: str
    times: int
    """How often it stands among the language's templates."""
    acc1: float
    ci_low: float
    ci_high: float


def template_scores(
    model: Embedder, task: ZeroShotTask, language: str, *, seed: int = 0, encoding: Encoding | None = None
) -> list[TemplateScore]:
    """One score for each distinct template of a language, best first.

    After an evaluation with the same cache no image and no text is encoded.

    Raises:
        UnknownName: Not a language of the task.
    """
    encoding = Encoding() if encoding is None else encoding
    (tag,) = task.choose([language])
    ids, names = task.classes(tag)
    counts = Counter(task.templates_of(tag))
    wanted = [ClassTexts(task.spoken(tag), names, (template,)) for template in counts]
    found = []
    with image_features(model, task.samples, encoding=encoding) as features:
        scorer = Scorer(features, task.targets, ids, ranks=encoding.ranks, device=device_of(model))
        embedded = stream_class_embeddings(model, wanted, encoding=encoding)
        for (template, count), class_KE in zip(counts.items(), embedded, strict=True):
            rank_4N, _, _ = scorer.score(ClassEmbeddings(ids, class_KE, first_of_equals(names)), answers=0, scale=1.0)
            hits_N = rank_4N[0] == 1
            interval = bootstrap_interval(hits_N.numpy(), scorer.target_N.numpy(), seed=seed)
            found.append(TemplateScore(task.name, tag, template, count, hits_N.double().mean().item(), *interval))
    return sorted(found, key=lambda one: -one.acc1)


def open_zero_shot(task: spec.ZeroShotSpec, languages: Iterable[str] | None) -> list[ZeroShotTask]:
    """The task, and the one on classes that all languages (None for all it has) share where that is wanted.

    Raises:
        DataError: Files that are missing or wrong, or languages that share fewer than two classes.
        UnknownName: A language that is none, or that the task does not have.
    """
    obstacles = Obstacles()
    with obstacles.met():
        templates = _templates(task.templates)
    with obstacles.met():
        opened = _classes(task)
    obstacles.refuse()
    opened = replace(opened, templates=templates, tokenizer_languages=task.told, per_template=task.per_template)
    return comparable_tasks(opened, opened.choose(languages), task.comparable)


def _classes(task: spec.ZeroShotSpec) -> ZeroShotTask:
    """The images of a task and the names of their classes."""
    if isinstance(task.images, spec.BuiltImages):
        source = open_source(BuiltSource(name=task.images.name, image_size=task.images.image_size))
        return captioned_task(task.name, source, split=None if task.images.split == "all" else task.images.split)
    images, labels = open_images(task.images, task.labels)
    return ZeroShotTask(
        task.name,
        images.samples,
        {tag: labels.of(tag) for tag in labels.languages},
        images.targets,
        notice=labels.notice,
        private=labels.private,
        known_titles=() if isinstance(task.images, FolderImages) and not labels.private else images.class_names,
    )


def _templates(templates: spec.TemplatesSpec) -> tuple[str, ...] | dict[str, tuple[str, ...]] | None:
    if isinstance(templates, spec.BareTemplates):
        return ("{}",)
    if isinstance(templates, spec.PackagedTemplates):
        return None
    if isinstance(templates, spec.EnglishTemplates):
        return openai_templates()
    if isinstance(templates, spec.ListedTemplates):
        for template in templates.texts:
            prompts.check_template(template)
        return templates.texts
    path = local_path(templates.path)
    found = read_templates(path, normalize_whitespace=templates.normalize_whitespace)
    return found | ({"en": openai_templates()} if templates.english == "openai" else {})


def comparable_tasks(task: ZeroShotTask, languages: Sequence[str], wanted: spec.ComparableSpec) -> list[ZeroShotTask]:
    """The task, set to give the accuracy among fewer classes, and the task on shared classes where that is wanted.

    Raises:
        DataError: The languages share fewer than two classes that have images.
    """
    counts = {len(task.classes(tag)[0]) for tag in languages}
    size = (min(counts) if len(counts) > 1 else 0) if wanted.size == "smallest" else wanted.size or 0
    task = replace(task, subset_size=size if size > 1 else 0)
    return [task, shared_classes(task, languages)] if wanted.shared else [task]


def shared_classes(task: ZeroShotTask, languages: Sequence[str]) -> ZeroShotTask:
    """The task with just the classes that have a name in each of the languages, under their old numbers.

    Raises:
        DataError: The languages share fewer than two classes that have images.
    """
    shared = set(task.targets).intersection(*(task.classes(tag)[0] for tag in languages))
    if len(shared) < 2:
        counts = sorted((len(task.classes(tag)[0]), tag) for tag in languages)
        fewest = ", ".join(f"{tag} {count}" for count, tag in counts[:5])
        raise DataError(
            f"task {task.name!r}: its {len(languages)} languages share {len(shared)} classes, which leaves nothing to "
            f"tell apart; leave out languages that name few (fewest: {fewest}) or set comparable.shared=false"
        )
    names = {
        tag: tuple(each if number in shared else None for number, each in enumerate(task.names[tag]))
        for tag in languages
    }
    return replace(task, name=f"{task.name}-shared", names=names, subset_size=0)
