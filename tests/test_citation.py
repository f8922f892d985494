"""The citation file says of the package what the package says of itself."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML

from tests.docs.pages import ROOT


def test_the_citation_agrees_with_the_package() -> None:
    cited: dict[str, Any] = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)  # what version 1.2.0 of the format asks for
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for shown in (f'name = "{cited["title"]}"', f'license = "{cited["license"]}"'):
        assert shown in project
    assert f'description = "{cited["abstract"].removesuffix(".")}"' in project
