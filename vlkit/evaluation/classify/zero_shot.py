"""Zero-shot classification: images against labels in any language the model reads.

N images, K labels, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from vlkit import languages as language_table
from vlkit import prompts
from vlkit.errors import UnknownName, VlkitError
from vlkit.evaluation.classify.label_lists import Labels, read_labels
from vlkit.evaluation.embed.encode import Embedder, embed_images, similarity_scale
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.given_images import ImageLike, call_images, list_images, read_image
from vlkit.evaluation.embed.texts import class_embeddings
from vlkit.evaluation.results.frames import HTML_ROWS, data_frame, how_many
from vlkit.foreign import printable
from vlkit.notebook import FILL, OTHER, Markup, bar, picture, quiet, said, table
from vlkit.terminal import console

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Prediction:
    """One answer: ``score`` is a cosine in -1..1, ``probability`` the softmax over all labels."""

    label: str
    score: float
    probability: float


@dataclass(frozen=True)
class RankedLabels:
    """All answers for one image, best first; ``label``, ``score`` and ``probability`` are those of the best."""

    image: str
    answers: tuple[Prediction, ...]

    @property
    def label(self) -> str:
        """The best answer."""
        return self.answers[0].label

    @property
    def score(self) -> float:
        """Its cosine."""
        return self.answers[0].score

    @property
    def probability(self) -> float:
        """Its share of the softmax over all labels."""
        return self.answers[0].probability

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.answers)

    def __getitem__(self, rank: int) -> Prediction:
        """The answer of a rank, 0 for the best."""
        return self.answers[rank]


@dataclass(frozen=True)
class Predictions:
    """Answers for N images, of K labels in the order given to the classifier.

    Iterating and indexing give ``RankedLabels``, image by image; a slice is ``Predictions`` again.
    """

    labels: tuple[str, ...]
    images: tuple[str, ...]
    """What they are called: their paths, or "image 1" and so on."""
    scores: Tensor
    """Cosines_NK."""
    probabilities: Tensor
    """Softmax_NK of the cosines times the model's scale."""
    given: tuple[ImageLike, ...] = field(default=(), repr=False, compare=False)
    """What was classified, for the pictures in a notebook; () shows none."""

    @classmethod
    def join(cls, parts: Sequence[Predictions]) -> Predictions:
        """The answers of one classifier for several lists of images, as one."""
        return cls(
            labels=parts[0].labels,
            images=tuple(name for part in parts for name in part.images),
            scores=torch.cat([part.scores for part in parts]),
            probabilities=torch.cat([part.probabilities for part in parts]),
            given=tuple(one for part in parts for one in part.given) if all(part.given for part in parts) else (),
        )

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[RankedLabels]:
        for image, answers in zip(self.images, self.top(len(self.labels)), strict=True):
            yield RankedLabels(image, tuple(answers))

    @overload
    def __getitem__(self, which: int | str) -> RankedLabels: ...

    @overload
    def __getitem__(self, which: slice) -> Predictions: ...

    def __getitem__(self, which: int | str | slice) -> RankedLabels | Predictions:
        """One image by its number or name, or several by a slice.

        Raises:
            UnknownName: No image of this name.
            IndexError: No image of this number.
        """
        if isinstance(which, str):
            if which not in self.images:
                raise UnknownName("image", which, allowed=self.images)
            which = self.images.index(which)
        if isinstance(which, slice):
            return Predictions(
                self.labels, self.images[which], self.scores[which], self.probabilities[which], self.given[which]
            )
        start = range(len(self))[which]
        return next(iter(self[start : start + 1]))

    def top(self, k: int = 1) -> list[list[Prediction]]:
        """The best ``k`` answers of each image, best first; all of them where there are fewer than ``k`` labels."""
        if k < 1:
            raise VlkitError(f"k = {k}: must be at least 1")
        # stable: equal scores keep the order of the labels
        best_NK = self.scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
        return [
            [
                Prediction(self.labels[column], self.scores[row, column].item(), self.probabilities[row, column].item())
                for column in columns
            ]
            for row, columns in enumerate(best_NK.tolist())
        ]

    def rows(self, k: int | None = None) -> list[dict[str, Any]]:
        """One flat row an image and answer: ``image``, ``rank`` (from 1), ``label``, ``probability``, ``cosine``."""
        return [
            {"image": image, "rank": rank, "label": one.label, "probability": one.probability, "cosine": one.score}
            for image, answers in zip(self.images, self.top(k or len(self.labels)), strict=True)
            for rank, one in enumerate(answers, 1)
        ]

    def to_pandas(self) -> Any:
        """``rows`` of all answers as a ``pandas.DataFrame``.

        Raises:
            MissingPackage: pandas is not installed.
        """
        return data_frame(self.rows())

    def table(self, k: int = 3) -> Table:
        """A rich table of the best ``k`` answers of each image with bars."""
        from rich.bar import Bar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for column in ("image", "label", "probability", "", "cosine"):
            table.add_column(column, justify="right" if column in ("probability", "cosine") else "left")
        for number, (image, answers) in enumerate(zip(self.images, self.top(k), strict=True)):
            if number:
                table.add_row()
            for rank, answer in enumerate(answers):
                style = "bold" if rank == 0 else ""
                table.add_row(
                    Text(printable(image) if rank == 0 else ""),
                    Text(printable(answer.label), style=style),
                    Text(f"{100 * answer.probability:.1f} %", style=style),
                    Bar(1.0, 0.0, answer.probability, width=20, color="green" if rank == 0 else "cyan"),
                    f"{answer.score:.3f}",
                )
        return table

    def __str__(self) -> str:
        shown = console(width=120, color_system=None, force_terminal=False)
        with shown.capture() as text:
            shown.print(self.table())
        return "\n".join(line.rstrip() for line in text.get().splitlines())

    def _repr_html_(self) -> str:
        """Each image with the best three answers, for notebooks."""
        first = self[:HTML_ROWS]
        shown = [_picture(image, name) for image, name in zip(first.given, first.images, strict=False)]
        rows = [
            [Markup(f"{small}<div>{quiet(one.image)}</div>"), _answers(one)]
            for small, one in zip(shown or [Markup("")] * len(first), first, strict=True)
        ]
        return table(("image", "answers"), rows, below=how_many(len(first), len(self), what="images"))

    def __repr__(self) -> str:
        best = ", ".join(
            f"{image!r}: {answers[0].label!r}" for image, answers in zip(self.images[:3], self.top(1), strict=False)
        )
        more = ", ..." if len(self) > 3 else ""
        return f"Predictions({len(self)} images, {len(self.labels)} labels; {best}{more})"


