"""Specs of what a data set is read from: shards, tables, folders, published sets; for training and evaluation alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlkit.spec.base import LocalPath, Spec

HUB = "hf:"
"""What names of data sets on the hub begin with."""


class _Source(Spec):
    """What all sources share."""

    weight: float | None = Field(default=None, gt=0)
    """Share of this source in the batches, relative to the others' weights; null (then for all): by size."""
    task: str | None = None
    """What its samples teach a vision-language model, where they do not say it: `caption`, `name`, `vqa`, `yes_no`,
    `translate`, `ocr`, ... (`data.prompts`). null: names for classes and emoji, captions for published sets, else
    nothing."""
    languages: tuple[str, ...] | None = Field(default=None, min_length=1)
    """BCP 47 tags of this source to learn from, where other sources have others; null takes those of the run."""
    stages: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Names of the recipe's stages that learn from it; null: all."""


class WebDatasetSource(_Source):
    """WebDataset shards: tar files whose members share a key (`0001.png`, `0001.json`)."""

    kind: Literal["webdataset"] = "webdataset"
    path: LocalPath
    """A tar file, a folder of tar files, a brace pattern (`data/train-{0000..0009}.tar`), such a pattern behind
    `https://`, `s3://`, ..., or `pipe:COMMAND` whose output is a tar."""
    language: str | None = None
    """BCP 47 tag of plain `.txt` captions; captions in `.json` carry their own."""
    sampling: Literal["auto", "index", "stream"] = "auto"
    """index: any sample at any time, local files only. stream: some shards at a time (`data.stream`). auto: index for
    local files, stream for all else."""


class FolderSource(_Source):
    """A table (JSONL or CSV) of image paths and captions beside a folder of images."""

    kind: Literal["folder"] = "folder"
    path: LocalPath
    """The table: `.jsonl`, `.csv` or `.tsv`."""
    images: LocalPath | None = None
    """Folder that image paths are relative to; null takes the table's own folder."""
    language: str | None = None
    """BCP 47 tag of the captions where the table has no language column."""
    texts_only: bool = False
    """The table holds texts in several languages and no images, for losses between texts."""


class BuiltSource(_Source):
    """A data set that vlkit builds itself, once, into the cache (`vlkit data build`)."""

    kind: Literal["built"] = "built"
    name: Literal["openmoji", "flags", "tuxpaint", "ocr"]
    """Which one; ocr: 400 pages with names of countries in 14 languages that need no fonts beside vlkit's own."""
    image_size: int = Field(default=224, ge=16, le=1024)
    """Side of the rendered images in pixels; of pages the shorter one, 128 at least."""
    source: LocalPath | None = None
    """For tuxpaint: the folder of stamps, or of the unpacked package; null looks where the package installs them."""

    @model_validator(mode="after")
    def _source_of_stamps(self) -> BuiltSource:
        if self.source is not None and self.name != "tuxpaint":
            raise ValueError(f"source: is the folder of tuxpaint's stamps; {self.name} has none, leave it out")
        return self


class ImageTree(_Source):
    """A folder, tar or zip of images: each with its captions in a file beside it, or in a folder named after them.

    A first folder named train, val, validation or test is the split.
    """

    kind: Literal["tree"] = "tree"
    path: LocalPath
    """The folder, tar or zip."""
    language: str | None = None
    """BCP 47 tag of the folders' names, and of captions that name none themselves."""


class HoldsOneSplit(_Source):
    """A source whose files do not say what is for training."""

    split: Literal["train", "validation", "test"] = "train"
    """What a recipe takes all of its samples for."""


class _ImageFiles(Spec):
    """Images in any form: what a path holds is found out by looking."""

    path: LocalPath
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
    path: LocalPath
    """The release's folder, or its folder of images."""
    mappings: str | None = None
    """The folder of objectnet_to_imagenet_1k.json and folder_to_objectnet_label.json; null: mappings of the release."""
    border: int = Field(default=2, ge=0, le=16)
    """Pixels to cut off on each side; the release marks its images with a red border, to be removed before use."""


NamedImages = FolderImages | ImageNetImages | ObjectNetImages


class OwnLabels(Spec):
    """The names that come with the images: those of built sets, folders and ObjectNet, OpenAI's of ImageNet."""

    kind: Literal["own"] = "own"


