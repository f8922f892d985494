"""The docs site: it builds without a warning, describes all that is public and loads nothing from another host."""

from __future__ import annotations

import importlib.util
import re
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest

import vlkit
from tests.docs.pages import ROOT
from vlkit import types
from vlkit.cli.app import COMMANDS
from vlkit.spec.load import shipped_recipes, shipped_suites

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it; a warning ends the build."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.chdir(ROOT)
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_all_that_is_public_is_described(site: Path) -> None:
    api = (site / "reference/api.html").read_text(encoding="utf-8")
    described = set(re.findall(r'id="(vlkit\.[\w.]+)"', api))
    assert {f"vlkit.{name}" for name in vlkit.__all__ if name != "__version__"} <= described
    assert "_default" not in api
    assert {f"vlkit.types.{name}" for name in types.__all__ if name[0].isupper() and name != "IMAGE_MARK"} <= described
    commands = (site / "reference/cli.html").read_text(encoding="utf-8")
    assert set(COMMANDS) <= set(re.findall(r'<h2 id="vlkit-([\w-]+)">', commands))
    assert "auto|cpu|cuda|mps" in unescape(commands)  # choices are shown as they are typed
    for page, names in (("recipes", shipped_recipes()), ("suites", shipped_suites())):
        text = (site / f"reference/{page}.html").read_text(encoding="utf-8")
        assert set(names) <= set(re.findall(r"<td><code>([^<]+)</code></td>", text))


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 35
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?([^\s\"'>]+)", text)
        loaded += re.findall(r"<link\b(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?([^\s\"'>]+)", text)
        assert [one for one in loaded if re.match(r"(https?:)?//", one)] == [], page
    for sheet in site.rglob("*.css"):
        assert re.findall(r"url\(['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")) == [], sheet


def test_no_mark_and_no_markdown_is_left(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "generated:" not in text, page
        assert not re.search(r"<p>(?:::: |- |\| )", text), page  # a list or table that lacks the line before it


def test_links_out_of_docs_are_turned(hook: ModuleType) -> None:
    assert hook.turned("[a](../CONTRIBUTING.md#add)", "faq.md") == "[a](contributing.md#add)"
    assert hook.turned("[a](../../CONTRIBUTING.md)", "how_to/x.md") == "[a](../contributing.md)"
    assert hook.turned("[a](docs/faq.md)", "contributing.md") == "[a](faq.md)"
    assert hook.turned("[a](../README.md#limits)", "faq.md") == "[a](overview.md#limits)"
    assert hook.turned("[a](data.md) [b](https://x.org/a)", "faq.md") == "[a](data.md) [b](https://x.org/a)"
    with pytest.raises(KeyError):
        hook.filled("<!-- generated: nothing -->")
