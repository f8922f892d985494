"""Answers while they are written: nothing is lost, errors come through, nobody writes for visitors who have gone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from vlkit.demo.writing import growing
from vlkit.errors import VlkitError


def test_the_text_grows_and_ends_as_a_whole() -> None:
    def write(take: Callable[[str], None]) -> str:
        for piece in ("Ni ", "nyani", "."):
            take(piece)
        return "Ni nyani."

    *before, last = growing(write)
    assert last == ("Ni nyani.", True)
    assert all("Ni nyani.".startswith(text) and not whole for text, whole in before)


def test_a_piece_is_shown_before_the_next_one_is_there() -> None:
    seen = threading.Event()

    def write(take: Callable[[str], None]) -> str:
        take("one")
        assert seen.wait(10)
        return "one two"

    text = growing(write)
    assert next(text) == ("one", False)
    seen.set()
    assert list(text)[-1] == ("one two", True)


def test_errors_come_through() -> None:
    def write(take: Callable[[str], None]) -> str:
        take("one")
        raise VlkitError("does not fit")

    with pytest.raises(VlkitError, match="does not fit"):
        list(growing(write))


def test_a_model_stops_once_nobody_reads_on() -> None:
    ended, first = threading.Event(), threading.Event()

    def write(take: Callable[[str], None]) -> str:
        try:
            while not ended.is_set():
                take("more")
                first.wait(10)
        finally:
            ended.set()
        return ""

    text = growing(write)
    next(text)
    text.close()  # type: ignore[attr-defined]
    first.set()
    assert ended.wait(10)
