"""Loads recipes: YAML 1.2, one parent by `extends`, `key=value` from the command line, an origin for every value."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from vlkit.errors import SpecError, UnknownName, VlkitError, did_you_mean
from vlkit.files import packaged
from vlkit.paths import local_path
from vlkit.spec.base import Spec
from vlkit.spec.merge import COMMAND_LINE, DEFAULT, apply_override, fill, merge, parse_overrides
from vlkit.spec.problems import problems_of, unfinite
from vlkit.spec.recipe import Recipe
from vlkit.spec.schema import shape_of_map
from vlkit.spec.yaml12 import Node, block_lines, parse, problem

S = TypeVar("S", bound=Spec)
_EXACT = 2**53  # beyond it, a float stands for several integers


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """A validated spec with the origin of every value.

    ``origins`` goes from the dotted key of every value to ``default``, ``file:line`` or ``command line``; ``path`` is
    the file it was read from.
    """

    spec: S
    origins: dict[str, str]
    path: Path

    def annotated(self) -> str:
        """The resolved YAML, each value with its origin in a comment; it loads back to an equal spec."""
        rows = list(block_lines(self.spec.model_dump(mode="json")))
        width = max((len(line) for line, key in rows if key and len(line) <= 72), default=0)
        return "\n".join(f"{line:<{width}}  # {self.origins[key]}" if key else line for line, key in rows) + "\n"


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe.

    Args:
        path_or_name: A YAML file, or the name of a shipped recipe (``contrastive/tiny``).
        overrides: ``key=value`` arguments with dotted keys, e.g. ``["optim.lr=3e-4", "data.languages=[de,no]"]``.

    Raises:
        SpecError: Something in it is wrong; the message lists every fault with its place.
        UnknownName: There is neither such a file nor such a shipped recipe.
    """
    return resolve(path_or_name, overrides).spec


