"""The lazy root: every public name is there, and is the one its module defines."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import vlkit


@pytest.mark.parametrize("name", vlkit.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(vlkit, name) is not None
    assert name in dir(vlkit)


def test_names_are_those_of_their_modules() -> None:
    for name, home in vlkit._HOMES.items():
        assert name in vlkit.__all__
        assert getattr(vlkit, name) is getattr(importlib.import_module(home), name)


def test_an_unknown_name_answers_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"^module 'vlkit' has no attribute 'lod'; did you mean 'load'\?$"):
        vlkit.lod  # noqa: B018
    assert not hasattr(vlkit, "__wrapped__")


@pytest.mark.parametrize("first", ["import vlkit.training.loop", "vlkit.train", "from vlkit import train"])
def test_train_is_callable_whatever_is_imported_first(first: str) -> None:
    code = f"""
import vlkit
{first}
import vlkit.training.loop as loop
from vlkit import train
assert callable(train) and callable(vlkit.train) and callable(loop.train)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
