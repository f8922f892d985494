"""Specs of evaluation suites: which images, named how, in which languages."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vlkit.languages import normalize
from vlkit.spec.base import Kinds, Spec
from vlkit.spec.dataset import BuiltSource, FolderSource, WebDatasetSource


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


class _ImageFiles(Spec):
    """Images in any form: what a path holds is found out by looking."""

    path: str
    """A folder, tar or zip with a folder for each class; WebDataset shards; parquet files; or a pattern of files."""
    labels_file: str | None = None
    """For images without folders: a file that says of which class each is."""


class FolderImages(_ImageFiles):
    """Images of any classes, numbered by the data set itself or else in the order of their folders' names."""

    kind: Literal["folder"] = "folder"
    language: str = "en"
    """BCP 47 tag of the folders' names, which name the classes where no label file does ("polar_bear": polar bear)."""


class ImageNetImages(_ImageFiles):
    """ImageNet-1k or a set with its classes, called by WordNet id (n01440764) or number (0..999)."""

    kind: Literal["imagenet"] = "imagenet"
    classes: Literal["imagenet-1k", "imagenet-v2", "imagenet-sketch", "imagenet-a", "imagenet-r", "present"] = (
        "imagenet-1k"
    )
    """Whose classes are told apart; each must have images. present: those that have any."""


class ObjectNetImages(Spec):
    """ObjectNet's objects that are ImageNet classes (113), each told apart by the names of all its ImageNet classes."""

    kind: Literal["objectnet"] = "objectnet"
    path: str
    """The release's folder, or its folder of images."""
    mappings: str | None = None
    """The folder of objectnet_to_imagenet_1k.json and folder_to_objectnet_label.json; null: mappings of the release."""
    border: int = Field(default=2, ge=0, le=16)
    """Pixels to cut off on each side; the release marks its images with a red border, to be removed before use."""


NamedImages = FolderImages | ImageNetImages | ObjectNetImages
ImagesSpec = Annotated[BuiltImages | NamedImages, Field(discriminator="kind")]


class OwnLabels(Spec):
    """The names that come with the images: those of built sets, folders and ObjectNet, OpenAI's of ImageNet."""

    kind: Literal["own"] = "own"


class LabelFiles(Spec):
    """Label files: Babel-ImageNet's JSON, vlkit's own JSON, or tables (`vlkit labels check FILE`)."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more; a language is taken from the first file that has it."""


LabelsSpec = Annotated[OwnLabels | LabelFiles, Field(discriminator="kind")]


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
    path: str
    """The file."""
    english: Literal["openai", "file"] = "openai"
    """openai: OpenAI's 80 templates for English, as in Babel-ImageNet's own evaluation; file: those of the file."""
    normalize_whitespace: bool = False
    """Take out stray blanks of machine translation; published scores were made with them."""


TemplatesSpec = Annotated[
    BareTemplates | PackagedTemplates | EnglishTemplates | ListedTemplates | TemplateFile, Field(discriminator="kind")
]


class AnyTask(Spec):
    """What all tasks share; each kind has a ``kind`` of its own as that field's default."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    """Names the task in results and files."""
    languages: tuple[str, ...] | None = Field(default=None, min_length=1)
    """BCP 47 tags; null takes the suite's. With en among them, each language is compared with English."""
    tokenizer_languages: dict[str, str] = Field(default_factory=dict)
    """What a tokenizer that marks the language of its input (NLLB's) is told for one it does not know: `{br: fr}`.
    Without an entry such a language is an error, never English."""

    @property
    def told(self) -> dict[str, str]:
        """``tokenizer_languages`` as BCP 47 tags."""
        return {normalize(one): normalize(other) for one, other in self.tokenizer_languages.items()}


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


class _RetrievalSet(Spec):
    """A published retrieval set, from files of one's own."""

    images: str
    """The folder that the names of images are relative to."""


class BabelJson(_RetrievalSet):
    """XTD, xFlickrCO or Crossmodal-3600 as Babel-ImageNet's repository has them."""

    kind: Literal["babel_json"] = "babel_json"
    path: str
    """`{"images": [name, ...], "captions": {"de": [[caption, ...], ...]}}`"""


class Crossmodal3600(_RetrievalSet):
    """Crossmodal-3600 as its authors publish it; images are named `KEY.jpg`."""

    kind: Literal["crossmodal3600"] = "crossmodal3600"
    path: str
    """captions.jsonl"""


class AlignedLines(_RetrievalSet):
    """Multi30K and XTD as their authors publish them: text files whose lines belong together. May be `.gz`."""

    kind: Literal["aligned_lines"] = "aligned_lines"
    names: str
    """File names of the images, one a line."""
    captions: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(min_length=1)
    """Language code -> files with one caption a line."""


class CaptionJsonl(_RetrievalSet):
    """Flickr30K-CN and COCO-CN as M2-Encoder has them, xFlickrCO as IGLUE has it: one JSON line an image."""

    kind: Literal["caption_jsonl"] = "caption_jsonl"
    captions: dict[str, str] = Field(min_length=1)
    """Language code -> file."""


class WitJsonl(_RetrievalSet):
    """WIT as IGLUE publishes it: one JSON line a caption, whose image has an address and a number."""

    kind: Literal["wit"] = "wit"
    captions: dict[str, str] = Field(min_length=1)
    """Language code -> file (`test_da.jsonl`)."""
    naming: Literal["wit_ix", "image_idx", "url_name", "url_md5", "file"] = "wit_ix"
    """How files are called, whatever their ending: `wit-test_15`; `57`; the address's last part; its MD5; see names."""
    names: str | None = None
    """For naming file: a table (CSV or TSV) of wit_ix or address and file name, or a JSON object of these."""

    @model_validator(mode="after")
    def _names_of_files(self) -> WitJsonl:
        if (self.names is None) == (self.naming == "file"):
            raise ValueError("names: is the file that naming: file takes names from; give both or neither")
        return self


class CaptionParquet(Spec):
    """Images with captions in parquet files, as WIT is on the Hugging Face hub (mteb/wit): one split a language."""

    kind: Literal["caption_parquet"] = "caption_parquet"
    captions: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(min_length=1)
    """Language code -> files with the columns image, image_id and captions."""


RetrievalSet = BabelJson | Crossmodal3600 | AlignedLines | CaptionJsonl | WitJsonl | CaptionParquet
RetrievalSourceSpec = Annotated[
    WebDatasetSource | FolderSource | BuiltSource | RetrievalSet, Field(discriminator="kind")
]


class RetrievalSpec(AnyTask):
    """Images to be found by their captions, and captions by their images."""

    kind: Literal["retrieval"] = "retrieval"
    source: RetrievalSourceSpec
    """Images with captions."""
    split: str | None = None
    """Take the samples of this split alone; null takes all."""
    captions: Literal["all", "first"] = "all"
    """Which captions of an image are queries; first: one a language, as CLIP_benchmark does."""
    gallery: Literal["language", "all"] = "language"
    """Candidates: the images with a caption in the language, or all."""

    @model_validator(mode="after")
    def _sets_are_one_split(self) -> RetrievalSpec:
        if self.split is not None and isinstance(self.source, RetrievalSet):
            raise ValueError(f"split: files of kind {self.source.kind} hold one split; leave it out")
        return self


TASK_KINDS = Kinds(ZeroShotSpec, RetrievalSpec)
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
