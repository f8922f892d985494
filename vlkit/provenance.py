"""What a result may hang on: versions, machine, weights, data; for run folders and results of all kinds."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

from vlkit.version import __version__

_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "open_clip_torch", "numpy", "pillow", "safetensors")


def environment() -> dict[str, Any]:
    """Versions and machine; libraries that are not installed are left out."""
    return {
        "vlkit": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
    }


def provenance(
    *,
    models: Mapping[str, str],
    seed: int,
    languages: Sequence[str],
    prompts: Mapping[str, str] | str,
    data_digest: str,
    seconds: float,
    **more: Any,
) -> dict[str, Any]:
    """What a results file must say about its making.

    ``models`` goes from variant to digest of its weights; ``seed`` is that of the run and of the bootstrap; ``prompts``
    are what stood for a class, for all or by task; ``data_digest`` is ``Task.digest``; ``seconds`` wall time.
    """
    return {
        "vlkit": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "models": dict(models),
        "seed": seed,
        "languages": list(languages),
        "prompts": dict(prompts) if isinstance(prompts, Mapping) else prompts,
        "data_digest": data_digest,
        "seconds": round(seconds, 1),
        **environment(),
        **more,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
