"""The tab that searches a folder of images with words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from vlkit.demo.cards import notes
from vlkit.demo.photos import Photos
from vlkit.demo.room import Room
from vlkit.demo.visitor_input import need_language, need_text
from vlkit.demo.widgets import answers, language_field, text_field
from vlkit.errors import some
from vlkit.evaluation.abilities import EMBEDS

_MOST, _FIRST = 48, 12  # images that are shown, and that are shown at first


def found_in(photos: Photos) -> Callable[..., Iterator[Any]]:
    """The steps behind the button: what was left out, and the images that each model finds."""

    def steps(room: Room, typed: str | None, language: str | None, most: float) -> Iterator[Any]:
        text, tag = need_text(typed, what="words to search with"), need_language(language)
        galleries = []
        for one in room.able(EMBEDS.of):
            with room.turn:
                found = photos.search(one, text, language=tag, most=int(most))
            galleries.append([(image.image, f"{image.score:.3f}  {image.name}") for image in found])
        yield notes([told(photos)]), *galleries

    return steps


def told(photos: Photos) -> str:
    """How many images are searched, and which ones are not."""
    count = f"{len(photos.samples):,} image{'' if len(photos.samples) == 1 else 's'}"
    return count + (f"; cannot be read: {some(photos.unread, most=3)}" if photos.unread else "")


def build(room: Room) -> None:
    """Lays out the tab."""
    photos = room.photos
    if photos is None:
        return
    models = room.able(EMBEDS.of)
    with gr.Row():
        with gr.Column(min_width=300, scale=3):
            text = text_field(label="Search for", placeholder="قارچ", info="In any language")
        with gr.Column(min_width=220, scale=2):
            language = language_field(label="Language", value="en")
        with gr.Column(min_width=160, scale=1):
            most = gr.Slider(1, _MOST, value=_FIRST, step=1, label="Images")
    button = gr.Button("Search", variant="primary")
    shown = gr.HTML(notes([told(photos)]), elem_id="vlkit-search", elem_classes="vlkit-shown")
    galleries = [
        gr.Gallery(
            label=one.name, show_label=len(models) > 1, columns=4, height="auto", object_fit="contain", buttons=[],
            interactive=False, elem_classes="vlkit-found",
        )
        for one in models
    ]  # fmt: skip
    handler = answers(found_in(photos), room, others=[[] for _ in models])
    for click in (button.click, text.submit):
        click(handler, [text, language, most], [shown, *galleries], api_visibility="private")
