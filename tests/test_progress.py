"""Progress is said on standard error, in lines where there is no terminal, and never changes what is iterated over."""

from __future__ import annotations

import io
import re
import sys

import pytest

from vlkit import progress
from vlkit.progress import bar, track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time progress sees; tests move it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err.splitlines()


def test_a_line_every_ten_seconds_and_one_at_the_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bar("steps", total=40, unit="steps") as shown:
        for step in range(40):
            clock[0] += 0.5
            shown.advance(loss=f"{step / 10:.1f}")
    assert lines(capsys) == [
        "steps: 20/40 steps, 2.0 steps/s, 10 s left, loss 1.9",
        "steps: 40/40 steps, 2.0 steps/s, loss 3.9",
        "steps: 40/40 steps, 2.0 steps/s, took 20.0 s, loss 3.9",
    ]


def test_without_a_total(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bar("pages", total=None, unit="pages") as shown:
        clock[0] += 4
        shown.advance(2)
    assert lines(capsys) == ["pages: 2 pages, 0.5 pages/s, took 4.0 s"]


@pytest.mark.parametrize(
    ("total", "text"),
    [
        (900, "450.0/900.0 bytes, 225.0 bytes/s"),
        (3_000, "1.5/3.0 kB, 750.0 bytes/s"),
        (118_000_000, "59.0/118.0 MB, 29.5 MB/s"),
        (2_500_000_000, "1.2/2.5 GB, 625.0 MB/s"),
    ],
)
def test_bytes_are_readable(clock: list[float], capsys: pytest.CaptureFixture[str], total: int, text: str) -> None:
    with bar("fetching", total=total, unit="bytes") as shown:
        clock[0] += 2
        shown.advance(total // 2)
    assert lines(capsys) == [f"fetching: {text}, took 2.0 s"]


def test_percents_have_no_rate(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with bar("converting", total=100, unit="%") as shown:
        clock[0] += 10
        shown.advance(25)
    assert lines(capsys) == ["converting: 25 %, 30 s left", "converting: 25 %, took 10.0 s"]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), "x", quiet=True)) == [0, 1, 2]
    assert lines(capsys) == []


def test_track_yields_all_and_takes_the_length_where_there_is_one(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    clock[0] = 0.0
    assert list(track([5, 6], "a")) == [5, 6] and list(track(iter([5, 6]), "b")) == [5, 6]
    assert [re.sub(", .*", "", line) for line in lines(capsys)] == ["a: 2/2 items", "b: 2 items"]


def test_an_item_counts_when_its_work_is_done(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        for _ in track(range(5), "a"):
            clock[0] += 11
            _ = 1 / (clock[0] < 120)
    assert lines(capsys) == ["a: 1/5 items, 0.1 items/s, 44 s left"]


@pytest.mark.parametrize("unit", ["bytes", "images", "%"])
def test_on_a_terminal_it_is_a_bar_and_takes_text_literally(monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "200")
    with bar("[b]names[/b] :cat:", total=2, unit=unit) as shown:
        shown.advance(1, loss="1.23")
        shown.advance(1)
    assert "[b]names[/b] :cat:" in screen.getvalue() and "loss 1.23" in screen.getvalue()


def test_on_a_terminal_one_bar_stands_below_another(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "200")

    def tasks() -> list[str]:
        return [task.description for task in progress._shown[-1].tasks]

    for _ in range(2):  # the display is free again afterwards, also after an error inside
        with pytest.raises(ZeroDivisionError), bar("outer", total=2, unit="languages") as shown:
            with bar("inner", total=5, unit="texts") as below:
                below.advance(5)
                assert tasks() == ["outer", "inner"]
            assert tasks() == ["outer"]
            shown.advance()
            _ = 1 / 0
        assert progress._shown == []
    assert "outer" in screen.getvalue() and "1/2" in screen.getvalue()


def test_a_start_is_shown_with_what_is_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("languages", total=2, unit="languages") as shown:
        shown.advance(0, now="de")
        assert capsys.readouterr().err == "languages: 0/2 languages, now de\n"
        shown.advance(now="fr")
        assert capsys.readouterr().err == ""
