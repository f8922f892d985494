"""What holds for every test: one thread of the CPU, the same seeds, no hub, and never the user's own cache.

Only tests marked ``assets`` use the real cache, so that pretrained parts are fetched once: the usual one, or the folder
``VLKIT_TEST_ASSETS`` names.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

_ASSETS = "VLKIT_TEST_ASSETS"
_NUMBERS = count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks first: they are the longest, and run beside all the others."""
    items.sort(key=lambda item: "notebooks/" not in item.nodeid)


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs are started so
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Before anything is imported that reads them, and inherited by the processes that tests start.
    os.environ.setdefault(_ASSETS, os.environ.get("VLKIT_HOME", ""))
    os.environ["VLKIT_HOME"] = str(Path(tempfile.gettempdir()) / "vlkit-tests-no-home")
    os.environ.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    for name in ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "GITHUB_ACTIONS", "COLUMNS", "VLKIT_TRACEBACK"):
        os.environ.pop(name, None)  # typer and rich read some of them when they are imported


@pytest.fixture(autouse=True)
def _surroundings(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if request.node.get_closest_marker("assets") is None:
        monkeypatch.setenv("VLKIT_HOME", str(tmp_path_factory.getbasetemp() / f"home-{next(_NUMBERS)}"))
    elif home := os.environ[_ASSETS]:
        monkeypatch.setenv("VLKIT_HOME", home)
    else:
        monkeypatch.delenv("VLKIT_HOME")
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
        sys.modules["torch"].set_num_threads(1)  # a conftest may have imported it before the variables were set


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """A command that was stopped hears no further signals; here the process goes on, and the next test has to."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
