"""How boxes lie to each other, with synthetic ones: clear, diagonal, level, and the slack of their sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlkit.evaluation.composition.boxes import FoundObject, relations


def at(x: float, y: float, *, width: float = 10, height: float = 10) -> FoundObject:
    return FoundObject("thing", 0.9, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        (at(0, 50), at(100, 50), {"left of"}),
        (at(100, 50), at(0, 50), {"right of"}),
        (at(50, 0), at(50, 100), {"above"}),
        (at(50, 100), at(50, 0), {"below"}),
        (at(0, 0), at(100, 100), {"left of", "above"}),
        (at(0, 0), at(100, 20), {"left of"}),  # of an offset of 102, 20 is not half
        (at(50, 50), at(50, 50), set()),
        (at(50, 50), at(51.9, 50), set()),  # a tenth of both sizes is 2
        (at(50, 50), at(54, 50), set()),  # 4 less 2 is just half of 4
        (at(50, 50), at(54.1, 50), {"left of"}),
        (at(50, 50, width=100), at(80, 50, width=100), set()),  # 30 less 20 is a third of 30
    ],
)
def test_relations_are_those_of_the_rule(one: FoundObject, other: FoundObject, wanted: set[str]) -> None:
    assert relations(one, other) == wanted


_SIDE = st.floats(min_value=0, max_value=1000)
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@given(_SIDE, _SIDE, _SIDE, _SIDE)
def test_what_is_left_has_the_other_at_its_right(x: float, y: float, other_x: float, other_y: float) -> None:
    one, other = at(x, y), at(other_x, other_y, width=30)
    assert {_OPPOSITE[found] for found in relations(one, other)} == relations(other, one)


def test_corners_may_be_given_in_any_order() -> None:
    turned = FoundObject("thing", 0.9, (10, 10, 0, 0))
    assert turned.center == (5, 5) and turned.size == (10, 10)
