"""`vlkit doctor`: versions, device, caches and hub of this machine, and what is missing."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from vlkit.cli.cache import KEPT, hub_cache, look, megabytes
from vlkit.cli.console import collector_off, out, say, write_json
from vlkit.cli.options import AsJson
from vlkit.errors import requirements
from vlkit.files import home


class Diagnosis(NamedTuple):
    """One thing that was looked at; ``state`` is ok, note (something cannot be done) or wrong (vlkit cannot run)."""

    about: str
    state: str
    said: str


_STYLES = {"ok": "green", "note": "yellow", "wrong": "bold red"}
_NEEDED = 2 * 10**9  # bytes: what the quickstart keeps, with room


def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, which device there is, where caches lie, and what is missing.

    The exit code is 1 where something is wrong, so that vlkit cannot run.
    """
    from rich.table import Table
    from rich.text import Text

    found = [*_versions(), *_devices(), *_caches(), *_hub(), *_extras(), *_parts()]
    wrong = sum(one.state == "wrong" for one in found)
    if as_json:
        write_json([one._asdict() for one in found])
    else:
        shown = Table(box=None, pad_edge=False, show_header=False)
        for one in found:
            shown.add_row(Text(one.about, style="cyan"), Text(one.state, style=_STYLES[one.state]), Text(one.said))
        out(width=None if sys.stdout.isatty() else 200).print(shown)
        say(f"\n{wrong} wrong" if wrong else "\nvlkit can run here")
    raise typer.Exit(1 if wrong else 0)


def _versions() -> Iterator[Diagnosis]:
    from vlkit.provenance import environment

    found = environment()
    yield Diagnosis("vlkit", "ok", f"{found['vlkit']} in {Path(__file__).parents[1]}")
    yield Diagnosis("python", "ok", f"{found['python']} ({found['platform']}), {sys.executable}")
    for package, problem in requirements():
        if problem:
            yield Diagnosis(package, "wrong", f"{problem}; run: pip install '{package}'")
    yield Diagnosis("libraries", "ok", ", ".join(f"{name} {version}" for name, version in found["libraries"].items()))


def _devices() -> Iterator[Diagnosis]:
    try:
        with collector_off():
            import torch
    except (ImportError, OSError) as error:  # OSError: a library of the system is missing
        yield Diagnosis("torch", "wrong", f"cannot be imported: {error}")
        return
    yield Diagnosis("cpu", "ok", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads")
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(number)
        yield Diagnosis(f"cuda:{number}", "ok", f"{about.name}, {about.total_memory / 1e9:.0f} GB")
    if torch.backends.mps.is_available():
        yield Diagnosis("mps", "ok", "there; asked for by --device mps")
    elif not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU alone"
        yield Diagnosis("gpu", "note", f"none found; torch {torch.__version__} is {built}")


def _caches() -> Iterator[Diagnosis]:
    place = home()
    there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield Diagnosis("cache", "wrong", f"{place} cannot be written to ({error.strerror}); set VLKIT_HOME")
        return
    free, kept = shutil.disk_usage(there).free, sum(look(name).size for name in KEPT)
    said = f"{place}: {megabytes(kept)} MB kept, {megabytes(free)} MB free on its disk"
    yield Diagnosis("cache", "ok" if kept + free > _NEEDED else "note", said)
    yield Diagnosis("hub cache", "ok", str(hub_cache()))


def _hub() -> Iterator[Diagnosis]:
    from vlkit.parts.assets import hub

    if forbidden := hub.offline():
        yield Diagnosis("hub", "note", f"not asked: {forbidden} is set")
    elif why := hub.unreachable(hub.endpoint()):
        yield Diagnosis(
            "hub", "note", f"{hub.endpoint()} cannot be reached ({why}); local folders and caches still work"
        )
    else:
        yield Diagnosis("hub", "ok", hub.endpoint())


def _extras() -> Iterator[Diagnosis]:
    """What the optional parts of vlkit lack."""
    from importlib import metadata

    for extra in sorted(metadata.metadata("vlkit").get_all("Provides-Extra") or ()):
        missing = [package for package, problem in requirements(extra) if problem]
        if missing:
            yield Diagnosis(extra, "note", "not installed; run: pip install " + " ".join(f"'{one}'" for one in missing))
        elif requirements(extra):
            yield Diagnosis(extra, "ok", ", ".join(package for package, _ in requirements(extra)))


def _parts() -> Iterator[Diagnosis]:
    from vlkit.parts.assets import ASSETS
    from vlkit.parts.assets.cache import asset_folder, problem

    for asset in ASSETS:
        if asset.library != "data":
            here = problem(asset_folder(asset.name, library=asset.library)) is None
            said = "in the cache" if here else f"not in the cache; takes {megabytes(asset.size)} MB when it is used"
            yield Diagnosis(f"{asset.library}:{asset.name}", "ok" if here else "note", said)
