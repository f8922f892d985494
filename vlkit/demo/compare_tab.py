"""The tab that asks in several languages what an image shows, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import gradio as gr

from vlkit import languages
from vlkit.demo.cards import grid, notes
from vlkit.demo.classify_tab import Classifiers, answer_card, classifiers, rank
from vlkit.demo.room import Room, ShownModel
from vlkit.demo.visitor_input import TypedLabels, Upload, need_image, read_language_lines
from vlkit.demo.widgets import answers, picture_field, text_field
from vlkit.evaluation.abilities import EMBEDS

EXAMPLE = """en: cat, dog, car, mushroom
de: Katze, Hund, Auto, Pilz
sw: paka, mbwa, gari, uyoga
ar: قطة، كلب، سيارة، فطر
hi: बिल्ली, कुत्ता, कार, कुकुरमुत्ता
zh: 猫，狗，汽车，蘑菇"""


def compared(make: Classifiers) -> Callable[..., Iterator[str]]:
    """The steps behind the button: a card appears as soon as its language is done."""

    def steps(room: Room, upload: Upload | None, typed: str) -> Iterator[str]:
        sets = read_language_lines(typed)
        image = need_image(upload)
        models = room.able(EMBEDS.of)
        warned = notes([note for labels in sets for note in labels.notes])
        below = ""
        shown: list[str] = []
        for one in models:
            best: list[int] = []
            for labels in sets:
                ranked, order = rank(room, image, classifier=partial(make, one, labels, ()))
                best.append(order.index(ranked.label))  # the same thing in all languages
                shown.append(answer_card(ranked, labels, under=one.name if len(models) > 1 else "", order=order))
                yield grid(shown, below=below + warned)
            below += notes([agreement(best, sets, model=one if len(models) > 1 else None)])
        yield grid(shown, below=below + warned)

    return steps


def agreement(best: Sequence[int], sets: Sequence[TypedLabels], *, model: ShownModel | None = None) -> str:
    """How many languages give the same answer, and which ones do not."""
    common = max(dict.fromkeys(best), key=list(best).count)
    others = [languages.get(one.language).name for place, one in zip(best, sets, strict=True) if place != common]
    word = sets[0].names[common][0]
    said = f"{len(sets) - len(others)} of {len(sets)} languages say \u201c{word}\u201d"
    return (f"{model.name}: " if model else "") + said + (f"; {', '.join(others)} do not" if others else "")


def build(room: Room) -> None:
    """Lays out the tab."""
    with gr.Row():
        with gr.Column(min_width=300, scale=2):
            image = picture_field()
            typed = text_field(
                label="The same labels in several languages",
                value=EXAMPLE,
                lines=8,
                info="A language a line, the same things in the same order",
            )
            button = gr.Button("Compare", variant="primary")
        with gr.Column(min_width=300, scale=3):
            shown = gr.HTML(elem_id="vlkit-compare", elem_classes="vlkit-shown")
    button.click(answers(compared(classifiers()), room), [image, typed], shown, api_visibility="private")
