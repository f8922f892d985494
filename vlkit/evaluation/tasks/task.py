"""What an evaluation asks of a task, whatever is measured: which languages, and the figures in each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from vlkit import languages as language_table
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.abilities import ANYTHING, Ability
from vlkit.evaluation.results.answers import Answers
from vlkit.evaluation.results.drawn import DrawnImage
from vlkit.evaluation.results.examples import FoundImages
from vlkit.evaluation.results.measures import Measures
from vlkit.evaluation.results.results_file import Value
from vlkit.evaluation.results.written import WrittenAnswer
from vlkit.types import Sample

if TYPE_CHECKING:
    from vlkit.evaluation.embed.encoding import Encoding

Fact: TypeAlias = str | Mapping[str, str]
"""What results say of a task, or of each of its languages by BCP 47 tag."""


@dataclass(frozen=True)
class Scored:
    """What a task found out about a model in one language."""

    language: str
    values: Mapping[str, Value]
    """Settings, counts and figures of the row, in the order of the columns."""
    answers: Answers | None = None
    """To each image, where two models are to be compared image by image."""
    detail: Any = None
    """All that was found, for those who know the task."""
    examples: Sequence[FoundImages] = ()
    """A few captions with what was found for them, to be looked at."""
    written: Sequence[WrittenAnswer] = ()
    """What was answered about each image, in words, where a task asks for that."""
    drawn: Sequence[DrawnImage] = ()
    """A few images that the model made, to be looked at."""


class Task(Protocol):
    """One thing to be evaluated, in many languages."""

    @property
    def name(self) -> str:
        """Names the task in results and files."""

    @property
    def measures(self) -> Measures:
        """What its rows hold."""

    @property
    def needs(self) -> Ability:
        """What a model must be able to do."""

    @property
    def samples(self) -> Sequence[Sample]:
        """The images that are looked at."""

    @property
    def targets(self) -> Sequence[int]:
        """Class of each image, for answers to be compared; empty where there are no classes."""

    @property
    def titles(self) -> Sequence[str]:
        """What files and pages may call the classes; empty where nothing may be written."""

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What results say of it: ``prompts``, digests of names by language, ..."""

    @property
    def digest(self) -> str:
        """Hex digest of all that decides its figures but the model: images' keys, texts, settings."""

    @property
    def left_out(self) -> Mapping[str, str]:
        """Languages that are never scored though the task has them, by BCP 47 tag with the reason."""

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """BCP 47 tags of the languages asked for, each once; all of the task for None; but for ``left_out``.

        Raises:
            UnknownName: Not a language, or one that the task does not have.
            DataError: None is left.
        """

    def compared_with(self, languages: Sequence[str]) -> str:
        """The one of some languages whose figures those of the others hang on; "" for none."""

    def score(
        self, model: Any, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Iterator[Scored]:
        """The figures in one language after the other, in any order; what they share is done once.

        Args:
            model: One that can do what is needed.
            languages: BCP 47 tags of the task.
            seed: Of the bootstrap.
            encoding: Batches, caches, processes; every process of a job gets the same figures, bit for bit.
        """

    def tables(
        self, model: Any, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """More tables for the folder of the evaluation, file name to rows."""


def choose_languages(
    wanted: Iterable[str] | None, had: Iterable[str], *, of: str, left_out: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """``Task.choose`` among the languages that a task (``of``) has: tags, each once; all of them for None."""
    known, left = tuple(had), left_out or {}
    tags = known if wanted is None else tuple(dict.fromkeys(map(language_table.normalize, wanted)))
    for tag in tags:
        if tag not in known:
            raise UnknownName(f"language of {of}", tag, allowed=known)
    kept = tuple(tag for tag in tags if tag not in left)
    if tags and not kept:
        raise DataError(f"{of}: no language is left to score; {'; '.join(left_out_notes(left, tags))}")
    return kept


def left_out_notes(left_out: Mapping[str, str], wanted: Iterable[str] | None) -> list[str]:
    """What is to be said of the languages that are left out among those that were asked for (None for all)."""
    tags = left_out if wanted is None else dict.fromkeys(map(language_table.normalize, wanted))
    by_reason: dict[str, list[str]] = {}
    for tag in tags:
        if tag in left_out:
            by_reason.setdefault(left_out[tag], []).append(tag)
    return [f"{', '.join(found)} left out: {reason}" for reason, found in by_reason.items()]


class PlainTask:
    """The members of a task that has no classes, further tables or comparisons; inherit it, or write them yourself."""

    needs: Ability = ANYTHING
    targets: Sequence[int] = ()
    titles: Sequence[str] = ()
    facts: Mapping[str, Fact] = {}
    left_out: Mapping[str, str] = {}

    def compared_with(self, languages: Sequence[str]) -> str:
        """None."""
        return ""

    def tables(
        self, model: Any, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """None."""
        return {}
