"""The wheel that `make wheel` built: all of the package is in it, and it works where nothing else of vlkit is."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.helpers.train_factory import drawings
from vlkit.spec.load import shipped_recipes, shipped_suites
from vlkit.version import __version__

DIST = os.environ.get("VLKIT_DIST", "")
pytestmark = pytest.mark.skipif(not DIST, reason="needs what make wheel builds")
ROOT = Path(__file__).parents[1]
FOLDERS = {"vlkit": "vlkit", "recipes": "vlkit/_recipes", "data": "vlkit/_data", "eval": "vlkit/_eval"}
"""Folders of the repository and where they lie in the wheel."""


def built(ending: str) -> Path:
    (found,) = Path(DIST).resolve().glob(f"vlkit-{__version__}{ending}")
    return found


def wanted() -> dict[str, bytes]:
    """Every file of the repository that belongs into the wheel, under its name there."""
    return {
        f"{there}/{path.relative_to(ROOT / here).as_posix()}": path.read_bytes()
        for here, there in FOLDERS.items()
        for path in (ROOT / here).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    about = f"vlkit-{__version__}.dist-info/"
    with zipfile.ZipFile(built("-py3-none-any.whl")) as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist() if not name.startswith(about)}
        meta = Parser().parsestr(wheel.read(f"{about}METADATA").decode())
        assert {f"{about}licenses/LICENSE", f"{about}entry_points.txt"} <= set(wheel.namelist())
    assert held == wanted()
    assert {"vlkit/py.typed", "vlkit/_recipes/contrastive/tiny.yaml", "vlkit/_data/languages.csv"} <= set(held)
    assert meta["Version"] == __version__ and meta["License-Expression"] == "Apache-2.0"
    assert meta["Requires-Python"] == ">=3.10" and "Typing :: Typed" in meta.get_all("Classifier", [])


def test_the_source_archive_builds_and_tests_itself() -> None:
    with tarfile.open(built(".tar.gz")) as archive:
        held = {member.name.partition("/")[2] for member in archive.getmembers()}
    needed = {path.relative_to(ROOT).as_posix() for here in FOLDERS for path in (ROOT / here).rglob("*.py")}
    assert needed | {"pyproject.toml", "LICENSE", "Makefile", "Dockerfile", "tests/test_wheel.py"} <= held
    assert {"docs/interop.md", "tools/check_size.py", ".ci/run"} <= held
    assert not [name for name in held if name.endswith((".pyc", ".safetensors"))]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it.

    What vlkit needs (torch and the like) is seen through a line in a .pth file and not downloaded again; it comes after
    the environment's own packages, so that the vlkit that is imported is the wheel's.
    """
    folder = tmp_path_factory.mktemp("clean") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(built("-py3-none-any.whl"))], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder


def run(command: list[str | Path], *, where: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of the clean environment in a folder that has nothing of the repository."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(list(map(str, command)), cwd=where, env=kept, capture_output=True, text=True, check=False)


def test_the_installed_command_knows_its_recipes_and_suites(clean: Path, tmp_path: Path) -> None:
    imported = run([clean / "bin/python", "-c", "import vlkit; print(vlkit.__file__)"], where=tmp_path)
    assert Path(imported.stdout.strip()).is_relative_to(clean), imported
    assert run([clean / "bin/vlkit", "--version"], where=tmp_path).stdout == f"vlkit {__version__}\n"
    for what, names in (("recipes", shipped_recipes()), ("suites", shipped_suites())):
        listed = run([clean / "bin/vlkit", "list", what], where=tmp_path)
        assert listed.returncode == 0 and names, listed.stderr
        assert set(names) <= {line.split()[0] for line in listed.stdout.splitlines() if line.split()}


def test_a_recipe_trains_by_its_name(clean: Path, tmp_path: Path) -> None:
    table = drawings(tmp_path / "drawings")
    overrides = [f"data.sources=[{{kind: folder, path: {table}}}]", "loop.batch_size=6", "data.holdout_concepts=0"]
    overrides += ["stages=[{name: heads, trainable: [image_head, text_head], steps: 2}]"]
    ran = run([clean / "bin/vlkit", "train", "contrastive/tiny", *overrides], where=tmp_path)
    assert ran.returncode == 0, ran.stderr
    inspected = run([clean / "bin/vlkit", "inspect", "runs/contrastive-tiny/model", "--json"], where=tmp_path)
    assert inspected.returncode == 0 and '"dual_encoder"' in inspected.stdout, inspected


def test_types_are_seen_by_who_uses_the_package(clean: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "mine.py").write_text(
        "import vlkit\n\nreveal_type(vlkit.list_models)\nvlkit.list_models(no_such=1)\n", encoding="utf-8"
    )
    # libraries that are imported by vlkit are left out: they would take a minute
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n[mypy-torch.*,transformers.*,numpy.*,PIL.*,pydantic.*,datasets.*]\n"
        "follow_imports = skip\nignore_missing_imports = true\n",
        encoding="utf-8",
    )
    checked = run(
        [sys.executable, "-m", "mypy", "--python-executable", clean / "bin/python", "mine.py"], where=tmp_path
    )
    assert "list[vlkit" in checked.stdout, checked  # not Any
    assert 'Unexpected keyword argument "no_such"' in checked.stdout and "py.typed" not in checked.stdout
