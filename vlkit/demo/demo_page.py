"""The page: a tab for each thing that one of the models can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from vlkit.demo import ask_tab, classify_tab, compare_tab, generate_tab, search_tab
from vlkit.demo.cards import safe
from vlkit.demo.room import Room
from vlkit.errors import VlkitError, some
from vlkit.evaluation.abilities import EMBEDS, PAINTS

STYLE = Path(__file__).with_name("page.css")
KEPT_FOR = 3600
"""Seconds that uploads lie on the disk at most, while the demo runs; they go when it ends."""


class Tab(NamedTuple):
    """A tab, and which models it is for.

    Attributes:
        title: What it is called.
        can: Whether a model can do what it shows.
        build: Lays it out; called where one of the models can.
        searches: It is about the folder of images, and not there without one.
    """

    title: str
    can: Callable[[object], bool]
    build: Callable[[Room], None]
    searches: bool = False


# A further tab is one line here and a module beside this one: its `build(room)` asks `room.able(...)` for its models.
TABS: tuple[Tab, ...] = (
    Tab("Classify", EMBEDS.of, classify_tab.build),
    Tab("Compare languages", EMBEDS.of, compare_tab.build),
    Tab("Search", EMBEDS.of, search_tab.build, searches=True),
    Tab("Describe", ask_tab.writes, ask_tab.build_caption),
    Tab("Ask", ask_tab.writes, ask_tab.build_ask),
    Tab("Generate", PAINTS.of, generate_tab.build),
)


def tabs_for(room: Room) -> list[Tab]:
    """The tabs that at least one of the models is for.

    Raises:
        VlkitError: A model is for none of them.
    """
    idle = [one.name for one in room.models if not any(tab.can(one.model) for tab in TABS)]
    if idle:
        raise VlkitError(
            f"{some(idle)} can do nothing that the demo shows; it shows models that embed images and texts, that "
            f"answer questions about images, or that make images"
        )
    return [tab for tab in TABS if room.able(tab.can) and (room.photos is not None or not tab.searches)]


def build_page(room: Room) -> Any:
    """The page, not yet served.

    Raises:
        VlkitError: A model can do nothing that there is a tab for.
    """
    tabs = tabs_for(room)
    with gr.Blocks(title="vlkit demo", analytics_enabled=False, delete_cache=(KEPT_FOR, KEPT_FOR)) as page:
        gr.HTML(_head([one.name for one in room.models]), elem_id="vlkit-head")
        with gr.Tabs():
            for tab in tabs:
                with gr.Tab(tab.title):
                    tab.build(room)
    return page


def theme() -> Any:
    """Fonts of the visitor's own system, which has those of the scripts that are read there."""
    return gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )


def _head(names: Sequence[str]) -> str:
    return f"<h1>vlkit demo</h1><p>{'<br>'.join(map(safe, names))}</p>"
