"""Things that are in images, and such as are not: what POPE (arXiv 2305.10355, section 4) asks for."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vlkit.errors import DataError
from vlkit.evaluation.metrics.fidelity import NearestNames
from vlkit.evaluation.metrics.text_match import normalized, tokens
from vlkit.evaluation.tasks.questions import concepts
from vlkit.spec.evaluation import Negatives
from vlkit.types import Sample

EVERY: tuple[Negatives, ...] = ("random", "popular", "adversarial")


@dataclass(frozen=True)
class Things:
    """All things in the images of a set, by number.

    Attributes:
        present: Those in each image.
        names: Language (BCP 47) to number to the first name.
        texts: Language to number to all names.
    """

    present: tuple[tuple[int, ...], ...]
    names: Mapping[str, Mapping[int, str]]
    texts: Mapping[str, Mapping[int, frozenset[str]]]

    @classmethod
    def of(cls, samples: Sequence[Sample], *, several: bool) -> Things:
        """The things that captions name: each image shows its concept, or with ``several`` all that it has texts for.

        Raises:
            DataError: With ``several``, an image has unlike numbers of texts in two languages.
        """
        names: dict[str, dict[int, str]] = {}
        texts: dict[str, dict[int, set[str]]] = {}
        present = _listed(samples) if several else [(one,) for one in concepts(samples)]
        for sample, shown in zip(samples, present, strict=True):
            for tag, said in sample.captions.items():
                pairs = zip(shown, said, strict=True) if several else ((shown[0], text) for text in said)
                for thing, text in pairs:
                    names.setdefault(tag, {}).setdefault(thing, text)
                    texts.setdefault(tag, {}).setdefault(thing, set()).add(text)
        frozen = {tag: {thing: frozenset(all_of) for thing, all_of in found.items()} for tag, found in texts.items()}
        return cls(tuple(tuple(dict.fromkeys(shown)) for shown in present), names, frozen)

    @cached_property
    def images(self) -> Counter[int]:
        """In how many images each is."""
        return Counter(thing for shown in self.present for thing in shown)

    @cached_property
    def together(self) -> Mapping[int, Counter[int]]:
        """In how many images each is with each other one."""
        found: dict[int, Counter[int]] = {thing: Counter() for thing in self.images}
        for shown in self.present:
            for thing in shown:
                found[thing].update(other for other in shown if other != thing)
        return found

    @property
    def kinds(self) -> tuple[Negatives, ...]:
        """What can be chosen by; where all things are in equally many images, none is popular."""
        level = len(set(self.images.values())) < 2
        return tuple(kind for kind in EVERY if not (level and kind == "popular"))

    def order(self, row: int, kind: Negatives, *, seed: str) -> list[int]:
        """All that is not in an image, in the order in which it is asked for; equals are in random order."""
        left = sorted(set(self.images) - {*self.present[row]})
        random.Random(f"{seed} {kind}").shuffle(left)
        if kind == "popular":
            left.sort(key=lambda thing: -self.images[thing])
        elif kind == "adversarial":
            near = self._near(row)
            left.sort(key=lambda thing: -near[thing])
        return left

    def differ(self, row: int, thing: int, *, language: str) -> bool:
        """Whether a thing has names in a language that are not those of something in the image.

        Names all words of which stand in the other are taken for names of one thing, as "dog face" is of a dog.
        """
        known = self.texts[language]
        return all(
            not _one_in_other(one, other, language=language)
            for shown in self.present[row]
            for one in known.get(shown, ())
            for other in known[thing]
        )

    def _near(self, row: int) -> Mapping[int, float]:
        """How likely a thing is to be taken for one in the image."""
        if any(len(shown) > 1 for shown in self.present):
            met: Counter[int] = Counter()
            for thing in self.present[row]:
                met.update(self.together[thing])
            return met
        alike_M = self._alike.get(self.present[row][0])
        scores = [] if alike_M is None else zip(self._named, alike_M.tolist(), strict=True)
        return defaultdict(float, scores)

    @cached_property
    def _compared(self) -> str:
        """The language whose names are compared: English, or else the one with the most."""
        return max(self.names, key=lambda tag: (tag == "en", len(self.names[tag])))

    @cached_property
    def _named(self) -> list[int]:
        return sorted(self.names[self._compared])

    @cached_property
    def _alike(self) -> Mapping[int, npt.NDArray[np.float64]]:
        """By number of a thing the chrF of its name with that of each that has one."""
        names = self.names[self._compared]
        best = NearestNames({str(thing): [names[thing]] for thing in self._named}).best(
            [names[thing] for thing in self._named]
        )
        table = np.stack([best[str(thing)] for thing in self._named], axis=1)
        return dict(zip(self._named, table, strict=True))


def _listed(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """What each image has texts for; a thing is known by its text in the language that most images have texts in."""
    counts = Counter(tag for sample in samples for tag, texts in sample.captions.items() if texts)
    main = max(counts, key=lambda tag: counts[tag], default="")
    numbers: dict[str, int] = {}
    found = []
    for sample in samples:
        sizes = {tag: len(texts) for tag, texts in sample.captions.items() if texts}
        if len(set(sizes.values())) > 1 or main not in sizes:
            told = ", ".join(f"{size} in {tag}" for tag, size in sizes.items())
            raise DataError(
                f"sample {sample.key!r} has texts of {told}; with several: true, each image needs as many in each of "
                f"its languages, in the same order, and some in {main}, which most images have"
            )
        found.append(tuple(numbers.setdefault(normalized(text), len(numbers)) for text in sample.captions[main]))
    return found


def _one_in_other(one: str, other: str, *, language: str) -> bool:
    words, others = (Counter(tokens(text, language=language)) for text in (one, other))
    return words <= others or others <= words


def first_that_differ(
    things: Things, row: int, ordered: Iterable[int], *, language: str, count: int
) -> tuple[int, ...]:
    """So many things of an order that have a name in a language, and one of their own."""
    chosen: list[int] = []
    taken: set[str] = set()
    for thing in ordered:
        if len(chosen) == count:
            break
        name = things.names[language].get(thing)
        if name is not None and normalized(name) not in taken and things.differ(row, thing, language=language):
            taken.add(normalized(name))
            chosen.append(thing)
    return tuple(chosen)