class LabelFiles(Spec):
    """Label files: Babel-ImageNet's JSON, vlkit's own JSON, or tables (`vlkit labels check FILE`)."""

    kind: Literal["files"] = "files"
    paths: tuple[LocalPath, ...] = Field(min_length=1)
    """One or more; a language is taken from the first file that has it."""


LabelsSpec = Annotated[OwnLabels | LabelFiles, Field(discriminator="kind")]


class ImageClasses(HoldsOneSplit):
    """Images sorted into classes; the names of its class in each language are an image's captions."""

    kind: Literal["classes"] = "classes"
    images: Annotated[NamedImages, Field(discriminator="kind")]
    """The images and their classes; a class is a concept."""
    labels: LabelsSpec = OwnLabels()
    """The names of the classes."""


class _CaptionSet(HoldsOneSplit):
    """A published set of captioned images, from files of one's own."""

    images: LocalPath
    """The folder that the names of images are relative to."""


class BabelJson(_CaptionSet):
    """XTD, xFlickrCO or Crossmodal-3600 as Babel-ImageNet's repository has them."""

    kind: Literal["babel_json"] = "babel_json"
    path: LocalPath
    """`{"images": [name, ...], "captions": {"de": [[caption, ...], ...]}}`"""


class Crossmodal3600(_CaptionSet):
    """Crossmodal-3600 as its authors publish it; images are named `KEY.jpg`."""

    kind: Literal["crossmodal3600"] = "crossmodal3600"
    path: LocalPath
    """captions.jsonl"""


class AlignedLines(_CaptionSet):
    """Multi30K and XTD as their authors publish them: text files whose lines belong together. May be `.gz`."""

    kind: Literal["aligned_lines"] = "aligned_lines"
    names: LocalPath
    """File names of the images, one a line."""
    captions: dict[str, Annotated[tuple[LocalPath, ...], Field(min_length=1)]] = Field(min_length=1)
    """Language code -> files with one caption a line."""


class CaptionJsonl(_CaptionSet):
    """Flickr30K-CN and COCO-CN as M2-Encoder has them, xFlickrCO as IGLUE has it: one JSON line an image."""

    kind: Literal["caption_jsonl"] = "caption_jsonl"
    captions: dict[str, LocalPath] = Field(min_length=1)
    """Language code -> file."""


class WitJsonl(_CaptionSet):
    """WIT as IGLUE publishes it: one JSON line a caption, whose image has an address and a number."""

    kind: Literal["wit"] = "wit"
    captions: dict[str, LocalPath] = Field(min_length=1)
    """Language code -> file (`test_da.jsonl`)."""
    naming: Literal["wit_ix", "image_idx", "url_name", "url_md5", "file"] = "wit_ix"
    """How files are called, whatever their ending: `wit-test_15`; `57`; the address's last part; its MD5; see names."""
    names: LocalPath | None = None
    """For naming file: a table (CSV or TSV) of wit_ix or address and file name, or a JSON object of these."""

    @model_validator(mode="after")
    def _names_of_files(self) -> WitJsonl:
        if (self.names is None) == (self.naming == "file"):
            raise ValueError("names: is the file that naming: file takes names from; give both or neither")
        return self


class CocoCaptions(_CaptionSet):
    """COCO's captions as its authors publish them (`captions_train2017.json`), and sets in the same form."""

    kind: Literal["coco_captions"] = "coco_captions"
    path: LocalPath
    """`{"images": [{"id", "file_name"}, ...], "annotations": [{"image_id", "caption"}, ...]}`"""
    language: str = "en"
    """BCP 47 tag of captions that name none themselves (`language`)."""


class Dialogues(HoldsOneSplit):
    """Conversations about no, one or several images: LLaVA's form, mBLIP's and Centurio's, or vlkit's own turns.

    A record has `conversations` (`from`, `value`), or `context` and `label`, or `turns` (`role`, `text`, `language`);
    its images in `image`, `images` or `image_id`; optional `language`, `task`, `concept`, `keywords`, `translated`.
    """

    kind: Literal["dialogues"] = "dialogues"
    path: LocalPath
    """A `.json` file with a list of records, or a `.jsonl` file."""
    images: LocalPath | None = None
    """Folder that the names of images are relative to; null takes the file's own."""
    language: str | None = None
    """BCP 47 tag of turns that name none themselves."""