def resolve(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Resolved[Recipe]:
    """Like ``load_recipe``, with the origin of every value."""
    return resolve_spec(Recipe, find_recipe(path_or_name), overrides)


def load_spec(spec_type: type[S], path: Path) -> S:
    """Reads a YAML file that holds one spec, e.g. a model's.

    Raises:
        SpecError: Something in it is wrong.
    """
    return resolve_spec(spec_type, path).spec


def resolve_spec(spec_type: type[S], path: Path, overrides: Sequence[str] = ()) -> Resolved[S]:
    """Reads any spec from a file, with parents, overrides and origins.

    Raises:
        SpecError: Something in it is wrong.
        VlkitError: The file cannot be read.
    """
    shape = shape_of_map(spec_type)
    root = Node({}, f"{display(path)}:1")
    for document in _family(path, ()):
        root = merge(fill(root, shape), document)
    read, problems = parse_overrides(overrides)
    for override in read:
        if override.keys[0] == "extends":
            text, value = "extends can only be written in a file", override.node.plain()
            problems.append(problem(COMMAND_LINE, text, key="extends", value=value))
            continue
        try:
            root = apply_override(fill(root, shape), override)
        except SpecError as error:
            problems += error.problems
    return _validated(spec_type, fill(root, shape), problems, path)


def _validated(spec_type: type[S], root: Node, problems: list[str], path: Path) -> Resolved[S]:
    problems = [*problems, *unfinite(root)]
    spec = None
    try:
        # JSON mode is the strict one that still takes lists for tuples: true is no number and "5" no int.
        spec = spec_type.model_validate_json(json.dumps(_whole(root.plain())), strict=True)
    except ValidationError as error:
        heads = {entry.partition("\n")[0] for entry in problems}
        problems += [entry for entry in problems_of(error, root, spec_type) if entry.partition("\n")[0] not in heads]
    if problems or spec is None:
        raise SpecError(problems)
    rows = block_lines(spec.model_dump(mode="json"))
    return Resolved(spec, {key: _origin(root, key) for _, key in rows if key}, path)


def _whole(value: Any) -> Any:
    """Floats without a fraction as ints, so that ``steps: 1e3`` is a number of steps; a number field takes both."""
    if isinstance(value, dict):
        return {key: _whole(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_whole(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT else value


def _origin(root: Node, key: str) -> str:
    node = root
    for part in key.split("."):
        if isinstance(node.value, dict) and part in node.value:
            node = node.value[part]
        elif isinstance(node.value, list):
            node = node.value[int(part)]
        else:
            return DEFAULT
    items = node.value if isinstance(node.value, list) else []
    mixed = any(item.where != node.where and item.where == COMMAND_LINE for item in items)
    return ", ".join(dict.fromkeys([node.where, *(item.where for item in items)])) if mixed else node.where


def _family(path: Path, children: tuple[Path, ...]) -> Iterator[Node]:
    """The documents of a file and its parents, eldest first."""
    document = read_document(path)
    written = dict(document.value) if isinstance(document.value, dict) else {}
    parent = written.pop("extends", None)
    if parent is not None:
        yield from _family(_parent(parent, path, (*children, path)), (*children, path))
    yield Node(written, document.where)


def _parent(node: Node, path: Path, line: tuple[Path, ...]) -> Path:
    def fault(text: str) -> SpecError:
        return SpecError([problem(node.where, text, key="extends", value=node.plain())])

    if not isinstance(node.value, str) or not node.value.strip():
        raise fault("should be the path of one YAML file, relative to this one, or the name of a shipped recipe")
    found = path.parent / node.value
    if not found.is_file() and node.value in (shipped := shipped_recipes()):
        found = shipped[node.value]
    if not found.is_file():
        siblings = [file.name for file in sorted(path.parent.glob("*.yaml")) if file.name != path.name]
        guess = difflib.get_close_matches(node.value, siblings, n=1)
        raise fault(f"no such file: {found}" + (f"; did you mean {guess[0]!r}?" if guess else ""))
    if found.resolve() in [file.resolve() for file in line]:
        raise fault("a circle: " + " extends ".join(display(file) for file in (*line, found)))
    return found


def read_document(path: Path) -> Node:
    """The map that a YAML file holds, without its parents.

    Raises:
        SpecError: It is empty, no YAML, or no map.
        VlkitError: It cannot be read.
    """
    name = display(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise VlkitError(f"cannot read {path}: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{name}:{raw.count(bytes([10]), 0, error.start) + 1}"
        raise SpecError([problem(where, "this is not UTF-8; save the file in that encoding")]) from error
    document = parse(text, source=name)
    if document is None or document.value is None:
        raise SpecError([problem(f"{name}:1", "the file holds no keys")])
    if not isinstance(document.value, dict):
        raise SpecError([problem(document.where, "the file should hold a map: lines of key: value")])
    return document


def display(path: Path) -> str:
    """A path as messages show it: relative to the current folder where it lies below that."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except (ValueError, FileNotFoundError):  # the current folder may be gone
        return str(path)


def find_recipe(path_or_name: str | Path) -> Path:
    """The file of a recipe, given by path or by the name of a shipped one.

    Raises:
        UnknownName: There is neither.
        VlkitError: It is a folder.
    """
    return _find(path_or_name, "recipe", shipped_recipes(), folder="recipes", hint="vlkit list recipes")


def find_suite(path_or_name: str | Path) -> Path:
    """The file of an evaluation suite; see ``find_recipe``."""
    return _find(path_or_name, "suite", shipped_suites(), folder="eval", hint="vlkit list suites")


def shipped_recipes() -> dict[str, Path]:
    """Name to file of the recipes that come with vlkit; files that start with `_` are only there to be extended."""
    folder = packaged("recipes")
    return {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for file in sorted(folder.rglob("*.yaml"))
        if not file.name.startswith("_")
    }


def shipped_suites() -> dict[str, Path]:
    """Name to file of the evaluation suites that come with vlkit."""
    return {file.stem: file for file in sorted(packaged("eval").glob("*.yaml"))}


def _find(path_or_name: str | Path, what: str, shipped: Mapping[str, Path], *, folder: str, hint: str) -> Path:
    path, name = local_path(path_or_name), str(path_or_name)
    if path.is_file():
        return path
    if (key := name.removesuffix(".yaml").removeprefix(f"{folder}/")) in shipped:
        return shipped[key]
    if path.is_dir():
        inside = sorted(str(file) for file in path.glob("*.yaml"))
        raise VlkitError(f"{name} is a folder; {did_you_mean(name, inside) or 'give a YAML file'}")
    raise UnknownName(what, name, allowed=shipped, hint=f"(a {what} is the path of a YAML file, or a name of: {hint})")


def dump_yaml(spec: Spec) -> str:
    """A spec as YAML with every default written out; it loads back to an equal spec."""
    return "".join(line + "\n" for line, _ in block_lines(spec.model_dump(mode="json")))
