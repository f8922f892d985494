"""The size budget: files, functions and constructors stay small; what is larger stands in a list that only shrinks.

Run from the root of the repository: ``python tools/check_size.py``. An entry of ``tools/size_allow.txt`` gives a limit,
a place and its present size, e.g. ``function vlkit/a.py:Class.method 75``. It must be exact: growing is an error, and
so is an entry that is larger than needed or not needed any more.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = {"vlkit": 400, "tools": 400, "tests": 600}
FUNCTION_LINES = 60
CONSTRUCTOR_PARAMETERS = 11
ALLOW = Path("tools/size_allow.txt")
UNITS = {"file": "lines", "function": "lines", "constructor": "parameters"}

Place = tuple[str, str]  # a limit ("file", "function" or "constructor") and where it is passed


def too_large(root: Path) -> dict[Place, tuple[int, int]]:
    """What is over its limit: the size and the limit of each."""
    found: dict[Place, tuple[int, int]] = {}
    for folder, limit in FILE_LINES.items():
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            text = path.read_text(encoding="utf-8")
            if (lines := len(text.splitlines())) > limit:
                found["file", name] = lines, limit
            if folder != "tests":
                for what, of, size, most in _functions(ast.parse(text)):
                    found[what, f"{name}:{of}"] = size, most
    return found


def _functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, str, int, int]]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _functions(node, inside)
            continue
        name = f"{inside}{node.name}"
        if not isinstance(node, ast.ClassDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield "function", name, lines, FUNCTION_LINES
            if node.name == "__init__" and (count := _parameters(node.args)) > CONSTRUCTOR_PARAMETERS:
                yield "constructor", name, count, CONSTRUCTOR_PARAMETERS
        yield from _functions(node, f"{name}.")


def _parameters(arguments: ast.arguments) -> int:
    named = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    return named + (arguments.vararg is not None) + (arguments.kwarg is not None) - 1  # without self


def allowed(text: str) -> dict[Place, int]:
    """The entries of the list; ``#`` starts a comment.

    Raises:
        ValueError: A line of another form, or a place written twice.
    """
    entries: dict[Place, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3 or words[0] not in UNITS or not words[2].isdecimal():
            raise ValueError(f"{ALLOW}:{number}: write 'file|function|constructor PLACE SIZE', not {line!r}")
        if (words[0], words[1]) in entries:
            raise ValueError(f"{ALLOW}:{number}: {words[0]} {words[1]} is written twice")
        entries[words[0], words[1]] = int(words[2])
    return entries


def problems(found: dict[Place, tuple[int, int]], entries: dict[Place, int]) -> list[str]:
    """One line for all that is over its limit and not listed, has grown, or is listed with more than it needs."""
    lines: list[str] = []
    for (what, where), (size, limit) in found.items():
        listed = entries.get((what, where))
        if listed is None:
            lines.append(f"{where}: this {what} has {size} {UNITS[what]}, the limit is {limit}; split it")
        elif size > listed:
            lines.append(f"{where}: this {what} grew from {listed} to {size} {UNITS[what]}; {ALLOW} only shrinks")
        elif size < listed:
            lines.append(f"{where}: this {what} shrank to {size} {UNITS[what]}; write {size} into {ALLOW}")
    for what, where in entries.keys() - found.keys():
        lines.append(f"{where}: this {what} keeps its limit or is gone; take it out of {ALLOW}")
    return sorted(lines)


def main(root: Path) -> int:
    """Prints the problems; the number to exit with."""
    listed = root / ALLOW
    try:
        entries = allowed(listed.read_text(encoding="utf-8") if listed.is_file() else "")
    except ValueError as error:
        print(error)
        return 1
    found = problems(too_large(root), entries)
    print("\n".join(found) if found else f"sizes are within the budget, {len(entries)} exceptions")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
