"""`vlkit demo MODEL...`: models in the browser, each with what it can do."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import typer

from vlkit.cli.console import collector_off, say, show_unexpected, tell
from vlkit.cli.loading import find_model, loader
from vlkit.cli.options import Device, complete_models
from vlkit.demo.demo_server import LOCAL, MOST_MB, PORT, listen, quiet_gradio, require_gradio
from vlkit.errors import VlkitError
from vlkit.obstacles import Obstacles
from vlkit.paths import local_path

DEFAULT_MODEL = Path("runs/quickstart/model")


def demo(
    models: list[str] | None = typer.Argument(
        None,
        metavar="MODEL...",
        help=f"Model folders or names, to be shown side by side; without any {DEFAULT_MODEL}.",
        autocompletion=complete_models,
    ),
    images: Path | None = typer.Option(
        None, parser=local_path, metavar="DIR", help="A folder, tar or zip of images to search with words."
    ),
    host: str = typer.Option(LOCAL, metavar="ADDRESS", help="Who may open the page; 0.0.0.0 lets the whole network."),
    port: int = typer.Option(PORT, min=0, max=65535, metavar="N", help="0 takes any that is free."),
    most_mb: int = typer.Option(MOST_MB, "--max-mb", min=1, metavar="N", help="Largest file that can be uploaded."),
    device: Device = "auto",
) -> None:
    """Try models in the browser: classify, compare languages, search, describe, ask."""
    # what can be wrong is looked at before anything slow is loaded, and told at once
    obstacles = Obstacles()
    with obstacles.met():
        require_gradio()
    with obstacles.met():
        found = [find_model(name, DEFAULT_MODEL, made_by="vlkit quickstart") for name in models or [""]]
        if twice := [name for name in found if found.count(name) > 1]:
            raise VlkitError(f"the model {twice[0]} is given twice; leave one out")
    with obstacles.met():
        opened = listen(host, port)
    obstacles.refuse()
    with ExitStack() as stack:
        stack.callback(opened.close)
        stack.enter_context(quiet_gradio())
        with collector_off():
            from vlkit.demo.demo_server import serve
            from vlkit.demo.photos import Photos, list_images
            from vlkit.demo.room import Room, ShownModel
            from vlkit.evaluation.abilities import EMBEDS

        photos = None if images is None else Photos(list_images(images), stack=stack)
        ready, _ = stack.enter_context(loader(device=device))
        shown = [ShownModel(name, ready(name)) for name in found]
        room = Room(shown, report=show_unexpected, photos=photos)
        if photos is not None:
            if not room.able(EMBEDS.of):
                raise VlkitError(f"none of the models embeds images and texts, so {images} cannot be searched")
            for one in room.able(EMBEDS.of):
                photos.embed(one)
            for problem in photos.unread.values():
                tell(f"note: left out: {problem}")
        serve(room, opened, most_mb=most_mb, ready=_told)


def _told(address: str) -> None:
    say(f"{address}  (Ctrl-C ends the demo)")
