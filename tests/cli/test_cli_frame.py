"""The frame of the command line: it starts without torch, and every error a user can cause is one clear message."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from vlkit import progress
from vlkit.cli import app as frame
from vlkit.cli.app import COMMANDS, app, run
from vlkit.cli.console import say, show_table, show_warning, tell, terminal_width, write
from vlkit.cli.help import EXAMPLES
from vlkit.errors import SpecError, VlkitError
from vlkit.version import __version__

RUNNER = CliRunner()
HEAVY = ("torch", "torchvision", "transformers", "timm", "open_clip", "numpy", "pydantic", "ruamel.yaml", "matplotlib")


def loaded_after(code: str) -> set[str]:
    """The heavy modules that a fresh interpreter has loaded after running ``code``."""
    tail = "sys.stderr.write('\\n' + json.dumps(sorted(sys.modules)))"
    script = f"import sys, json\ntry:\n    {code}\nexcept SystemExit:\n    pass\n{tail}"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stderr.splitlines()[-1])) & set(HEAVY)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_loads_nothing_heavy(argument: str) -> None:
    assert loaded_after(f"sys.argv = ['vlkit', {argument!r}]; from vlkit.cli.app import run; run()") == set()


def test_import_vlkit_loads_nothing_heavy() -> None:
    assert loaded_after("import vlkit; dir(vlkit)") == set()


@pytest.mark.parametrize("command", ["show", "explain", "list", "train"])
def test_help_of_a_command_loads_no_torch(command: str) -> None:
    code = f"sys.argv = ['vlkit', {command!r}, '--help']; from vlkit.cli.app import run; run()"
    assert not loaded_after(code) & {"torch", "transformers", "timm", "open_clip", "matplotlib"}


def test_python_dash_m_is_the_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "vlkit", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"vlkit {__version__}\n" and ran.stderr == ""


def test_help_names_every_command() -> None:
    text = RUNNER.invoke(app, ["--help"]).stdout
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    result = RUNNER.invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"vlkit {name}" in result.stdout


def test_an_unknown_command_answers_with_the_nearest() -> None:
    result = RUNNER.invoke(app, ["trian"])
    assert result.exit_code == 2 and "No such command 'trian'. Did you mean 'train'?" in result.stderr


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """A command `fail` that raises what is put into the list."""
    raised: list[BaseException] = []

    def fail() -> None:
        raise raised[0]

    module = ModuleType("failing_command")
    module.fail = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "failing_command", module)
    monkeypatch.setitem(frame.COMMANDS, "fail", ("failing_command:fail", "Fails."))
    monkeypatch.delenv("VLKIT_TRACEBACK", raising=False)
    yield raised


def run_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    monkeypatch.setattr(sys, "argv", ["vlkit", "fail"])
    with pytest.raises(SystemExit) as caught:
        run()
    written = capsys.readouterr()
    return caught.value.code, written.out, written.err


LONG = "a/" * 60 + "r.yaml:5  model.image = [bold]x[/bold] :smile:"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (VlkitError(LONG), f"error: {LONG}\n"),
        (SpecError([f"{LONG}\n  no such key"]), f"{LONG}\n  no such key\n1 problem; nothing was run.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "error: No space left on device (runs/x)\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "error: Permission denied (/x)\n"),
        (OSError("odd"), "error: odd\n"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(
    failing: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    message: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    failing.append(error)
    assert run_fail(monkeypatch, capsys) == (2, "", message)


def test_a_current_folder_that_was_deleted_is_told(
    failing: list[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    failing.append(FileNotFoundError(errno.ENOENT, "No such file or directory"))
    said = "error: the current folder is not there any more; cd to one that is\n"
    assert run_fail(monkeypatch, capsys) == (2, "", said)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "stopped; what is whole is kept: run the same command again"),
        (KeyboardInterrupt("stopped [x]"), "stopped [x]"),
    ],
)
def test_an_interrupt_is_exit_code_130(
    failing: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    message: str,
) -> None:
    failing.append(error)
    assert run_fail(monkeypatch, capsys) == (130, "", f"\n{message}\n")


def test_debugging_shows_the_traceback(failing: list[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    failing.append(VlkitError("x"))
    monkeypatch.setenv("VLKIT_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["vlkit", "fail"])
    with pytest.raises(VlkitError, match=r"^x$"):
        run()


def test_a_bug_is_one_line_and_its_trace_a_file(
    failing: list[BaseException], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path))
    failing.append(RuntimeError("a bug\nof two lines \x1b[31m\udc80"))
    code, written, said = run_fail(monkeypatch, capsys)
    (trace,) = (tmp_path / "errors").iterdir()
    assert (code, written) == (1, "")
    assert said == (
        rf"error: unexpected RuntimeError: a bug of two lines \x1b[31m\x80 (the trace is in {trace}; VLKIT_TRACEBACK=1 "
        "shows it). Please report it with the trace\n"
    )
    text = trace.read_text(encoding="utf-8")
    assert text.startswith("vlkit fail\n") and "Traceback" in text and "raise raised[0]" in text
    assert f'"vlkit": "{__version__}"' in text

    monkeypatch.setenv("VLKIT_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="a bug"):
        run()


def test_a_bug_is_one_line_where_nothing_can_be_written(
    failing: list[BaseException], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "file"))
    failing.append(KeyError("key"))
    expected = (
        "error: unexpected KeyError: 'key' (VLKIT_TRACEBACK=1 shows the trace). Please report it with the trace\n"
    )
    assert run_fail(monkeypatch, capsys) == (1, "", expected)


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_help_is_as_it_was_written(name: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    result = RUNNER.invoke(app, [*name.split(), option])
    assert result.exit_code == 0, result.output
    assert all(f"    {example}\n" in result.stdout + "\n" for example in EXAMPLES[name])
    assert not re.search(r"<(str|int|float|bool|path|list)|[{][A-Z]", re.sub("(?s)Examples:.*", "", result.stdout))


def test_brackets_in_help_are_brackets() -> None:
    assert "languages=[en,de,sw]" in RUNNER.invoke(app, ["eval", "--help"]).stdout


def test_every_command_has_examples() -> None:
    names = set()
    for name in COMMANDS:
        found = frame._command(name)
        names |= {name, *(f"{name} {below}" for below in getattr(found, "commands", {}))}
    assert names == set(EXAMPLES)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("vlkit comp", ["compare"]), ("vlkit data sh", ["shard"]), ("vlkit show contrastive/ti", ["contrastive/tiny"])],
)
def test_completion(typed: str, expected: list[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_VLKIT_COMPLETE": "complete_bash"}
    ran = subprocess.run(
        [sys.executable, "-c", "from vlkit.cli.app import run; run()"],
        capture_output=True,
        text=True,
        env={**os.environ, **words},
        check=False,
    )
    assert set(expected) <= set(ran.stdout.split()), ran.stderr


def test_warnings_are_notes_and_those_for_developers_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show_warning(UserWarning("labels differ \x1b[2J"), UserWarning)
    show_warning(FutureWarning("will change"), FutureWarning)
    show_warning(DeprecationWarning("is old"), DeprecationWarning)
    assert capsys.readouterr().err == "note: labels differ \\x1b[2J\n"


def test_a_closed_pipe_is_quiet() -> None:
    script = f"{sys.executable} -m vlkit show contrastive/tiny | head -1"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert ran.stderr == ""


def test_a_narrow_encoding_does_not_end_a_run() -> None:
    code = "import sys; sys.argv = ['vlkit', 'list', 'languages', 'el']; from vlkit.cli.app import run; run()"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Greek" in ran.stdout


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["show", "no/such"], 2)])
def test_leaving_at_once_keeps_output_code_and_exit_functions(arguments: list[str], code: int) -> None:
    script = (
        "import atexit, sys; atexit.register(lambda: print('exit function ran')); "
        f"sys.argv = ['vlkit', *{arguments!r}]; from vlkit.cli.app import main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == code
    assert ran.stdout.endswith("exit function ran\n")
    assert bool(ran.stderr) == (code != 0)


ESCAPES = "\x1b]0;title\x07 \x1b[31mred\x9b2J caf\u00e9 \u202eevil\udce9"
SHOWN = r"\x1b]0;title \x1b[31mred\x9b2J café \u202eevil\xe9"


@pytest.mark.parametrize("tty", [False, True])
def test_nothing_printed_acts_on_the_terminal(
    tty: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: tty)
    say(ESCAPES)
    tell(ESCAPES)
    show_table(("caption",), [(ESCAPES,)], title=ESCAPES)
    with progress.bar(ESCAPES, total=1) as shown:
        shown.advance(note=ESCAPES)
    written = "".join(capsys.readouterr())
    assert written.replace(r"title\x07", "title").count(SHOWN) == 6
    assert not re.search("[\x07\x9b\u202e\udc80-\udcff]", written)
    assert {code for code in re.findall("\x1b.{0,4}", written) if not re.match(r"\x1b\[[\d;]*m", code)} == set()


def test_json_reads_back_what_the_terminal_is_spared(capsys: pytest.CaptureFixture[str]) -> None:
    write(json.dumps({"caption": ESCAPES}, ensure_ascii=False))
    written = capsys.readouterr().out
    assert "\x9b" not in written and "\u202e" not in written and json.loads(written) == {"caption": ESCAPES}


@pytest.mark.parametrize("command", [["list", "recipes"], ["list", "suites"], ["explain", "loop"]])
def test_lists_keep_to_the_width_of_the_terminal_in_a_pipe_too(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (90, 140):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = RUNNER.invoke(app, command).stdout.splitlines()
        assert width // 2 < max(map(len, lines)) <= width
    monkeypatch.delenv("COLUMNS")
    assert terminal_width() is None  # as where tests run: then each row is a line of its own
    assert len(RUNNER.invoke(app, command).stdout.splitlines()) < len(lines)
