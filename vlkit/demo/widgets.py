"""The parts that tabs are made of, and how a click becomes an answer or a plain message."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from vlkit import languages
from vlkit.demo.cards import problem
from vlkit.demo.room import Room
from vlkit.demo.visitor_input import Upload
from vlkit.errors import VlkitError

UNFORESEEN = "something went wrong that nobody foresaw; the terminal in which the demo runs says more"


def picture_field(*, label: str = "Image") -> Any:
    """Where an image is dropped, pasted or chosen; gives an ``Upload``, or None.

    The file is not opened by gradio, which has no bounds for what an image may hold.
    """
    made: Any = gr.Image(
        label=label,
        type="filepath",
        sources=["upload", "clipboard"],
        height=300,
        buttons=[],
        elem_classes="vlkit-image",
    )
    made.preprocess = _upload
    return made


def _upload(payload: Any) -> Upload | None:
    if payload is None or not payload.path:
        return None
    path = Path(payload.path)
    return Upload(path, payload.orig_name or path.name)


def language_field(*, label: str, value: str | list[str], info: str = "", several: bool = False) -> Any:
    """A choice of languages, in which codes and names can be typed as well."""
    rows = sorted(languages.all_languages(), key=lambda row: row.name)
    choices = [(_with_own_name(row), row.tag) for row in rows]
    return gr.Dropdown(
        choices,
        value=value,
        label=label,
        info=info or None,
        multiselect=several,
        allow_custom_value=True,
        filterable=True,
    )


def _with_own_name(row: languages.Language) -> str:
    return f"{row.name} ({row.tag})" + ("" if row.autonym == row.name else f" · {row.autonym}")


def text_field(*, label: str, placeholder: str = "", value: str = "", lines: int = 1, info: str = "") -> Any:
    """A field for text, which runs in the direction of what is typed."""
    return gr.Textbox(
        value, label=label, placeholder=placeholder or None, lines=lines, max_lines=max(lines, 12), info=info or None,
        elem_classes="vlkit-text",
    )  # fmt: skip


def answers(steps: Callable[..., Iterator[Any]], room: Room, *, others: Sequence[Any] = ()) -> Callable[..., Any]:
    """A handler for clicks that gives what ``steps`` gives, one step after the other, or a message in its place.

    ``others`` stand beside the message, for what the page shows besides.
    """

    def handler(*given: Any) -> Iterator[Any]:
        try:
            yield from steps(room, *given)
        except (VlkitError, OSError) as error:
            yield _beside(problem(message(error)), others)
        except Exception as error:
            room.report(error)
            yield _beside(problem(UNFORESEEN), others)

    return handler


def _beside(shown: str, others: Sequence[Any]) -> Any:
    return (shown, *others) if others else shown


def message(error: BaseException) -> str:
    """What went wrong, without where in the code or on the disk."""
    if isinstance(error, OSError) and not isinstance(error, VlkitError):
        return error.strerror or "a file could not be read or written"
    return str(error)
