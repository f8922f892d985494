"""Controls of tasks that ask about images: the same questions without an image, about a grey one, and about another.

A model that looks at images answers worse in all of them; one that does not gets the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from PIL import Image
from torch import Tensor

from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.results.measures import Measure
from vlkit.evaluation.tasks.asking import Asked, KeptAnswers, Said, ask_without_image
from vlkit.evaluation.tasks.questions import others
from vlkit.files import digest
from vlkit.spec.evaluation import Control
from vlkit.types import AnswersQuestions

CONTROLS: Mapping[Control, tuple[str, str]] = {
    "no_image": ("without the image", "gained by the image"),
    "blank_image": ("with a grey picture", "gained over a grey picture"),
    "other_image": ("with another image", "gained over another image"),
}
"""Each with what readers call its figures, and how much better the answers are."""
_SIDE, _GREY = 224, (128, 128, 128)


def blank_picture() -> Image.Image:
    """A plain grey picture."""
    return Image.new("RGB", (_SIDE, _SIDE), _GREY)


def ask_unseen(
    model: AnswersQuestions,
    asked: Mapping[str, object],
    ask: Callable[[Sequence[str], tuple[Tensor, ...]], Sequence[Said]],
    *,
    controls: Sequence[Control],
    kept: KeptAnswers,
    encoding: Encoding,
) -> dict[Control, dict[str, Said]]:
    """What the model says without the image and about a grey picture, by control and language; asked once a language.

    Args:
        model: What ``ask`` asks.
        asked: By BCP 47 tag all that decides what is asked.
        ask: Takes tags and the images of each question, none or the grey one; gives what was said in each language.
        controls: Which are wanted; ``other_image`` is not for here.
        kept: The model's answers.
        encoding: Processes.
    """
    found: dict[Control, dict[str, Said]] = {}
    for control in controls:
        if control == "other_image":
            continue

        def said(tags: Sequence[str], grey: bool = control == "blank_image") -> Sequence[Said]:
            encoding.counts.images += grey
            return ask(tags, (model.image_features([blank_picture()])[0],) if grey else ())

        what: list[object] = ["blank image", _SIDE, _GREY] if control == "blank_image" else ["no image"]
        keys = {tag: digest([what, one]) for tag, one in asked.items()}
        found[control] = ask_without_image(model, keys, said, kept=kept, encoding=encoding)
    return found


def swapped(rows: Sequence[int], concepts: Sequence[int], *, seed: int) -> dict[int, int]:
    """For each of some images another one of them, of another concept, each taken once; {} where one has over half."""
    other_N = others([concepts[row] for row in rows], seed=seed)
    return {} if other_N is None else {row: rows[other] for row, other in zip(rows, other_N.tolist(), strict=True)}


def about_others(asked: Asked, other: Mapping[int, int]) -> Asked:
    """The same questions, each about the image that ``swapped`` gave for its own; answers are by the row of that."""
    own = {shown: row for row, shown in other.items()}

    def ask(rows: Sequence[int], tokens: Sequence[Tensor]) -> Sequence[Said]:
        return asked.ask([own[row] for row in rows], tokens)

    return Asked({shown: asked.keys[row] for row, shown in other.items()}, ask)


def control_measures(
    titles: Mapping[str, str], *, lead: str, shown: Sequence[str] = (), brief: str = "gain"
) -> dict[str, Measure]:
    """Figures of all controls: ``X_no_image`` and ``X_over_no_image``, with an interval, for each X; likewise others.

    Args:
        titles: X and what readers call it.
        lead: The X that tables for readers show the controls of.
        shown: Further differences that they show.
        brief: What the table in the terminal calls the difference of ``lead`` to no image.
    """
    found: dict[str, Measure] = {}
    for control, (said, gained) in CONTROLS.items():
        for name, title in titles.items():
            gap = f"{name}_over_{control}"
            found[f"{name}_{control}"] = Measure(f"{title} {said}" if name == lead else "")
            found[gap] = Measure(
                f"{title} {gained}" if name == lead or gap in shown else "",
                brief if gap == f"{lead}_over_no_image" else "",
                low=f"{gap}_ci_low",
                high=f"{gap}_ci_high",
            )
    return found