def _picture(image: ImageLike, name: str) -> Markup:
    """An image that was classified; nothing where it is not there any more."""
    try:
        return picture(read_image(image, name=name))
    except VlkitError:
        return Markup("")


def _answers(one: RankedLabels) -> Markup:
    """The best three, each with a bar and its share."""
    return Markup(
        "".join(
            f'<div style="white-space:nowrap">{bar(answer.probability, color=FILL if rank == 0 else OTHER)} '
            f'<span style="display:inline-block;width:4.2em;text-align:right;opacity:.65;margin-right:.6em">'
            f"{100 * answer.probability:.1f} %</span><bdi>{said(answer.label)}</bdi></div>"
            for rank, answer in enumerate(one.answers[:3])
        )
    )


class ZeroShotClassifier:
    """Tells images apart by the names of what they show.

    The embedding of a label is the mean over all its names in all templates (CLIP, arXiv 2103.00020, section 3.1.4).

    Args:
        model: Any image-text model, or a pair of functions (``TwoCallables``).
        labels: What to choose from: strings, tuples of several names for one thing (the first is shown), or a mapping
            from what is shown to its names. Tuples may share names, as classes of a label set do; a warning says so.
        language: Of the labels; BCP 47 or any other code that ``vlkit list languages`` shows.
        templates: Texts with one ``{}`` where the name goes; None takes those written for the language, and the bare
            name for a language without.
        batch_size: Texts and images a forward pass.

    Raises:
        UnknownName: No such language.
        VlkitError: No label, or one that is blank, a string that occurs twice, or a template without a slot.
    """

    def __init__(
        self,
        model: Embedder,
        labels: Labels,
        *,
        language: str = "en",
        templates: str | Sequence[str] | None = None,
        batch_size: int = 64,
    ) -> None:
        self.model, self.batch_size = model, batch_size
        self.language = language_table.normalize(language)
        self.names = read_labels(labels, repeated=True)
        self.templates = _templates(templates, self.language)
        self.class_KE = class_embeddings(
            model,
            list(self.names.values()),
            language=self.language,
            templates=self.templates,
            encoding=Encoding(text_batch_size=batch_size),
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """What answers are called, in the order given."""
        return tuple(self.names)

    def classify(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        batch_size: int | None = None,
        names: Sequence[str] | None = None,
    ) -> Predictions:
        """Scores every image against every label.

        Args:
            images: One image or several: paths, PIL images, arrays (height, width, channels) or tensors (channels,
                height, width), uint8 or float in 0..1. Images are read one batch at a time.
            batch_size: Images a forward pass; None takes the classifier's.
            names: What to call the images; None takes their paths, or "image 1" and so on.

        Raises:
            DataError: An image that cannot be read.
            VlkitError: No image, or an embedding that is not finite.
        """
        listed = list_images(images, to="classify")
        called = call_images(listed) if names is None else tuple(names)
        if len(called) != len(listed):
            raise VlkitError(f"{len(listed)} images but {len(called)} names")
        image_NE = embed_images(
            self.model,
            (read_image(image, name=name) for image, name in zip(listed, called, strict=True)),
            # errors put "image" before the name
            names=[name.removeprefix("image ") for name in called],
            encoding=Encoding(batch_size=self.batch_size if batch_size is None else batch_size),
        )
        score_NK = image_NE @ self.class_KE.T
        return Predictions(
            labels=self.labels,
            images=called,
            scores=score_NK,
            probabilities=(similarity_scale(self.model) * score_NK).softmax(1),
            given=tuple(listed),
        )

    def __repr__(self) -> str:
        return (
            f"ZeroShotClassifier({len(self.names)} labels, language={self.language!r}, {len(self.templates)} templates)"
        )


def _templates(templates: str | Sequence[str] | None, language: str) -> tuple[str, ...]:
    if templates is None:
        return prompts.templates(language)
    chosen = (templates,) if isinstance(templates, str) else tuple(templates)
    if not chosen:
        raise VlkitError(
            "templates is empty; give at least one such as 'a photo of a {}.', or None for those of the language"
        )
    for template in chosen:
        prompts.check_template(template)
    return chosen
