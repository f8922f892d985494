"""Specs of published sets of questions about images: where a user's own copies lie. vlkit ships and fetches none.

Paths with ``{language}`` stand for one file (or folder) a language, whatever codes the set has; ``*`` stands for
anything. A folder alone is looked through for the names of the release.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlkit.spec.base import LocalPath, Spec

QuestionForm = Literal["open", "entailment", "pair", "outlier", "choice"]
"""open: any words answer it. entailment: a statement that is surely, perhaps or not true of an image. pair: one that is
true or false of two images. outlier: which of several images a statement is not true of. choice: options are given."""


class _QuestionSet(Spec):
    """What all sets share."""

    path: LocalPath
    """The files: the folder of the release, or a pattern with `{language}` or `*`."""


class _WithImages(_QuestionSet):
    """A set whose images lie in a folder beside its files."""

    images: LocalPath
    """The folder that the names of images are relative to."""


class XGqa(_WithImages):
    """xGQA (arXiv 2109.06082): GQA's balanced test-dev questions in eight languages, answers in English."""

    kind: Literal["xgqa"] = "xgqa"
    path: LocalPath
    """`testdev_balanced_questions_{language}.json` of the release, or IGLUE's `{language}/test.json`."""
    images: LocalPath
    """GQA's folder of images (`n161313.jpg`)."""


class MaXm(_WithImages):
    """MaXM (arXiv 2209.05401): questions about Crossmodal-3600's images in seven languages, answers in the same one."""

    kind: Literal["maxm"] = "maxm"
    path: LocalPath
    """`maxm_v1_{language}.json`."""
    images: LocalPath
    """Crossmodal-3600's folder of images."""


class XVnli(_WithImages):
    """XVNLI (IGLUE, arXiv 2201.11732): is a statement in one of five languages true of a photograph of Flickr30K?"""

    kind: Literal["xvnli"] = "xvnli"
    path: LocalPath
    """`{language}/test.jsonl`."""
    images: LocalPath
    """Flickr30K's folder of images."""


class MaRvl(_WithImages):
    """MaRVL (arXiv 2109.13238): statements about two images, written by speakers of five languages."""

    kind: Literal["marvl"] = "marvl"
    path: LocalPath
    """`marvl-{language}.jsonl`."""
    images: LocalPath
    """The folder with `LANGUAGE/images/CONCEPT/NAME.jpg`."""


class M5Vgr(_QuestionSet):
    """M5B-VGR (arXiv 2407.03791): statements in twelve languages about two photographs of Dollar Street."""

    kind: Literal["m5_vgr"] = "m5_vgr"
    path: LocalPath
    """The WebDataset shards: `wds/{language}`, a folder of tars a language."""
    stacked: Literal["horizontally", "vertically"] = "horizontally"
    """How the two images stand in the one picture that the shards have."""


class M5Vlod(_QuestionSet):
    """M5B-VLOD (arXiv 2407.03791): which of five photographs does a statement not hold for? In twelve languages."""

    kind: Literal["m5_vlod"] = "m5_vlod"
    path: LocalPath
    """The WebDataset shards: `wds/{language}`, a folder of tars a language."""
    stacked: Literal["two_col", "horizontally", "vertically"] = "two_col"
    """How the five images stand in the one picture that the shards have."""


class MtVqa(_QuestionSet):
    """MTVQA (arXiv 2405.11985): questions about text in images in nine languages, answers in the same one."""

    kind: Literal["mtvqa"] = "mtvqa"
    path: LocalPath
    """The parquet files of the test split (`data/test-*.parquet`)."""


class Smpqa(Spec):
    """SMPQA (Centurio, arXiv 2501.05122): plots with words in eleven languages; or those of `vlkit data build smpqa`.

    Questions are in English around a word of the language. Categories are `ground` (yes or no) and `name` (a word).
    """

    kind: Literal["smpqa"] = "smpqa"
    path: LocalPath | None = None
    """`{language}_ground.json` and `{language}_name.json`, as Centurio's evaluation reads them; null: vlkit's own
    plots, drawn on first use in 13 languages, one a script, as far as fonts are found."""
    images: LocalPath | None = None
    """The folder that the names of images are relative to."""

    @model_validator(mode="after")
    def _files_with_images(self) -> Smpqa:
        if (self.path is None) != (self.images is None):
            there, lacking = ("path", "images") if self.images is None else ("images", "path")
            raise ValueError(f"{lacking}: {there} is given and this is not; give both, or none for vlkit's own plots")
        return self


class Cvqa(_QuestionSet):
    """CVQA (arXiv 2406.05967): four options about images of 30 countries, in 31 languages and in English."""

    kind: Literal["cvqa"] = "cvqa"
    path: LocalPath
    """The parquet files (`data/test-*.parquet`)."""
    questions: Literal["native", "english"] = "native"
    """The questions and options in the language, or their translations into English."""


class Kaleidoscope(_QuestionSet):
    """Kaleidoscope (arXiv 2504.07072): exams in 18 languages, with images and without."""

    kind: Literal["kaleidoscope"] = "kaleidoscope"
    path: LocalPath
    """The JSON files (a list of questions each), or parquet files whose column `image` has paths."""
    images: LocalPath | None = None
    """The folder that the paths of images are relative to; null: that of the file, with `image_png` in its `images`."""
    with_images_only: bool = True
    """Leave out questions without an image."""


class M3Exam(_QuestionSet):
    """M3Exam (arXiv 2306.05179): exams in nine languages; questions have any number of images."""

    kind: Literal["m3exam"] = "m3exam"
    path: LocalPath
    """`{language}-questions-image.json`, beside which `images-LANGUAGE` lies."""


class XMmmu(_QuestionSet):
    """xMMMU (Pangea, arXiv 2410.16153): MMMU in seven languages; questions have up to seven images."""

    kind: Literal["xmmmu"] = "xmmmu"
    path: LocalPath
    """`{language}-*.parquet` files."""


QuestionSetSpec = Annotated[
    XGqa | MaXm | XVnli | MaRvl | M5Vgr | M5Vlod | MtVqa | Smpqa | Cvqa | Kaleidoscope | M3Exam | XMmmu,
    Field(discriminator="kind"),
]
"""The spec of any set."""
FORMS: dict[str, QuestionForm] = {
    "xgqa": "open", "maxm": "open", "mtvqa": "open", "smpqa": "open", "xvnli": "entailment", "marvl": "pair",
    "m5_vgr": "pair", "m5_vlod": "outlier", "cvqa": "choice", "kaleidoscope": "choice", "m3exam": "choice",
    "xmmmu": "choice",
}  # fmt: skip
"""What the questions of each kind of set are."""
PRESET_FORMS: dict[str, tuple[QuestionForm, ...]] = {
    "vlkit": ("open", "entailment", "pair", "outlier", "choice"),
    "mblip": ("open", "entailment", "pair"),
    "centurio": ("open", "entailment", "pair", "outlier", "choice"),
    "m5": ("pair", "outlier"),
}
"""Which questions the prompts of each paper are for (``evaluation.tasks.published_prompts`` has their words)."""


class YesNoWords(Spec):
    """Words of yes and no in a language, the plainest first."""

    yes: tuple[str, ...] = Field(min_length=1)
    """What an answer says that agrees."""
    no: tuple[str, ...] = Field(min_length=1)
    """What one says that does not."""
