"""What a release says of itself agrees: the version, the change log, the packaged files."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from vlkit.version import __version__

ROOT = Path(__file__).parents[1]


def test_the_change_log_starts_with_this_version() -> None:
    entries = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert entries[0] == __version__ and len(entries) == len(set(entries))


def test_what_the_build_packs_exists() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packed = re.findall(r'^"(\w+)" = "vlkit/_(\w+)"$', text, re.MULTILINE)
    assert packed == [("recipes", "recipes"), ("data", "data"), ("eval", "eval")]
    assert all(any((ROOT / folder).rglob("*.*")) for folder, _ in packed)


@pytest.mark.parametrize("target", ["help", "quickstart", "test", "lint", "clean"])
def test_contributing_names_real_make_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"make {target}" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_paths_named_in_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:vlkit|tests|recipes|data|tools)/[\w./]+)`", text))
    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


# imported beside the package that brings them along, whose interface they are a part of
_BROUGHT = {
    "annotated-types": "pydantic", "pydantic-core": "pydantic", "tokenizers": "transformers", "markupsafe": "jinja2",
    "triton": "torch", "datasets": "mteb",
}  # fmt: skip


def _plain(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0]).lower()


def _imported() -> set[str]:
    roots: set[str] = set()
    for path in (ROOT / "vlkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                roots.add(node.module.partition(".")[0])
    return roots - {"vlkit"} - sys.stdlib_module_names


def test_core_dependencies_are_those_the_package_imports() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {_plain(name) for name in project["dependencies"]}
    extra = {_plain(name) for names in project["optional-dependencies"].values() for name in names} - {"vlkit"}
    owners = metadata.packages_distributions()
    imported = {root: {_plain(name) for name in owners.get(root, [root])} for root in _imported()}
    assert core <= set().union(*imported.values())
    assert not core & extra
    strange = {root for root, names in imported.items() if not names & (core | extra)}
    assert {_plain(root) for root in strange} == set(_BROUGHT)
    for brought, by in _BROUGHT.items():
        assert by in core | extra
        if brought != "triton":  # torch needs it on some platforms only
            assert brought in {_plain(name) for name in metadata.requires(by) or ()}
