"""The settings that published figures were made with, and how far results are from these figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from vlkit import languages as language_table
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.compare.reference import Reference, reference
from vlkit.evaluation.results.results_file import Results
from vlkit.spec.evaluation import PackagedTemplates, SuiteSpec, TemplateFile, ZeroShotSpec
from vlkit.spec.sources import ImageNetImages, LabelFiles

PARITIES = ("babel-imagenet",)
TOLERANCE, TOLERANCE_EN = 0.003, 0.001  # published runs were in float16
# languages that Babel-ImageNet's evaluation (commit 317c498) tells NLLB-type tokenizers; it says English for all others
_TOLD = (
    "af am ar as az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gd gl gu ha he hi hr hu hy id is it ja jv "
    "ka kk km kn ko ku ky lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps pt ro ru sa sd si sk sl so sq sr su sv "
    "sw ta te th tl tr ug uk ur uz vi xh yi zh"
)
_OTHERWISE = {"zh": "zh-Hant", "no": "nn", "ku": "ckb"}


@dataclass(frozen=True)
class Difference:
    """Our top-1 and the published one in a language, shares in 0..1, and by how much they may differ."""

    language: str
    ours: float
    published: float
    allowed: float
    same_classes: bool = True
    """Whether both are of equally many; else they say nothing of each other."""

    @property
    def within(self) -> bool:
        """Whether they agree."""
        return abs(self.ours - self.published) <= self.allowed + 1e-9


def with_parity(suite: SuiteSpec, name: str) -> SuiteSpec:
    """The suite with the settings of a published evaluation.

    For ``babel-imagenet`` (arXiv 2306.08658, repository commit 317c498): translated prompts with their stray blanks
    where there are any, else the bare label; English with OpenAI's names and 80 templates; tokenizers that mark the
    language are told English for languages that the authors' map lacks, Sorani for Kurdish, Nynorsk for Norwegian and
    Traditional for Chinese. M-CLIP's published label-only figures cannot be met: its features were not normalised.

    Raises:
        UnknownName: No such evaluation.
        DataError: The suite has no task that it could be.
    """
    if name not in PARITIES:
        raise UnknownName("parity", name, allowed=PARITIES)
    if not any(_is_babel(task) for task in suite.tasks):
        raise DataError(
            "parity babel-imagenet needs a task with images of kind imagenet, labels of kind files and templates of "
            "kind file or none, as in the suite babel_imagenet"
        )
    tasks = tuple(_as_published(task) if isinstance(task, ZeroShotSpec) else task for task in suite.tasks)
    return suite.model_copy(update={"tasks": tasks})


def published_name(model: str) -> str | None:
    """The short name in the table ``babel_imagenet`` of a model named as for ``vlkit.load`` (``open_clip:A/B``)."""
    kind, _, name = model.partition(":")
    wanted = f"open_clip {name.replace('/', '@', 1)}" if kind == "open_clip" else name
    return next((short for short, long in _table().models.items() if long == wanted), None)


def differences(results: Results, short: str, *, task: str) -> list[Difference]:
    """Every language that has both figures, the farthest first."""
    table = _table()
    published = table.of(short)
    found = [
        Difference(
            row.language,
            row["acc1"],
            published[row.language],
            TOLERANCE_EN if row.language == "en" else TOLERANCE,
            row["num_classes"] == table.classes_of(row.language),
        )
        for row in results.rows
        if row.task == task and row.language in published
    ]
    return sorted(found, key=lambda one: -abs(one.ours - one.published))


def babel_tasks(suite: SuiteSpec) -> list[str]:
    """Names of the tasks that ``with_parity`` sets."""
    return [task.name for task in suite.tasks if _is_babel(task)]


def _is_babel(task: object) -> bool:
    return (
        isinstance(task, ZeroShotSpec)
        and isinstance(task.images, ImageNetImages)
        and isinstance(task.labels, LabelFiles)
        and not isinstance(task.templates, PackagedTemplates)
    )


def _as_published(task: ZeroShotSpec) -> ZeroShotSpec:
    if not _is_babel(task):
        return task
    templates = task.templates
    if isinstance(templates, TemplateFile):
        templates = templates.model_copy(update={"normalize_whitespace": False, "english": "openai"})
    return task.model_copy(update={"templates": templates, "tokenizer_languages": told_languages()})


@lru_cache(maxsize=1)
def told_languages() -> dict[str, str]:
    """What the authors' evaluation tells NLLB-type tokenizers where that is not the language itself, by BCP 47 tag."""
    known = {language_table.get(code.upper(), system="babelnet").tag: _OTHERWISE.get(code) for code in _TOLD.split()}
    told = {tag: other for tag, other in known.items() if other}
    codes = [language_table.get(code, system="babelnet").tag for code in _table().num_classes]
    return told | {tag: "en" for tag in codes if tag not in known}


@lru_cache(maxsize=1)
def _table() -> Reference:
    return reference("babel_imagenet")
