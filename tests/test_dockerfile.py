"""The Dockerfile: its steps are well formed, what it copies is there and is enough to build the wheel."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.test_wheel import wanted

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
KNOWN = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"}


def steps(text: str) -> list[tuple[str, str]]:
    """Each instruction and its value, in order."""
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def command(value: str) -> str:
    """What a RUN step runs, without its mounts."""
    return re.sub(r"^(--mount=\S+\s+)+", "", value)


STEPS = steps(TEXT)
COPIED = [value.split() for name, value in STEPS if name == "COPY"]


def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found


def test_steps_are_known_and_shells_read_them() -> None:
    assert {name for name, _ in STEPS} == KNOWN and STEPS[0][0] == "FROM"
    runs = [command(value) for name, value in STEPS if name == "RUN"]
    assert len(runs) >= 3
    for one in runs:
        assert subprocess.run(["sh", "-nc", one], capture_output=True, text=True, check=False).stderr == "", one


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    sources = [source for *names, _ in COPIED for source in names]
    assert sources and all((ROOT / source).exists() for source in sources)
    assert not [source for source in sources for pattern in ignored if fnmatch.fnmatch(source, pattern)]


def test_the_image_fits_the_project() -> None:
    values = dict(STEPS)  # the last of each name
    described = project()["project"]
    arguments = dict(value.split("=", 1) for name, value in STEPS if name == "ARG")
    assert arguments["EXTRAS"] in described["optional-dependencies"]
    assert values["ENTRYPOINT"] == '["vlkit"]' and "vlkit" in described["scripts"]
    assert not values["USER"].startswith(("0", "root"))
    bases = [tuple(map(int, version)) for version in re.findall(r"^FROM python:(\d+)\.(\d+)", TEXT, re.MULTILINE)]
    least = tuple(map(int, re.findall(r"\d+", described["requires-python"])))
    assert len(set(bases)) == 1 and all(base >= least for base in bases)


def test_what_is_copied_builds_the_wheel(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for *names, target in COPIED:
        for name in names:
            place = source / (name if target == "./" else target)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place)
    (run,) = [command(value) for name, value in STEPS if name == "RUN" and "python -m build" in value]
    build = run.partition("&&")[2].strip().replace("/dist", str(tmp_path / "dist"))
    assert build.startswith("python -m build --wheel")
    # with the build backend of this environment, which is fetched otherwise
    subprocess.run([sys.executable, *build.split()[1:], "--no-isolation"], cwd=source, check=True, capture_output=True)
    (made,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted()
