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


@pytest.mark.parametrize("target", ["help", "quickstart", "test", "wheel", "docs", "lint", "clean"])
def test_contributing_names_real_make_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"make {target}" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "eval/README.md", "data/README.md")]
_PAGES += sorted((ROOT / "docs").rglob("*.md"))
_PATH = r"(?:vlkit|tests|recipes|data|eval|docs|tools)/[\w./-]+"


def _names_in(path: Path) -> set[str]:
    """All that a module defines or brings in, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
    return names


def _exists(dotted: str) -> bool:
    """Whether ``vlkit.x.y`` is a module, or a name in one; nothing is imported."""
    place, rest = ROOT, dotted.split(".")
    while rest and (place / rest[0]).is_dir():
        place, rest = place / rest[0], rest[1:]
    if rest and (place / f"{rest[0]}.py").is_file():
        return set(rest[1:]) <= _names_in(place / f"{rest[0]}.py")
    return set(rest) <= _names_in(place / "__init__.py")


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_of_the_package_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"`({_PATH})`", text))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    dotted = set(re.findall(r"(?<![\w.:/])vlkit(?:\.[A-Za-z]\w*)+", text))
    assert [name for name in sorted(dotted) if not _exists(name)] == []
    # "`build` (`vlkit/models/registry.py`)" and "`build` of `vlkit/models/registry.py`"
    placed = re.findall(r"`(\w+)(?:\([^`]*\))?`\s+(?:of\s+|\()`(vlkit/[\w/]+\.py)`", text)
    assert [(name, path) for name, path in placed if name not in _names_in(ROOT / path)] == []


def _headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_into_pages_lead_to_a_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    homes = [((page.parent / target).resolve() if target else page, anchor) for target, anchor in links]
    assert [anchor for home, anchor in homes if home.suffix == ".md" and anchor not in _headings(home)] == []


def test_pages_name_enough_for_the_test_above_to_see() -> None:
    for page, least in (("CONTRIBUTING.md", 10), ("docs/architecture.md", 40)):
        assert len(set(re.findall(rf"`({_PATH})`", (ROOT / page).read_text(encoding="utf-8")))) > least
    assert _exists("vlkit.models.registry.build") and _exists("vlkit.types.Sample") and _exists("vlkit.load")
    assert not any(map(_exists, ("vlkit.train.loop", "vlkit.models.registry.built", "vlkit.loaded")))


# imported beside the package that brings them along, whose interface they are a part of
_BROUGHT = {
    "annotated-types": "pydantic", "pydantic-core": "pydantic", "tokenizers": "transformers", "markupsafe": "jinja2",
    "triton": "torch", "datasets": "mteb", "packaging": "transformers",
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
