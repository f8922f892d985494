"""The tabs of models that write: what an image shows, and answers to questions about it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from vlkit.demo.cards import called, card, grid, spoken
from vlkit.demo.room import Room
from vlkit.demo.visitor_input import Upload, need_image, need_language, need_languages, need_text
from vlkit.demo.widgets import answers, language_field, picture_field, text_field
from vlkit.demo.writing import growing
from vlkit.types import AnsweringModel


def writes(model: object) -> bool:
    """Whether a model describes images and answers questions."""
    return isinstance(model, AnsweringModel)


def captions(room: Room, upload: Upload | None, typed: list[str] | None, most: float | None) -> Iterator[str]:
    """A card a language: the image goes through the encoder once."""
    tags = need_languages(typed)
    image = need_image(upload)
    models = room.able(writes)
    shown: list[str] = []
    for one in models:
        with room.turn:
            tokens = one.model.image_features([image])
        for tag in tags:
            with room.turn:
                (text,) = one.model.caption(tokens, language=tag, **_length(most))
            shown.append(card(spoken(text, language=tag), title=called(tag), under=one.name if len(models) > 1 else ""))
            yield grid(shown)


def replies(
    room: Room, upload: Upload | None, typed: str | None, language: str | None, most: float | None
) -> Iterator[str]:
    """The answer of each model, as it is written."""
    question = need_text(typed, what="question")
    tag = need_language(language) if language else None
    images = [upload.open()] if upload is not None else []
    models = room.able(writes)
    done: list[str] = []
    for one in models:

        def written(take: Any, one: Any = one) -> str:
            with room.turn:
                return str(one.model.ask(images, question, language=tag, stream=take, **_length(most)))

        shown = partial(card, under=one.name if len(models) > 1 else "")
        for text, whole in growing(written):
            body = spoken(text, language=tag or "", writing=not whole)
            yield grid([*done, shown(body)])
        done.append(shown(body))


def _length(most: float | None) -> dict[str, int]:
    return {"max_tokens": max(1, int(most))} if most else {}


def _longest_field() -> Any:
    with gr.Accordion("Length", open=False):
        return gr.Number(
            None, label="Most tokens of an answer", precision=0, minimum=1, placeholder="as the model is set"
        )


def build_caption(room: Room) -> None:
    """Lays out the tab that describes."""
    with gr.Row():
        with gr.Column(min_width=300):
            image = picture_field()
            languages = language_field(label="Languages", value=["en"], several=True)
            most = _longest_field()
            button = gr.Button("Describe", variant="primary")
        with gr.Column(min_width=300):
            shown = gr.HTML(elem_id="vlkit-caption", elem_classes="vlkit-shown")
    button.click(answers(captions, room), [image, languages, most], shown, api_visibility="private")


def build_ask(room: Room) -> None:
    """Lays out the tab that answers."""
    with gr.Row():
        with gr.Column(min_width=300):
            image = picture_field(label="Image (may be left out)")
            question = text_field(label="Question", lines=2, placeholder="这是什么？", info="In any language")
            language = language_field(label="Language of the answer", value="", info="Without one, as the model likes")
            most = _longest_field()
            with gr.Row():
                button = gr.Button("Ask", variant="primary", min_width=120)
                stop = gr.Button("Stop", min_width=80)
        with gr.Column(min_width=300):
            shown = gr.HTML(elem_id="vlkit-ask", elem_classes="vlkit-shown")
    asked = button.click(answers(replies, room), [image, question, language, most], shown, api_visibility="private")
    stop.click(None, cancels=[asked], api_visibility="private")
