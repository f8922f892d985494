"""`vlkit cache list` and `vlkit cache clear NAME...`: what vlkit keeps on this machine, and how to be rid of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from vlkit.cli.console import headed, say, show_table, tell, write_json
from vlkit.cli.options import AsJson

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List or clear what vlkit keeps on this machine.")

_HEX = r"[0-9a-f]{16}"
# folder in the cache -> (names of what vlkit makes there, what it is); nothing else is counted or removed
KEPT = {
    "assets": (r"timm|hf|open_clip", "pretrained parts, ready to load; fetched or made again when needed"),
    "wheels": (r".*\.whl|\..*\.whl\.lock", "packages that parts and drawings are made of"),
    "data": (rf"\w+-{_HEX}", "built data sets (openmoji, flags)"),
    "features": (rf"{_HEX}(\.safetensors)?", "features of frozen parts; computed again when needed"),
    "embeddings": (rf"(images|texts)-{_HEX}", "of images that the demo searched; computed again when needed"),
    "index": (rf"{_HEX}\.json", "where samples lie in tar files"),
    "shards": (rf"{_HEX}\.tar", "shards kept from the network"),
    "spool": (r".*", "shards on their way from the network"),
    "errors": (r"[\d-]+\.txt", "traces of unexpected errors"),
}


@dataclass(frozen=True)
class Kept:
    """One kind of what is kept: its files, their number and size in bytes."""

    name: str
    about: str
    places: tuple[Path, ...]
    files: int
    size: int


@app.command("list")
def list_kept(as_json: AsJson = False) -> None:
    """Show what is kept, how large it is and where."""
    from vlkit.files import home

    found = [look(name) for name in KEPT]
    if as_json:
        write_json({"home": str(home()), "kept": {one.name: {"files": one.files, "bytes": one.size} for one in found}})
        return
    rows = [(one.name, f"{one.files:,}", megabytes(one.size), one.about) for one in found]
    rows.append(("all", f"{sum(one.files for one in found):,}", megabytes(sum(one.size for one in found)), ""))
    show_table(("name", "files", "MB", "what"), rows, title=f"{home()} (VLKIT_HOME)", right=("files", "MB"))
    tell(f"models of the Hugging Face hub lie in {hub_cache()} and belong to its own tool: hf cache")


@app.command()
def clear(
    names: list[str] = typer.Argument(metavar="NAME", help=f"{', '.join(KEPT)}, or all."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
) -> None:
    """Remove what is kept under these names; not while another vlkit runs."""
    from vlkit.errors import UnknownName, VlkitError
    from vlkit.files import home

    for name in names:
        if name not in KEPT and name != "all":
            raise UnknownName("cache", name, allowed=[*KEPT, "all"])
    if home().resolve() in (Path.home().resolve(), Path("/").resolve()):
        raise VlkitError(f"VLKIT_HOME is {home()}, which is not vlkit's alone; nothing was removed")
    found = [look(name) for name in (KEPT if "all" in names else dict.fromkeys(names))]
    size = sum(one.size for one in found)
    if not any(one.places for one in found):
        say(f"nothing is kept in {home()} under {', '.join(names)}")
        return
    asked = f"remove {', '.join(one.name for one in found if one.places)} ({megabytes(size)} MB) from {home()}?"
    if not yes and not typer.confirm(asked):
        raise typer.Exit(1)
    for place in (place for one in found for place in one.places):
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    say(f"removed {megabytes(size)} MB from {home()}")
    for name in (one.name for one in found):
        if strange := sorted(path.name for path in _inside(home() / name)):
            headed("note", f"left in {home() / name}, since vlkit did not make it: {', '.join(strange[:3])}")


def look(name: str) -> Kept:
    """What is kept under a name of ``KEPT``; links are not followed."""
    from vlkit.files import home

    pattern, about = KEPT[name]
    places = tuple(path for path in _inside(home() / name) if re.fullmatch(pattern, path.name))
    sizes = [path.lstat().st_size for place in places for path in _files(place)]
    return Kept(name, about, places, len(sizes), sum(sizes))


def _inside(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def _files(place: Path) -> Iterator[Path]:
    inside = place.rglob("*") if place.is_dir() and not place.is_symlink() else (place,)
    return (path for path in inside if path.is_file() or path.is_symlink())


def megabytes(size: float) -> str:
    """Bytes as MB (10^6), with a digit where they are few."""
    return f"{size / 1e6:,.1f}" if size < 1e8 else f"{size / 1e6:,.0f}"


def hub_cache() -> Path:
    """Where the library of the Hugging Face hub keeps its files."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
