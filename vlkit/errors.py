"""Errors that name the key, the value, the allowed set and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_LONGEST = 200  # of a name in a message


class VlkitError(ValueError):
    """Root of all errors that a user can cause and fix."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors come home from worker processes: the message is carried, constructors are not run again.
        return _restore, (type(self), self.args, vars(self))


def _restore(kind: type[VlkitError], args: tuple[Any, ...], state: dict[str, Any]) -> VlkitError:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


class UnknownName(VlkitError):  # noqa: N818 - reads as a sentence where it is raised and caught
    """A name that is in no table; the message offers the nearest ones.

    ``hint`` is a last sentence that says where to look, e.g. ``See vlkit.list_models().``.
    """

    def __init__(self, kind: str, name: str, *, allowed: Iterable[str], hint: str = "") -> None:
        self.kind, self.name = kind, name
        self.allowed = sorted(allowed)
        short = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
        guess = did_you_mean(short, self.allowed)
        said = f"no {kind} {short!r}" + (f"; {guess}" if guess else "")
        if hint[:1].isupper() and not said.endswith("?"):
            said += "."
        super().__init__(f"{said} {hint}".rstrip())


class SpecError(VlkitError):
    """One or more problems in a recipe; the message lists all of them."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}; nothing was run."
        super().__init__("\n".join([*problems, count]))


class ShapeError(VlkitError):
    """Two parts whose widths do not fit; the message gives both numbers."""


class DataError(VlkitError):
    """Input data that cannot be used: missing, unreadable, or of the wrong form."""


class AssetError(VlkitError):
    """A pretrained part that could not be had; the message says what was tried and what to do."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM (``number``) ended what was done; the message says how to go on."""

    def __init__(self, message: str = "", *, number: int = 2) -> None:
        super().__init__(message)
        self.number = number


class MissingPackage(VlkitError):  # noqa: N818
    """An optional package is needed and not installed."""

    def __init__(self, package: str, *, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed; run: {pip_install(extra)}")


def pip_install(extra: str) -> str:
    """The command that installs what an extra of vlkit lacks; it works from a clone, a wheel or an index alike."""
    found = requirements(extra)
    lacking = [package for package, problem in found if problem] or [package for package, _ in found] or [extra]
    return "pip install " + " ".join(f"'{package}'" for package in lacking)


def requirements(extra: str = "") -> list[tuple[str, str]]:
    """What vlkit requires, or one of its extras (as in ``pyproject.toml``), each with what is wrong with it, if it is.

    As pip writes them: ``mteb<3,>=2.12.30``. An extra that stands for another one of vlkit's has what that one has.
    """
    from importlib import metadata

    from packaging.requirements import Requirement

    try:
        listed = [Requirement(line) for line in metadata.requires("vlkit") or ()]
    except metadata.PackageNotFoundError:  # a source tree on the path
        return []
    found: list[tuple[str, str]] = []
    for one in listed:
        if bool(extra) != ("extra" in str(one.marker or "")) or (
            one.marker and not one.marker.evaluate({"extra": extra})
        ):
            continue
        if one.name == "vlkit":
            found += [pair for below in sorted(one.extras) for pair in requirements(below)]
            continue
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            problem = "not installed"
        else:
            problem = "" if one.specifier.contains(version, prereleases=True) else f"version {version} does not do"
        found.append((f"{one.name}{one.specifier}", problem))
    return found


def nearest(name: str, names: Iterable[str], *, count: int = 3) -> list[str]:
    """The names most like ``name``, best first, at most ``count``; empty when nothing is close."""
    folded = {candidate.lower(): candidate for candidate in names}
    return [folded[match] for match in difflib.get_close_matches(name.lower(), list(folded), n=count, cutoff=0.6)]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A sentence part: the nearest names, or else all of them when they are few."""
    names = list(names)
    close = nearest(name, names)
    if close:
        return "did you mean " + " or ".join(repr(match) for match in close) + "?"
    if 0 < len(names) <= 12:
        return "there are: " + ", ".join(names)
    return ""


def some(names: Iterable[object], *, most: int = 5) -> str:
    """The first few names, and how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def counted(names: Iterable[object]) -> str:
    """How many names, and the first few of them: ``7 (a, b, c, d, e and 2 more)``."""
    listed = list(names)
    return f"{len(listed)} ({some(listed)})"
