"""The seams: training, evaluation and the command line work for every kind of model, and never ask which one they have.

Run from the root of the repository: ``python tools/check_seams.py``. In the packages of ``BLIND`` it is an error to
- import from the folder of a kind of model (``vlkit.models.dual_encoder``),
- ask whether something is an instance of a kind's class (``isinstance(model, DualEncoder)``),
- name a part of a model by a literal: ``model.image``, ``model.get_submodule("text")``, ``parts["image_head"]``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

BLIND = ("training", "evaluation", "cli", "demo")
_MODELS = ("model", "home", "student", "loaded")  # what a model is called in the code
_BY_NAME = ("get_submodule", "part_parameters", "freeze", "unfreeze", "getattr", "setattr", "hasattr", "table")
_TABLES = ("parts", "tables", "adapters")


def kinds(root: Path) -> tuple[dict[str, str], set[str]]:
    """Packages of the kinds with the classes of their models, and the names of all their parts."""
    classes: dict[str, str] = {}
    parts: set[str] = set()
    for path in sorted((root / "vlkit" / "models").glob("*/model.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "nn.Module" for base in node.bases):
                classes[node.name] = f"vlkit.models.{path.parent.name}"
                parts |= set(_parts(node))
    return classes, parts


def _parts(model: ast.ClassDef) -> Iterator[str]:
    """Names that the constructor gives to modules: its arguments that it keeps under the same name."""
    for init in (node for node in model.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"):
        arguments = {
            argument.arg: ast.unparse(argument.annotation) if argument.annotation is not None else ""
            for argument in (*init.args.args, *init.args.kwonlyargs)
        }
        yield from (name for name, annotation in arguments.items() if "Module" in annotation)


def problems(root: Path) -> list[str]:
    """All places that ask what they should not know, with the line and what to do."""
    classes, parts = kinds(root)
    found = []
    for package in BLIND:
        for path in sorted((root / "vlkit" / package).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += [f"{name}:{line}: {text}" for line, text in sorted(_faults(tree, classes, parts))]
    return found


def _faults(tree: ast.AST, classes: dict[str, str], parts: set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(tuple(classes.values())):
            yield node.lineno, f"{node.module} is one kind of model's; ask models.registry or a protocol of vlkit.types"
        elif isinstance(node, ast.Call):
            yield from _call(node, classes, parts)
        elif isinstance(node, ast.Attribute) and node.attr in parts and _is_model(node.value):
            yield node.lineno, f"{ast.unparse(node)} names a part; go through parts(), or ask a protocol of vlkit.types"
        elif isinstance(node, ast.Subscript) and _literal(node.slice) in parts and _last(node.value) in _TABLES:
            yield node.lineno, f"{ast.unparse(node)} names a part; take the name from the recipe or from parts()"


def _call(node: ast.Call, classes: dict[str, str], parts: set[str]) -> Iterator[tuple[int, str]]:
    called = _last(node.func)
    if called == "isinstance" and len(node.args) == 2:
        asked = {_last(one) for one in ast.walk(node.args[1])}
        for name in sorted(asked & classes.keys()):
            yield node.lineno, f"isinstance of {name} asks what kind a model is; ask a protocol of vlkit.types"
    elif called in _BY_NAME:
        for argument in node.args:
            if _literal(argument) in parts:
                yield node.lineno, f"{ast.unparse(node)} names a part; take the name from the recipe or from parts()"


def _is_model(node: ast.expr) -> bool:
    return _last(node) in _MODELS


def _last(node: ast.AST) -> str:
    """The last name of ``a.b.c``, ``c()`` or ``c``."""
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _literal(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def main(root: Path) -> int:
    """Prints the problems; the number to exit with."""
    found = problems(root)
    print("\n".join(found) if found else f"{', '.join(BLIND)} ask no model what it is")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