class NativeAndTranslated(HoldsOneSplit):
    """MELLA's two sources (arXiv 2508.05502) in one file: alt texts of native pages, and translated captions.

    A JSON line is `{"image", "lang", "source": "alt" or "mt_caption", "text", "keywords": [...]}`. Give the file twice,
    once for each of the `texts`, to weight the two.
    """

    kind: Literal["native_and_translated"] = "native_and_translated"
    path: LocalPath
    """The JSONL file."""
    images: LocalPath | None = None
    """Folder that the names of images are relative to; null takes the file's own."""
    texts: Literal["native", "translated", "both"] = "both"
    """native: alt texts, with what a culture knows. translated: captions that say what is seen."""


class CaptionParquet(HoldsOneSplit):
    """Images with captions in parquet files, as WIT is on the Hugging Face hub (mteb/wit): one split a language."""

    kind: Literal["caption_parquet"] = "caption_parquet"
    captions: dict[str, Annotated[tuple[LocalPath, ...], Field(min_length=1)]] = Field(min_length=1)
    """Language code -> files with the columns image, image_id and captions."""


class HubData(HoldsOneSplit):
    """Images with captions from parquet files as data sets of the Hugging Face hub have them."""

    kind: Literal["hub"] = "hub"
    path: LocalPath
    """`hf:ORG/NAME`, fetched once into the hub's cache; or a folder that holds a copy of it."""
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    """The commit, 40 hex digits (on the page of the data set: Files and versions, History), so that it stays what it
    was; null for a folder."""
    captions: dict[str, str] = Field(min_length=1)
    """Language code -> column of its captions: one text or a list in each row."""
    image: str = "image"
    """The column of the images."""
    subset: str | None = None
    """The folder of a subset, where a data set has several (on its page: Subset)."""
    hub_split: str | None = None
    """The split as the data set calls it; null: as `split`."""
    files: str | None = None
    """Pattern of the files to read where they are called otherwise, e.g. `wit/*/fr-*.parquet`."""

    @model_validator(mode="after")
    def _is_pinned(self) -> HubData:
        if self.path.startswith(HUB) != (self.revision is not None):
            fix = "give the commit, 40 hex digits" if self.revision is None else "leave it out: a folder has none"
            raise ValueError(f"revision: path is {self.path}; {fix}")
        return self


class PipelineSource(_Source):
    """A WebDataset pipeline of one's own, or anything else that gives samples one after the other; it is streamed.

    The function is imported and called when the run starts, in each reader. It returns an iterable of dicts with an
    image and captions (`vlkit.data.stream.pipeline`).
    """

    kind: Literal["pipeline"] = "pipeline"
    object: str = Field(pattern=r"^\w+(\.\w+)*:\w+(\.\w+)*$")
    """`module:function`; the module must be importable (`PYTHONPATH=.` for one in the current folder)."""
    language: str | None = None
    """BCP 47 tag of captions that name none themselves."""


CaptionFiles = BabelJson | Crossmodal3600 | AlignedLines | CaptionJsonl | CocoCaptions | WitJsonl
"""Published sets whose images lie in a folder beside their captions."""
CaptionSet = CaptionFiles | CaptionParquet | HubData
_Sets = ImageClasses | CaptionSet | Dialogues | NativeAndTranslated
_Indexed = WebDatasetSource | FolderSource | BuiltSource | ImageTree | _Sets
IndexedSourceSpec = Annotated[_Indexed, Field(discriminator="kind")]
"""What can be read at random places."""


class TranslationsSource(_Source):
    """The texts of another source without their images: each is to be said in another language.

    Florenz's question (arXiv 2503.09443): what a model that learned to translate into a language says of images in it.
    """

    kind: Literal["translations"] = "translations"
    of: IndexedSourceSpec
    """The source; captions of an image in two languages are translations of each other, the first of the first."""
    reads: str = "en"
    """BCP 47 tag of what is to be translated; `languages` are those that it is to be said in."""


SourceSpec = Annotated[_Indexed | TranslationsSource | PipelineSource, Field(discriminator="kind")]


def learned_in(stage: str) -> Callable[[SourceSpec], bool]:
    """Whether a stage of this name learns from a source."""
    return lambda source: source.stages is None or stage in source.stages
