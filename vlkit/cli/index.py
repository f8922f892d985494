"""`vlkit index DIR --out INDEX` and `vlkit search "قارچ" --index INDEX`: images found by text in any language."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlkit.cli.classify import DEFAULT_MODEL
from vlkit.cli.console import collector_off, headed, out, tell, write_json
from vlkit.cli.loading import find_model, loaded
from vlkit.cli.options import AsJson, Device
from vlkit.errors import VlkitError
from vlkit.obstacles import Obstacles
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.evaluation.search.matches import Matches

_PIPE_WIDTH = 200
_SHOWN = 10  # unreadable images that a terminal shows


def index(
    images: str = typer.Argument(metavar="DIR", help="A folder of images (with the folders in it), a tar or a zip."),
    into: Path = typer.Option(
        ...,
        "--out",
        parser=local_path,
        metavar="INDEX",
        help="Folder of the index; one that is there is updated.",
    ),
    model: str = typer.Option("", metavar="PATH", help=f"A model folder or name; without it {DEFAULT_MODEL}."),
    batch_size: int = typer.Option(64, min=1, metavar="N", help="Images a forward pass."),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Embed the images of a folder, to be searched."""
    obstacles = Obstacles()
    source = local_path(images)
    with obstacles.met():
        if not source.exists():
            raise VlkitError(f"{images}: no such file or folder; give a folder, tar or zip of images")
    with obstacles.met():
        where = find_model(model, DEFAULT_MODEL, made_by="vlkit quickstart")
    obstacles.refuse()
    with collector_off():
        from vlkit.evaluation.search.image_index import index_images
        from vlkit.types import ImageTextModel

    with loaded(where, device=device, expect=ImageTextModel) as (ready, _):
        made, news = index_images(ready, source, into, model_name=_lasting(where), batch_size=batch_size)
    if as_json:
        counts = {"embedded": news.embedded, "known": news.known, "gone": news.gone}
        write_json({"index": str(into), "images": len(made), **counts, "unreadable": news.unreadable})
    else:
        gone = f", {news.gone:,} gone" if news.gone else ""
        tell(f"{into}: {len(made):,} images ({news.embedded:,} embedded now, {news.known:,} known{gone})")
        tell(f"next: vlkit search 'a cat' --index {into}")
    for problem in [*news.unreadable.values()][:_SHOWN]:
        headed("left out", problem)
    if len(news.unreadable) > _SHOWN:
        headed("left out", f"{len(news.unreadable) - _SHOWN:,} more that cannot be read; --json prints all")


def search(
    queries: list[str] | None = typer.Argument(None, metavar="TEXT...", help="What to look for, in any language."),
    folder: Path = typer.Option(..., "--index", parser=local_path, metavar="INDEX", help="What vlkit index made."),
    images: Annotated[
        list[str] | None,
        typer.Option("--image", metavar="IMAGE", help="Look for images like this one (or several)."),
    ] = None,
    k: int = typer.Option(10, "-k", "--top", min=1, metavar="K", help="Images for each query."),
    language: str = typer.Option(
        "", metavar="LANG", help="Language of the texts, for tokenizers that have to be told (NLLB's)."
    ),
    page: Path | None = typer.Option(
        None, "--out", parser=local_path, metavar="PAGE.html", help="Also write a page of thumbnails."
    ),
    model: str = typer.Option("", metavar="PATH", help="The model of the index, where it lies elsewhere by now."),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Find images by text in any language, or by an image."""
    from vlkit import languages
    from vlkit.evaluation.search.index_record import read_record

    obstacles = Obstacles()
    with obstacles.met():
        if not queries and not images:
            raise VlkitError("nothing to look for; give a text, or an image by --image")
    with obstacles.met():
        tag = languages.normalize(language) if language else None
    with obstacles.met():
        if page is not None and page.suffix.lower() not in (".html", ".htm"):
            raise VlkitError(f"--out {page}: the page is HTML; give a name that ends in .html")
    with obstacles.met():
        where = model or read_record(folder).model
        if not where:
            raise VlkitError(f"the index in {folder} does not say by which model it was made; give --model PATH")
    obstacles.refuse()
    with collector_off():
        from vlkit.evaluation.search.image_index import ImageIndex
        from vlkit.types import ImageTextModel

    opened = ImageIndex(folder)
    with loaded(where, device=device, expect=ImageTextModel) as (ready, _):
        found = opened.search(ready, queries, k=k, language=tag) if queries else []
        found += opened.search_images(ready, images, k=k) if images else []
    if as_json:
        write_json({"index": str(folder), "source": str(opened.source), "queries": [_plain(one) for one in found]})
    else:
        _show(found)
    if page is not None:
        from vlkit.evaluation.search.search_page import write_search_page

        tell(f"page: {write_search_page(page, opened, found)}")


def _lasting(model: str) -> str:
    """A model's name as it is understood in other folders too."""
    place = local_path(model)
    return str(place.absolute()) if place.exists() else model


def _show(found: list[Matches]) -> None:
    printer = out(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for number, matches in enumerate(found):
        if number:
            printer.print()
        printer.print(matches.table())


def _plain(matches: Matches) -> dict[str, Any]:
    """What ``--json`` prints of a query."""
    return {"query": matches.query, "images": [{**one, "score": round(one["score"], 6)} for one in matches.records()]}
