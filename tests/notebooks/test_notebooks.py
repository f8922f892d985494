"""Each notebook runs from top to bottom, is kept without what it printed, and shows what it promises."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST = 22  # lines of a cell of code
SHOWN = {  # notebook -> the least pictures, tables and curves that it shows
    "build_and_realign": {"<img": 18, "<table": 4, "<polyline": 2},
    "evaluate_and_compare": {"<table": 4, "<svg": 2},
    "generate_images": {"<img": 60, "<table": 1, "<polyline": 1},
    "zero_shot_classification": {"<img": 18, "<table": 3, "<polyline": 1, "<svg": 1},
}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def sources(notebook: dict[str, Any], kind: str = "code") -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def code_of(source: str) -> str:
    """A cell as Python; those that write a file (``%%writefile``) hold none."""
    return "" if source.startswith("%%") else source


def test_all_notebooks_are_known_here_and_in_the_docs() -> None:
    assert {path.stem for path in NOTEBOOKS} == SHOWN.keys()
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert all(f"`notebooks/{path.name}`" in page for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        assert cell["metadata"] == {} and "".join(cell["source"]).strip()
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert path.read_text(encoding="utf-8") == json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_begin_with_words_and_write_into_a_folder_of_their_own(path: Path) -> None:
    notebook = read(path)
    first, *others = notebook["cells"]
    assert first["cell_type"] == "markdown" and first["source"][0].startswith("# ")
    assert others[0]["cell_type"] == "code" and "os.chdir(tempfile.mkdtemp(" in "".join(others[0]["source"])
    for source in sources(notebook):
        assert source.count("\n") < LONGEST, source
        ast.parse(code_of(source))
        assert not re.search(r"""["'](?:/|~/|[A-Z]:\\)""", source), source  # no place of somebody's machine
        assert not source.startswith(("!", "%pip")), source
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", "\n".join(sources(notebook, "markdown")))
    assert links and all((path.parent / link.partition("#")[0]).exists() for link in links)


def shown_in(notebook: Any) -> str:
    """All that a notebook shows, as HTML where there is some."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            found.append(data.get("text/html") or data.get("image/svg+xml") or data.get("text/plain") or "")
            found.append(output.get("text", ""))
    return "\n".join(found)


@pytest.mark.assets
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    _this_python(tmp_path / "kernels", monkeypatch)
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    notebook = nbformat.read(copy, as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    page = shown_in(notebook)
    for what, least in SHOWN[path.stem].items():
        assert page.count(what) >= least, (what, page.count(what))
    told = [output for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "error"]
    assert told == [] and "Warning" not in page


def _this_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is this very Python, whatever others the machine has."""
    place = folder / "kernels" / "python3"
    place.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(folder))
