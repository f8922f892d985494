"""The frame of the command line: it starts without torch, and every error a user can cause is one clear message."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from typer.testing import CliRunner

from vlkit.cli import app as frame
from vlkit.cli.app import COMMANDS, app, run
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
    monkeypatch.delenv("VLKIT_DEBUG", raising=False)
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


@pytest.mark.parametrize(
    ("error", "message"), [(KeyboardInterrupt(), "interrupted"), (KeyboardInterrupt("stopped [x]"), "stopped [x]")]
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
    monkeypatch.setenv("VLKIT_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["vlkit", "fail"])
    with pytest.raises(VlkitError, match=r"^x$"):
        run()


def test_a_bug_is_not_hidden(failing: list[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    failing.append(RuntimeError("a bug"))
    monkeypatch.setattr(sys, "argv", ["vlkit", "fail"])
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        run()


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
