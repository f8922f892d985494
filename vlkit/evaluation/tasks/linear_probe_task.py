"""A linear classifier on a model's embeddings, learned from few labelled images or from all, with zero-shot beside.

N images to learn from, M images to tell apart, K classes, D draws, E embedding width.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlkit import prompts
from vlkit.data.sources.classes.collection import ClassImages
from vlkit.data.sources.classes.open_classes import open_images
from vlkit.distributed.collectives import shared_errors
from vlkit.errors import DataError, some
from vlkit.evaluation.abilities import EMBEDS, Ability
from vlkit.evaluation.embed.encode import Embedder, device_of
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.image_contents import image_contents
from vlkit.evaluation.embed.image_features import image_features
from vlkit.evaluation.embed.texts import BARE, check_languages, class_embeddings
from vlkit.evaluation.metrics.intervals import Interval, bootstrap_interval, chance, percentiles, resampled_sums
from vlkit.evaluation.metrics.logistic import choose_inverse, fit_logistic
from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.results.results_file import Value
from vlkit.evaluation.tasks.task import Fact, PlainTask, Scored, choose_languages
from vlkit.files import digest
from vlkit.progress import Bar, bar
from vlkit.spec.probing import LinearProbeSpec
from vlkit.types import Sample

_log = logging.getLogger(__name__)
_MOST_HELD = 4  # images of a class that choose the regularisation where few are learned from
_HELD_SHARE = 5  # one in so many where all are
_EXPLAINED = (
    "Top-1 accuracy on images that nothing was learned from. Zero-shot: by the names of the classes in the language. "
    "Shots: logistic regression on the image embeddings of so many labelled images a class, mean over draws; its "
    "regularisation is chosen on further labelled images (as many, at most 4 a class). 95 % intervals resample "
    "classes, the images inside each, and draws. Names are worth: so many labelled images a class give what zero-shot "
    "gives."
)


class LabelledSamples(NamedTuple):
    """Images with their classes, by number."""

    samples: tuple[Sample, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class LinearProbeTask(PlainTask):
    """Images (``test``) to be told apart after labelled ones (``train``) of the same K classes.

    Attributes:
        names: By BCP 47 tag, for each class its names, or None where the language has none.
        shots: Numbers of labelled images of each class to learn from, rising.
        full: Whether to learn from all of them, too.
        draws: How often few images are drawn.
        framed: Whether names are put into vlkit's frames of the language.
        tokenizer_languages: See ``ZeroShotTask``.
    """

    needs: ClassVar[Ability] = EMBEDS  # type: ignore[misc]

    name: str
    train: LabelledSamples
    test: LabelledSamples
    names: Mapping[str, Sequence[tuple[str, ...] | None]]
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    full: bool = True
    draws: int = 3
    framed: bool = True
    tokenizer_languages: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        counts = np.bincount(self.train.targets, minlength=self.num_classes)
        fewest, needed = int(counts.min()), max(2 if self.full else 0, *map(_needed, self.shots), 0)
        if self.num_classes < 2:
            raise DataError(f"task {self.name!r} has {self.num_classes} classes; a classifier needs two")
        if fewest < needed:
            few = [number for number in range(self.num_classes) if counts[number] < needed]
            fits = [shots for shots in self.shots if _needed(shots) <= fewest]
            raise DataError(
                f"task {self.name!r}: {len(few)} classes have fewer than {needed} images to learn from (class "
                f"{some((f'{number}: {counts[number]}' for number in few), most=3)}), which {self._asks(needed)} "
                f"needs; set shots: {fits}" + ("" if fewest > 1 or not self.full else " and full: false")
            )

    def _asks(self, needed: int) -> str:
        return f"shots: {self.shots[-1]} with those that choose the regularisation" if needed > 2 else "full: true"

    @property
    def num_classes(self) -> int:
        """K."""
        return 1 + max((*self.train.targets, *self.test.targets))

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All images: what is learned from, then what is told apart."""
        return (*self.train.samples, *self.test.samples)

    @cached_property
    def _columns(self) -> dict[str, str]:
        """Columns of what is learned, with their titles."""
        few = {f"shots_{count}": "1 shot" if count == 1 else f"{count} shots" for count in self.shots}
        return {**few, **({"all_images": "all images"} if self.full else {})}

    @property
    def measures(self) -> Measures:
        """Zero-shot, and each number of images learned from; the last one leads."""
        titles = {"zero_shot": "zero-shot", **self._columns}
        most = f"shots_{self.shots[-1]}" if self.shots else ""  # a terminal has no room for all
        brief = {"zero_shot", most, "all_images"}
        shares = {
            name: Measure(title, title if name in brief else "", low=f"{name}_low", high=f"{name}_high")
            for name, title in titles.items()
        }
        worth = Measure("names are worth, in images a class", share=False)
        return Measures(
            kind="linear_probe",
            headline=list(titles)[-1],
            metrics={**shares, "worth": worth, "chance": Measure()},
            bars=tuple(titles),
            chance="chance",
            alike={"num_classes": "classes", "n_images": "images"},
            table="probe",
            explained=_EXPLAINED,
        )

    @property
    def digest(self) -> str:
        """Hex digest of the images' keys and classes, names and settings, for provenance."""
        keys = [([one.key for one in side.samples], list(side.targets)) for side in (self.train, self.test)]
        told = sorted((self.tokenizer_languages or {}).items())
        return digest([self.name, keys, self.names, self.shots, self.full, self.draws, self.framed, told])

    @property
    def facts(self) -> dict[str, Fact]:  # type: ignore[override]
        """What stands for a class, and digests of the names by language."""
        return {
            "prompts": "templates" if self.framed else "label",
            "label_sets": {tag: digest(names) for tag, names in self.names.items()},
        }

    @property
    def left_out(self) -> dict[str, str]:  # type: ignore[override]
        """Languages that do not name all classes: zero-shot would tell fewer apart than what is learned."""
        counts = {tag: sum(1 for one in names if one) for tag, names in self.names.items()}
        few = [tag for tag in counts if counts[tag] < self.num_classes]
        return {tag: f"{counts[tag]} of {self.num_classes} classes have names" for tag in few}

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """See ``Task.choose``; a language needs names of all classes."""
        return choose_languages(languages, self.names, of=f"task {self.name}", left_out=self.left_out)

    def score(
        self, model: Embedder, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Iterator[Scored]:
        """One row a language, of which what is learned is the same in all; hits_DM by column are the detail."""
        encoding = Encoding() if encoding is None else encoding
        told = self.tokenizer_languages or {}
        with shared_errors(encoding.ranks):
            check_languages(model, languages, spoken=told)
        with image_features(model, self.samples, encoding=encoding) as features:
            image_NE = features[torch.arange(len(self.train.samples))]
            image_ME = features[torch.arange(len(image_NE), len(features))]
        hits = self._learned(image_NE, image_ME, seed=seed, encoding=encoding, model=model)
        learned = {name: _accuracy(hits_DM, self.test.targets, seed=seed) for name, hits_DM in hits.items()}
        shared = self._shared(encoding)
        for tag in languages:
            templates = prompts.templates(tag) if self.framed else BARE
            names = [one for one in self.names[tag] if one]
            class_KE = class_embeddings(
                model, names, language=told.get(tag, tag), templates=templates, encoding=encoding
            )
            right_M = (image_ME @ class_KE.T).argmax(1) == torch.tensor(self.test.targets)
            zero = _accuracy(right_M.numpy()[None], self.test.targets, seed=seed)
            values: dict[str, Value] = {
                "prompt": "templates" if self.framed else "label",
                "num_classes": self.num_classes,
                "n_images": len(self.test.samples),
                "n_train": len(self.train.samples),
                "n_shared": shared,
                "draws": self.draws,
                "chance": chance(self.num_classes),
            }
            for name, (value, interval) in {"zero_shot": zero, **learned}.items():
                values |= {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}
            values["worth"] = shots_worth({count: learned[f"shots_{count}"][0] for count in self.shots}, zero[0])
            yield Scored(tag, values, detail={"zero_shot": right_M.numpy()[None], **hits})

    def _shared(self, encoding: Encoding) -> int:
        """How many images to tell apart are copies of some that are learned from; told, as figures are then high."""
        contents_N = image_contents(self.samples, encoding=encoding)
        split = len(self.train.samples)
        shared = int(np.isin(contents_N[split:], contents_N[:split]).sum())
        if shared:
            _log.warning(
                "task %s: %d of %d images are copies of some that are learned from; take them out of one side",
                self.name, shared, len(self.test.samples),
            )  # fmt: skip
        return shared

    def _learned(
        self, image_NE: Tensor, image_ME: Tensor, *, seed: int, encoding: Encoding, model: Embedder
    ) -> dict[str, npt.NDArray[np.bool_]]:
        """By column hits_DM of the classifiers; the first process learns, the others are told."""
        hits: dict[str, npt.NDArray[np.bool_]] = {}
        ranks = encoding.ranks
        with shared_errors(ranks):
            if not encoding.follows:
                device = device_of(model)
                device = device if device.type == "cuda" else torch.device("cpu")  # float64 is needed
                sides = image_NE.to(device), image_ME.to(device)
                total = len(self.shots) * self.draws + int(self.full)
                with bar(f"classifiers of {self.name}", total=total, unit="fits", quiet=encoding.quiet) as shown:
                    hits = self._hits(*sides, seed=seed, shown=shown)
        found: dict[str, npt.NDArray[np.bool_]] = ranks.gather_objects(hits)[0]
        return found

    def _hits(self, image_NE: Tensor, image_ME: Tensor, *, seed: int, shown: Bar) -> dict[str, npt.NDArray[np.bool_]]:
        target_N, target_M = torch.tensor(self.train.targets), torch.tensor(self.test.targets)
        found: dict[str, npt.NDArray[np.bool_]] = {}

        def learn(learned: list[int], held: list[int], final: list[int]) -> npt.NDArray[np.bool_]:
            classes = self.num_classes
            inverse = choose_inverse(
                image_NE[learned], target_N[learned], image_NE[held], target_N[held], num_classes=classes
            )
            made = fit_logistic(image_NE[final], target_N[final], num_classes=classes, inverse=inverse)
            shown.advance()
            right: npt.NDArray[np.bool_] = (made.logits(image_ME).argmax(1).cpu() == target_M).numpy()
            return right

        orders = [shuffled(self.train.targets, seed=seed + draw) for draw in range(self.draws)]
        for count in self.shots:
            rows = [
                (
                    [row for one in order for row in one[:count]],
                    [row for one in order for row in one[count : _needed(count)]],
                )
                for order in orders
            ]
            found[f"shots_{count}"] = np.stack([learn(learned, held, learned) for learned, held in rows])
        if self.full:
            cut = [max(1, len(one) // _HELD_SHARE) for one in orders[0]]
            held = [row for one, size in zip(orders[0], cut, strict=True) for row in one[:size]]
            learned = [row for one, size in zip(orders[0], cut, strict=True) for row in one[size:]]
            found["all_images"] = learn(learned, held, [*learned, *held])[None]
        return found


def shuffled(targets: Sequence[int], *, seed: int) -> list[list[int]]:
    """Rows of each class in an order of their own; the first of it are the few that are learned from."""
    rng, target_N = np.random.default_rng(seed), np.asarray(targets)
    return [rng.permutation(np.flatnonzero(target_N == number)).tolist() for number in range(int(target_N.max()) + 1)]


def shots_worth(accuracies: Mapping[int, float], zero_shot: float) -> float:
    """Labelled images a class that give the accuracy of zero-shot, between two numbers of shots by their logarithm.

    NaN where it is below what the fewest give, or above what the most do (CLIP, arXiv 2103.00020, figure 7).
    """
    counts = sorted(accuracies)
    for low, high in pairwise(counts):
        below, above = accuracies[low], accuracies[high]
        if below <= zero_shot <= above:
            share = (zero_shot - below) / (above - below) if above > below else 0.0
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    return math.nan


def _needed(shots: int) -> int:
    """Images of a class that so many shots take, with those that choose the regularisation."""
    return shots + min(shots, _MOST_HELD)


def _accuracy(hits_DM: npt.NDArray[np.bool_], targets: Sequence[int], *, seed: int) -> tuple[float, Interval]:
    """The mean over draws, and its 95 % interval over classes, images inside each, and draws."""
    draws = len(hits_DM)
    if draws == 1:
        return float(hits_DM.mean()), bootstrap_interval(hits_DM[0], targets, seed=seed)
    columns = np.concatenate([hits_DM, np.ones_like(hits_DM[:1])]).T
    sums = resampled_sums(columns.astype(np.float64), targets, seed=seed)
    share_RD = sums[:, :draws] / sums[:, draws:]
    drawn_RD = np.random.default_rng(seed).integers(0, draws, share_RD.shape)
    return float(hits_DM.mean()), percentiles(np.take_along_axis(share_RD, drawn_RD, axis=1).mean(axis=1))


def open_linear_probe(task: LinearProbeSpec, languages: Iterable[str] | None) -> list[LinearProbeTask]:
    """Finds the images of a task of a suite and the names of their classes; reads no image.

    Raises:
        DataError: Files that are missing or wrong, other classes to learn from than to tell apart, or too few images.
    """
    images, labels = open_images(task.images, task.labels)
    if task.train is None:
        train, test = _split(images, share=task.test_share)
    else:
        teaching, _ = open_images(task.train, task.labels)
        _check_classes(task.name, teaching, images)
        train, test = (LabelledSamples(tuple(one.samples), tuple(one.targets)) for one in (teaching, images))
    present = {number: place for place, number in enumerate(sorted(set(test.targets)))}
    train, test = (
        LabelledSamples(one.samples, tuple(present[number] for number in one.targets)) for one in (train, test)
    )
    names = {tag: [labels.of(tag)[number] for number in present] for tag in labels.languages}
    return [
        LinearProbeTask(
            task.name,
            train,
            test,
            names,
            shots=task.shots,
            full=task.full,
            draws=task.draws,
            framed=task.templates == "packaged",
            tokenizer_languages=task.told,
        )
    ]


def _split(images: ClassImages, *, share: float) -> tuple[LabelledSamples, LabelledSamples]:
    """What is learned from and what is told apart: of each class a share, by a stable hash of the images' keys."""
    sides: tuple[list[int], list[int]] = ([], [])
    for number in images.present:
        rows = [row for row, target in enumerate(images.targets) if target == number]
        rows.sort(key=lambda row: hashlib.sha256(images.samples[row].key.encode()).digest())
        tested = max(1, round(share * len(rows)))
        sides[1].extend(sorted(rows[:tested]))
        sides[0].extend(sorted(rows[tested:]))
    train, test = (
        LabelledSamples(tuple(images.samples[row] for row in rows), tuple(images.targets[row] for row in rows))
        for rows in sides
    )
    return train, test


def _check_classes(name: str, train: ClassImages, test: ClassImages) -> None:
    """Whether classes are the same, in the same order.

    Raises:
        DataError: They are not.
    """
    called = [
        {one.class_names[number] if one.class_names else str(number) for number in one.present} for one in (train, test)
    ]
    if called[0] != called[1] or train.num_classes != test.num_classes:
        only = (
            [f"{some(sorted(called[0] - called[1]), most=3)} in {train.where} alone"] if called[0] - called[1] else []
        )
        only += (
            [f"{some(sorted(called[1] - called[0]), most=3)} in {test.where} alone"] if called[1] - called[0] else []
        )
        raise DataError(f"task {name!r} has other classes to learn from than to tell apart: {'; '.join(only)}")
