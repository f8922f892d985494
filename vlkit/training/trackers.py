"""Where the figures of a run go beside its metrics.jsonl: tensorboard, wandb, trackio."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from vlkit.errors import VlkitError, pip_install
from vlkit.files import digest
from vlkit.registry import Registry

TRACKERS = Registry(
    "tracker",
    {
        "tensorboard": "vlkit.training.trackers:TensorBoard",
        "wandb": "vlkit.training.trackers:RemoteTracker",
        "trackio": "vlkit.training.trackers:RemoteTracker",
    },
)


class Tracker(Protocol):
    """Takes the figures of a run; made and called by the first process alone."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures by name after step ``step``."""

    def close(self) -> None:
        """The run has ended, well or not."""


class TensorBoard:
    """Event files below the run folder, for ``tensorboard --logdir``."""

    def __init__(self, kind: str, folder: Path, name: str, recipe: Mapping[str, Any]) -> None:
        self._writer: Any = self.require(kind).SummaryWriter(str(folder / kind))

    @staticmethod
    def require(kind: str) -> Any:
        """Its library.

        Raises:
            VlkitError: It is not installed.
        """
        return _library("torch.utils.tensorboard", kind)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        for key, value in figures.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """See ``Tracker``."""
        self._writer.close()


class RemoteTracker:
    """A library with wandb's interface; a resumed run goes on in the same entry: wandb by an id of name and folder."""

    def __init__(self, kind: str, folder: Path, name: str, recipe: Mapping[str, Any]) -> None:
        self._library = self.require(kind)
        own = {"dir": str(folder), "id": digest([name, str(folder.resolve())])} if kind == "wandb" else {}
        self._library.init(project="vlkit", name=name, config=dict(recipe), resume="allow", **own)

    @staticmethod
    def require(kind: str) -> Any:
        """See ``TensorBoard.require``."""
        return _library(kind, kind)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self._library.log(dict(figures), step=step)

    def close(self) -> None:
        """See ``Tracker``."""
        self._library.finish()


def scalars(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a line of metrics.jsonl; those of a map within it under ``map/key``."""
    found: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            found |= scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key != "step":
            found[prefix + key] = float(value)
    return found


def _library(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise VlkitError(
            f"run.trackers = {extra} needs a package that is not installed ({error}); {pip_install(extra)}, or leave "
            f"it out: metrics.jsonl is always written"
        ) from error
