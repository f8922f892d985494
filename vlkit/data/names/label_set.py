"""Names of K classes in many languages, what is wrong with them, and what no model could get right."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlkit import languages as language_table
from vlkit.errors import DataError, UnknownName
from vlkit.files import digest, write_atomic

MOST_CLASSES = 1_000_000
"""Numbers of classes above this are a mistake, or meant to fill the memory."""
_SHOWN = 8
_DIGITS = 18  # numbers with more are names
# Japanese writes with all three, side by side
_JAPANESE = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK"}


def class_number(text: str) -> int | None:
    """The number of a class that a text is (``7``, ``007``, ``7.0`` from a column of floats), or None for a name."""
    whole, point, rest = text.partition(".")
    is_whole = not point or (rest and not rest.strip("0"))
    return int(whole) if whole.isdecimal() and len(whole) <= _DIGITS and is_whole else None


@dataclass(frozen=True)
class LanguageReport:
    """What a reader of scores should know of one language's names.

    Attributes:
        language: BCP 47.
        n_classes: Classes that have a name.
        n_names: Names in all.
        n_ambiguous: Classes that share all their names with another one, which no model can tell apart.
        n_english: Classes that have an English name of theirs (in any case of letters) among their names.
        scripts: How many names are written in each script (Unicode's names), the most frequent first.
    """

    language: str
    n_classes: int
    n_names: int
    n_ambiguous: int
    n_english: int
    scripts: Mapping[str, int]

    @property
    def n_other_script(self) -> int:
        """Names in another script than most are."""
        return self.n_names - max(self.scripts.values(), default=0)


@dataclass(frozen=True)
class LabelSet:
    """Names of classes 0..num_classes-1 by language.

    Attributes:
        name: What results call it.
        num_classes: K, how many classes there are in all; a language may name fewer.
        names: By BCP 47 tag, the names of each class that has any, the usual one first.
        notice: Origin and license, for whoever uses the names.
        private: The license forbids copies, so that the names are written to no file.
        notes: What the reader or builder left out or changed, one sentence each.
    """

    name: str
    num_classes: int
    names: Mapping[str, Mapping[int, tuple[str, ...]]] = field(repr=False)
    notice: str = ""
    private: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = [] if self.names else ["no language"]
        for tag, named in self.names.items():
            if not named:
                problems.append(f"{tag}: no class has a name")
            for number, names in named.items():
                if not 0 <= number < self.num_classes:
                    problems.append(f"{tag}: class {number} is not in 0..{self.num_classes - 1}")
                elif not names or not all(name.strip() for name in names):
                    problems.append(f"{tag}: class {number} has an empty name")
        raise_all(problems, where=f"label set {self.name!r}")

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags, in the order of the file."""
        return tuple(self.names)

    @property
    def counts(self) -> dict[str, int]:
        """How many classes each language names."""
        return {tag: len(named) for tag, named in self.names.items()}

    @property
    def digest(self) -> str:
        """Hex digest of all names, for provenance."""
        return digest([self.num_classes, {tag: sorted(named.items()) for tag, named in self.names.items()}])

    def of(self, language: str) -> list[tuple[str, ...] | None]:
        """The names of all K classes in a language, None where it has none (the form that ``ZeroShotTask`` takes)."""
        named = self.names[self._tag(language)]
        return [named.get(number) for number in range(self.num_classes)]

    def subset(self, classes: Collection[int]) -> LabelSet:
        """The names of some classes under their old numbers; languages without any of them are left out.

        With the 200 classes of ImageNet-R or ImageNet-A, for example.
        """
        kept = set(classes)
        names = {
            tag: {number: names for number, names in named.items() if number in kept}
            for tag, named in self.names.items()
        }
        return replace(self, names={tag: named for tag, named in names.items() if named})

    def report(self, english: Mapping[int, Collection[str]] | None = None) -> list[LanguageReport]:
        """One report a language, most classes first.

        Args:
            english: English names of each class, to count the names that are the same in both.
        """
        known = {number: {name.casefold() for name in names} for number, names in (english or {}).items()}
        made = [_report(tag, named, known) for tag, named in self.names.items()]
        return sorted(made, key=lambda one: (-one.n_classes, one.language))

    def save(self, path: str | Path) -> Path:
        """Writes the JSON file that ``read_label_set`` reads.

        Raises:
            DataError: The license of these names forbids copies.
        """
        if self.private:
            raise DataError(f"label set {self.name!r} may not be copied: {self.notice}")
        content = {
            "name": self.name,
            "num_classes": self.num_classes,
            "notice": self.notice,
            "notes": self.notes,
            "labels": {
                tag: {str(number): list(names) for number, names in sorted(named.items())}
                for tag, named in self.names.items()
            },
        }
        write_atomic(Path(path), json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        return Path(path)

    def _tag(self, language: str) -> str:
        tag = language if language in self.names else language_table.normalize(language)
        if tag not in self.names:
            raise UnknownName(f"language of label set {self.name}", tag, allowed=self.names)
        return tag


def count_ambiguous(names: Iterable[Iterable[str]]) -> int:
    """How many classes share all their names with another one."""
    counts = Counter(frozenset(one) for one in names)
    return sum(count for count in counts.values() if count > 1)


def raise_all(problems: list[str], *, where: str) -> None:
    """One error that lists the first few problems and counts the rest.

    Raises:
        DataError: There is a problem.
    """
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{where}: " + "; ".join(problems[:_SHOWN]) + more)


def _report(tag: str, named: Mapping[int, tuple[str, ...]], english: Mapping[int, set[str]]) -> LanguageReport:
    names = [name for each in named.values() for name in each]
    same = sum(any(name.casefold() in english.get(number, ()) for name in each) for number, each in named.items())
    return LanguageReport(
        language=tag,
        n_classes=len(named),
        n_names=len(names),
        n_ambiguous=count_ambiguous(named.values()),
        n_english=same,
        scripts=dict(Counter(script(name) for name in names).most_common()),
    )


def script(text: str) -> str:
    """The script most letters of a text are written in, by Unicode's name of it (``LATIN``, ``CJK``)."""
    words = [unicodedata.name(sign, "?").split()[0] for sign in text if sign.isalpha()]
    counts = Counter(_JAPANESE.get(word, word) for word in words)
    return counts.most_common(1)[0][0] if counts else "none"
