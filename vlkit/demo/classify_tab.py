"""The tab that sorts an image by labels in any language."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import gradio as gr

from vlkit.demo.cards import bars, called, card, grid, notes
from vlkit.demo.room import Room, ShownModel
from vlkit.demo.visitor_input import Names, TypedLabels, Upload, need_image, read_label_lines, read_templates
from vlkit.demo.widgets import answers, language_field, picture_field, text_field
from vlkit.evaluation.abilities import EMBEDS
from vlkit.evaluation.classify.zero_shot import RankedLabels, ZeroShotClassifier

if TYPE_CHECKING:
    from PIL.Image import Image

Classifiers: TypeAlias = Callable[[ShownModel, TypedLabels, tuple[str, ...]], ZeroShotClassifier]


def classifiers() -> Classifiers:
    """Makes classifiers, and keeps the last ones: labels that did not change are not encoded again."""

    @lru_cache(maxsize=64)
    def made(shown: ShownModel, language: str, names: Names, templates: tuple[str, ...]) -> ZeroShotClassifier:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # labels that look alike are told by the page
            return ZeroShotClassifier(shown.model, names, language=language, templates=templates or None)

    return lambda shown, labels, templates: made(shown, labels.language, labels.names, templates)


def rank(
    room: Room, image: Image, *, classifier: Callable[[], ZeroShotClassifier]
) -> tuple[RankedLabels, tuple[str, ...]]:
    """All labels for an image, best first, and what they are called in the order given; others wait meanwhile."""
    with room.turn:
        made = classifier()
        return made.classify(image)[0], made.labels


def classified(make: Classifiers) -> Callable[..., Iterator[str]]:
    """The steps behind the button."""

    def steps(room: Room, upload: Upload | None, typed: str, language: str | None, frames: str) -> Iterator[str]:
        labels, templates = read_label_lines(typed, language=language), read_templates(frames)
        image = need_image(upload)
        models = room.able(EMBEDS.of)
        shown: list[str] = []
        for one in models:
            ranked, _ = rank(room, image, classifier=partial(make, one, labels, templates))
            shown.append(answer_card(ranked, labels, under=one.name if len(models) > 1 else ""))
            yield grid(shown, below=notes(labels.notes))

    return steps


def answer_card(ranked: RankedLabels, labels: TypedLabels, *, under: str, order: Sequence[str] = ()) -> str:
    """The answers in one language by one model, in an order of their labels or best first."""
    return card(bars(ranked.answers, language=labels.language, order=order), title=called(labels.language), under=under)


def build(room: Room) -> None:
    """Lays out the tab."""
    with gr.Row():
        with gr.Column(min_width=300):
            image = picture_field()
            labels = text_field(
                label="Labels",
                lines=5,
                placeholder="قطة\nكلب\nسيارة",
                info="One a line, in any script; names of one label: cat | kitten",
            )
            language = language_field(label="Language of the labels", value="en")
            with gr.Accordion("Prompt templates", open=False):
                frames = text_field(
                    label="Templates",
                    lines=2,
                    placeholder="a photo of a {}.",
                    info="One a line, {} is the label; without any, those of the language",
                )
            button = gr.Button("Classify", variant="primary")
        with gr.Column(min_width=300):
            shown = gr.HTML(elem_id="vlkit-classify", elem_classes="vlkit-shown")
    given: Sequence[Any] = [image, labels, language, frames]
    button.click(answers(classified(classifiers()), room), given, shown, api_visibility="private")
