"""The two consoles of the command line: results on standard output, everything else on standard error."""

from __future__ import annotations

import atexit
import gc
import json
import os
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlkit.errors import SpecError, VlkitError
from vlkit.files import home, write_atomic
from vlkit.foreign import printable, printable_json
from vlkit.terminal import console

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.table import Table

_PIPE_WIDTH = 10_000
_LONGEST = 300  # characters of an unforeseen message


def out(*, width: int | None = None) -> Console:
    """Results, at the terminal's width or a given one; made at each call, so that a redirected stream is met."""
    return console(soft_wrap=not sys.stdout.isatty(), width=width)


def err() -> Console:
    """Messages. Lines are never broken: ``file:line`` stays one word that an editor can open."""
    return console(stderr=True, soft_wrap=True)


def say(text: str, *, style: str | None = None) -> None:
    """A line of results, taken literally."""
    out().print(text, style=style, markup=False)


def tell(text: str) -> None:
    """A message, taken literally."""
    err().print(text, markup=False)


def listed(text: str) -> list[str]:
    """What stands between the commas of an option: ``de, fr`` is two languages."""
    return [part.strip() for part in text.split(",") if part.strip()]


def tags(languages: str) -> list[str] | None:
    """The BCP 47 tags of languages with commas between; None for none, which stands for all."""
    from vlkit.languages import normalize

    return [normalize(code) for code in listed(languages)] or None


def write(text: str) -> None:
    """JSON or YAML on standard output: no wrapping, no markup, no color, and nothing that a terminal acts on."""
    sys.stdout.write(printable_json(text.removesuffix("\n")) + "\n")


def write_json(value: Any, *, indent: int | None = 1) -> None:
    """A value as JSON on standard output."""
    write(json.dumps(value, ensure_ascii=False, indent=indent))


def show_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    right: Sequence[str] = (),
    wrap: bool = False,
) -> None:
    """Prints a plain table; into a pipe or a file, each row is one line however long it is.

    With ``wrap``, for lists to be read, rows keep to the width of the terminal that is behind a pipe.
    """
    width = None if sys.stdout.isatty() else (wrap and terminal_width()) or _PIPE_WIDTH
    console(width=width).print(table(headers, rows, title=title, right=right))


def terminal_width() -> int | None:
    """Columns of the terminal that is behind either stream, or ``$COLUMNS``; None where there is no terminal."""
    if (given := os.environ.get("COLUMNS", "")).isdecimal() and int(given):
        return int(given)
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError):
            return os.get_terminal_size(stream.fileno()).columns  # type: ignore[union-attr]
    return None


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", right: Sequence[str] = ()
) -> Table:
    """A plain table whose cells are taken literally.

    Args:
        headers: Names of the columns; the first one is never wrapped, so that it can be copied.
        rows: Cells, one a column.
        title: Shown above it.
        right: Columns of numbers.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for number, header in enumerate(headers):
        justify: JustifyMethod = "right" if header in right else "left"
        made.add_column(
            header, justify=justify, overflow="fold", no_wrap=number == 0, style="cyan" if number == 0 else None
        )
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def show_error(error: BaseException) -> None:
    """One clear message on standard error; a recipe's problems stand in lines of their own."""
    from rich.text import Text

    if isinstance(error, SpecError):
        *problems, count = str(error).split("\n")
        err().print(Text("\n".join(problems)))
        err().print(Text(count, style="bold red"))
        return
    headed("error", message(error), color="red")


def headed(word: str, text: str, *, color: str = "yellow") -> None:
    """A message behind a coloured word, taken literally."""
    from rich.text import Text

    err().print(Text.assemble((f"{word}:", f"bold {color}"), " ", text))


def message(error: BaseException) -> str:
    """What went wrong, in one line where the error is the operating system's."""
    if isinstance(error, OSError) and not isinstance(error, VlkitError):
        if isinstance(error, FileNotFoundError) and not error.filename and not _here():
            return "the current folder is not there any more; cd to one that is"
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{place}"
    return str(error)


def _here() -> bool:
    try:
        return Path.cwd().is_dir()
    except FileNotFoundError:
        return False


def debugging() -> bool:
    """Whether errors are shown with their traceback (``VLKIT_TRACEBACK=1``)."""
    return os.environ.get("VLKIT_TRACEBACK", "") not in ("", "0")


def show_unexpected(error: BaseException) -> None:
    """One line on an error that nobody foresaw, and its whole trace in a file."""
    said = " ".join(str(error).split())
    what = type(error).__name__ + (f": {said[:_LONGEST]}" if said else "")
    try:
        where = f"the trace is in {_write_trace(error)}; VLKIT_TRACEBACK=1 shows it"
    except (OSError, VlkitError):
        where = "VLKIT_TRACEBACK=1 shows the trace"
    headed("error", f"unexpected {what} ({where}). Please report it with the trace", color="red")


def _write_trace(error: BaseException) -> Path:
    from datetime import datetime

    from vlkit.provenance import environment

    path = home() / "errors" / f"{datetime.now():%Y-%m-%d-%H%M%S}-{os.getpid()}.txt"
    trace = "".join(traceback.format_exception(error))
    head = f"{shlex.join(sys.argv)}\n{json.dumps(environment())}\n\n"
    write_atomic(path, (head + trace).encode("utf-8", "backslashreplace"))
    return path


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning as a note of one line; what libraries say to their developers is not for users."""
    if not issubclass(category, FutureWarning | DeprecationWarning | PendingDeprecationWarning):
        headed("note", str(message))


@contextmanager
def collector_off() -> Iterator[None]:
    """No garbage collection meanwhile: a tenth of the time that imports take."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def leave(code: int) -> None:
    """Ends the process after all exit functions, but without taking thousands of modules apart, which takes seconds."""
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return  # the reader of a pipe has gone: end as usual
    os._exit(code)
