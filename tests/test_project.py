"""What a release says of itself agrees: the version, the change log, the packaged files."""

from __future__ import annotations

import re
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
