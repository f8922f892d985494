"""The tab of models that make images: prompts in any language, a row each, and the same seeds in every row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from vlkit.demo.cards import notes
from vlkit.demo.room import Room
from vlkit.demo.visitor_input import need_language, need_prompts
from vlkit.demo.widgets import answers, language_field, text_field
from vlkit.evaluation.abilities import PAINTS

_MOST, _FIRST = 8, 4  # images of a prompt, and how many at first
_LAST_SEED = 2**31 - 1


def images(room: Room, typed: str | None, language: str | None, count: float, seed: float | None) -> Iterator[Any]:
    """What was made, and the images of each model, prompt by prompt."""
    prompts, tag = need_prompts(typed), need_language(language) if language else None
    number, first = max(1, int(count)), min(max(0, int(seed or 0)), _LAST_SEED)
    galleries = []
    for one in room.able(PAINTS.of):
        with room.turn:
            made = one.model.generate(prompts, language=tag, seed=first, num_images=number)
        named = [(prompt, first + place) for prompt in prompts for place in range(number)]
        galleries.append([(image, f"{prompt}  {at}") for image, (prompt, at) in zip(made, named, strict=True)])
    yield notes([f"seeds {first} to {first + number - 1}: each is the same noise for every prompt"]), *galleries


def build(room: Room) -> None:
    """Lays out the tab."""
    models = room.able(PAINTS.of)
    with gr.Row():
        with gr.Column(min_width=300, scale=3):
            text = text_field(label="Prompts", lines=3, placeholder="قارچ", info="A line each, in any language")
        with gr.Column(min_width=220, scale=2):
            language = language_field(label="Language", value="", info="For models that are told it")
            with gr.Row():
                count = gr.Slider(1, _MOST, value=_FIRST, step=1, label="Images of each")
                seed = gr.Number(0, label="First seed", precision=0, minimum=0, maximum=_LAST_SEED)
    button = gr.Button("Generate", variant="primary")
    shown = gr.HTML(elem_id="vlkit-generate", elem_classes="vlkit-shown")
    galleries = [
        gr.Gallery(
            label=one.name, show_label=len(models) > 1, columns=_FIRST, height="auto", object_fit="contain",
            buttons=["download"], interactive=False, elem_classes="vlkit-found",
        )
        for one in models
    ]  # fmt: skip
    handler = answers(images, room, others=[[] for _ in models])
    button.click(handler, [text, language, count, seed], [shown, *galleries], api_visibility="private")
