"""The model that a command is about, on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlkit.cli.console import collector_off
from vlkit.errors import VlkitError

if TYPE_CHECKING:
    from vlkit.cli.options import DeviceName
    from vlkit.distributed.runtime import Runtime


@contextmanager
def loader(*, device: DeviceName, **wanted: Any) -> Iterator[tuple[Callable[[str], Any], Runtime]]:
    """What loads models one after the other, as ``vlkit.load`` takes them, and the processes of the job.

    ``wanted`` goes to ``vlkit.load``.
    """
    with collector_off():
        from vlkit.distributed.runtime import started
        from vlkit.models.folder import load
        from vlkit.spec.training import LoopSpec

    with started(LoopSpec(device=device)) as runtime:

        def ready(model: str) -> Any:
            with collector_off():
                return load(model, device=runtime.device, **wanted)

        yield ready, runtime


@contextmanager
def loaded(model: str, *, device: DeviceName, **wanted: Any) -> Iterator[tuple[Any, Runtime]]:
    """One model, and the processes of the job; see ``loader``."""
    with loader(device=device, **wanted) as (ready, runtime):
        yield ready(model), runtime


def find_model(named: str, default: Path, *, made_by: str) -> str:
    """The model that was named, or else the one of the job that a command goes with.

    Raises:
        VlkitError: None was named, and that one is not there.
    """
    if named:
        return named
    if not default.is_dir():
        raise VlkitError(f"there is no model in {default}; run `{made_by}` here first, or give --model PATH")
    return str(default)
