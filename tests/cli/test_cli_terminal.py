"""Every command in a terminal of 80 columns, in a pipe and without colour; its exit codes, and what Ctrl-C says."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from typer.testing import CliRunner

from vlkit.cli import app as frame
from vlkit.cli.app import COMMANDS, app
from vlkit.cli.help import EXAMPLES
from vlkit.errors import Stopped, VlkitError

RUNNER = CliRunner()
ALL = sorted({"", *EXAMPLES})  # "" is vlkit itself; with the subcommands
_ESCAPE = "\x1b"


@pytest.mark.parametrize("name", ALL)
def test_help_keeps_to_80_columns_and_has_no_colour_in_a_pipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = RUNNER.invoke(app, [*name.split(), "--help"])
    assert ran.exit_code == 0 and ran.stderr == "", ran.output
    assert _ESCAPE not in ran.stdout
    shown = {f"    {example}" for example in EXAMPLES.get(name, ())}  # to be pasted, so they are not broken
    wide = [line for line in ran.stdout.splitlines() if len(line) > 80 and line not in shown]
    assert wide == []
    assert ran.stdout.startswith(f"Usage: {f'vlkit {name}'.strip()}")


@pytest.mark.parametrize("name", ALL)
def test_a_wrong_option_is_exit_code_2_on_standard_error(name: str) -> None:
    ran = RUNNER.invoke(app, [*name.split(), "--no-such-option"])
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "--no-such-option" in ran.stderr and f"{f'vlkit {name}'.strip()}" in ran.stderr
    assert _ESCAPE not in ran.stderr and "Traceback" not in ran.stderr


def test_a_missing_argument_is_exit_code_2() -> None:
    asked = []
    for name in ALL[1:]:
        command = frame._command(name.split()[0])
        for below in name.split()[1:]:
            command = command.commands[below]
        needed = [one for one in command.params if one.required]
        if needed:  # the others would run
            ran = RUNNER.invoke(app, name.split())
            assert (ran.exit_code, ran.stdout) == (2, ""), (name, ran.output)
            assert "Missing" in ran.stderr and "Traceback" not in ran.stderr, (name, ran.stderr)
            asked.append(name)
    assert {"train", "export", "push", "data shard"} <= set(asked) and not {"quickstart", "doctor"} & set(asked)


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Commands that do nothing but raise what is put into the list."""
    raised: list[BaseException] = []

    def command() -> None:
        raise raised[0]

    module = ModuleType("raising_command")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "raising_command", module)
    for name, (_, line) in COMMANDS.items():
        monkeypatch.setitem(frame.COMMANDS, name, ("raising_command:command", line))
    yield raised


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (VlkitError("optim.lr = -1: must be above 0"), 2, r"^error: optim\.lr = -1: must be above 0\n$"),
        (
            FileNotFoundError(2, "No such file or directory", "x.jpg"),
            2,
            r"^error: No such file or directory \(x\.jpg",
        ),
        (KeyError("bug"), 1, r"^error: unexpected KeyError: 'bug' \(the trace is in .*\)\. Please report it"),
        (KeyboardInterrupt(), 130, r"^\nstopped; .*(run the same command again.*)\n$"),
        (Stopped(number=15), 143, r"^\nstopped; .*(run the same command again.*)\n$"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_command_ends_alike(raising: list[BaseException], error: BaseException, code: int, said: str) -> None:
    raising.append(error)
    for name in COMMANDS:
        ran = RUNNER.invoke(app, [name])
        assert (ran.exit_code, ran.stdout) == (code, ""), (name, ran.output)
        assert re.search(said, ran.stderr), (name, ran.stderr)
        assert _ESCAPE not in ran.stderr


def in_a_terminal(*arguments: str, **variables: str) -> str:
    """What a command writes where standard output and error are a terminal of 80 columns."""
    there, here = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **variables}
    process = subprocess.Popen([sys.executable, "-m", "vlkit", *arguments], stdout=here, stderr=here, env=environment)
    os.close(here)
    written = b""
    while True:
        try:
            piece = os.read(there, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(there)
    assert process.wait() == 0
    return written.decode()


def test_colours_are_for_terminals_that_want_them() -> None:
    coloured, plain = in_a_terminal("list", "recipes"), in_a_terminal("list", "recipes", NO_COLOR="1")
    colour = re.compile(r"\x1b\[[\d;]*3\d[\d;]*m")
    assert colour.search(coloured) and not colour.search(plain)
    bare = [re.sub(r"\x1b\[[\d;]*m", "", text) for text in (coloured, plain)]
    assert bare[0] == bare[1] and max(map(len, bare[1].splitlines())) <= 80
