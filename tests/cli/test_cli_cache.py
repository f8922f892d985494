"""`vlkit cache` and `vlkit doctor`: what is kept, what is removed, what is missing."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vlkit.cli.app import app
from vlkit.cli.cache import KEPT
from vlkit.version import __version__


def run(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=answer)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with something of each kind, and with files and a link that are not vlkit's."""
    home = tmp_path / "home"
    monkeypatch.setenv("VLKIT_HOME", str(home))
    for name, content in (
        ("assets/timm/net/model.safetensors", 2_000_000),
        ("features/0123456789abcdef/fedcba9876543210.safetensors", 500_000),
        ("index/0123456789abcdef.json", 10),
        ("data/openmoji-0123456789abcdef/openmoji-0000.tar", 100_000),
        ("data/mine/photo.jpg", 7),
        ("notes.txt", 3),
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(bytes(content))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/big.bin").write_bytes(bytes(1000))
    (home / "features/aaaaaaaaaaaaaaaa").symlink_to(tmp_path / "elsewhere")
    return home


def test_list_counts_what_vlkit_made(kept: Path) -> None:
    found = json.loads(run("cache", "list", "--json").stdout)
    assert found["home"] == str(kept) and set(found["kept"]) == set(KEPT)
    assert found["kept"]["assets"] == {"files": 1, "bytes": 2_000_000}
    assert found["kept"]["data"] == {"files": 1, "bytes": 100_000}
    assert found["kept"]["wheels"] == {"files": 0, "bytes": 0}
    shown = run("cache", "list").stdout
    assert ["assets", "1", "2.0"] in [line.split()[:3] for line in shown.splitlines()]


def test_clear_asks_and_removes_what_was_named_alone(kept: Path, tmp_path: Path) -> None:
    refused = run("cache", "clear", "features", answer="n\n")
    assert refused.exit_code == 1 and "remove features (0.5 MB)" in refused.output
    assert (kept / "features/0123456789abcdef").exists()

    done = run("cache", "clear", "features", "data", "--yes")
    assert done.exit_code == 0 and f"removed 0.6 MB from {kept}" in done.output
    assert f"left in {kept / 'data'}, since vlkit did not make it: mine" in done.output
    assert not any((kept / "features").iterdir()) and (tmp_path / "elsewhere/big.bin").exists()
    assert (kept / "assets/timm/net/model.safetensors").exists() and (kept / "data/mine/photo.jpg").exists()

    assert run("cache", "clear", "all", "-y").exit_code == 0
    assert sorted(path.name for path in kept.rglob("*") if path.is_file()) == ["notes.txt", "photo.jpg"]
    assert run("cache", "clear", "all").stdout == f"nothing is kept in {kept} under all\n"


def test_clear_refuses_names_that_are_none_and_the_home_of_a_user(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = run("cache", "clear", "feature")
    assert wrong.exit_code == 2 and "no cache 'feature'; did you mean 'features'?" in wrong.stderr
    monkeypatch.setenv("HOME", str(kept))
    home = run("cache", "clear", "all", "--yes")
    assert home.exit_code == 2 and f"VLKIT_HOME is {kept}, which is not vlkit's alone" in home.stderr
    assert (kept / "assets/timm/net/model.safetensors").exists()


def test_doctor_says_what_is_there(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.output
    found = {one["about"]: one for one in json.loads(result.stdout)}
    assert (
        found["vlkit"]["said"].startswith(__version__)
        and f"torch {importlib.metadata.version('torch')}" in (found["libraries"]["said"])
    )
    assert found["cache"]["said"].startswith(f"{kept}: 2.6 MB kept, ")
    assert found["hub"] == {"about": "hub", "state": "note", "said": "not asked: HF_HUB_OFFLINE=1 is set"}
    assert found["timm:tf_efficientnet_lite0.in1k"]["said"].startswith("not in the cache; takes ")
    assert "vlkit can run here" in run("doctor").stdout


def test_doctor_says_what_is_missing_and_how_to_get_it(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("timm", "gguf"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.0" if name == "torch" else there(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = run("doctor", "--json")
    found = {one["about"]: (one["state"], one["said"]) for one in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert found["timm>=1.0.16"] == ("wrong", "not installed; run: pip install 'timm>=1.0.16'")
    assert found["torch>=2.4"] == ("wrong", "version 2.0 does not do; run: pip install 'torch>=2.4'")
    assert found["gguf"] == ("note", "not installed; run: pip install 'gguf>=0.10'")


def test_doctor_sees_a_cache_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = run("doctor")
    assert result.exit_code == 1 and "cannot be written to (Not a directory); set VLKIT_HOME" in result.stdout
