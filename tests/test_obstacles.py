"""What stands in the way is told at once."""

from __future__ import annotations

import pytest

from vlkit.errors import DataError, VlkitError
from vlkit.obstacles import Obstacles


def test_all_obstacles_are_raised_together() -> None:
    obstacles = Obstacles()
    with obstacles.met():
        done = 1
    obstacles.refuse()
    for error in (DataError("one"), VlkitError("two\nthree")):
        with obstacles.met():
            raise error
    assert done == 1 and obstacles.found == ["one", "two", "three"]
    with pytest.raises(VlkitError, match=r"^one\ntwo\nthree$"):
        obstacles.refuse()


def test_what_is_met_alone_is_raised_as_it_was_and_nothing_is_told_twice() -> None:
    obstacles = Obstacles()
    with obstacles.met():
        raise DataError("one")
    with pytest.raises(DataError, match=r"^one$"):
        obstacles.refuse()
    with obstacles.met():
        raise VlkitError("two\none")
    assert obstacles.found == ["one", "two"]


def test_other_errors_are_not_held() -> None:
    with pytest.raises(KeyError), Obstacles().met():
        raise KeyError("x")
