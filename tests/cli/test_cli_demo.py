"""`vlkit demo`: what is wrong is told before a model is loaded, and Ctrl-C ends it with one line."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vlkit
from vlkit.cli.app import app
from vlkit.demo.demo_server import LOCAL, address_of, listen


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["demo", *words])
    assert result.stdout == ""
    return result.exit_code, result.stderr


def test_without_gradio_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "gradio" else found(name, *more)
    )
    code, said = run("tiny")
    assert code == 2
    assert said.startswith("error: the demo needs the package 'gradio', which is not installed; run: pip install '")


def test_what_stands_in_the_way_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with listen(LOCAL, 0) as taken:
        port = taken.getsockname()[1]
        code, said = run("--port", str(port))
    assert code == 2
    assert said.splitlines() == [
        "error: there is no model in runs/quickstart/model; run `vlkit quickstart` here first, or give --model PATH",
        f"cannot listen at port {port} of 127.0.0.1: address already in use; give another --port, or --port 0 for any "
        f"that is free",
    ]
    assert run("tiny", "tiny", "--port", "0") == (2, "error: the model tiny is given twice; leave one out\n")
    code, said = run("tiny", "--host", "no such host")
    assert code == 2 and said.startswith("error: --host 'no such host' is no address of this machine; give 127.0.0.1")
    assert run("tiny", "--images", "none", "--port", "0") == (2, "error: none: no such file or folder\n")
    assert run("tiny", "--images", ".", "--port", "0")[1].startswith(
        "error: . holds no images; give a folder of images"
    )


@pytest.mark.parametrize(("host", "shown"), [(LOCAL, "127.0.0.1"), ("0.0.0.0", "localhost")])
def test_addresses_can_be_opened(host: str, shown: str) -> None:
    with listen(host, 0) as opened:
        assert address_of(opened) == f"http://{shown}:{opened.getsockname()[1]}"


def test_ctrl_c_ends_it_with_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(vlkit.__file__).parents[1]), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "vlkit", "demo", "tiny", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        address = process.stdout.readline().split()[0]  # type: ignore[union-attr]
        host, port = address.removeprefix("http://").split(":")
        assert host == LOCAL
        with socket.create_connection((host, int(port)), timeout=10) as visitor:  # and one who stays
            visitor.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert visitor.recv(12) == b"HTTP/1.1 200"
            process.send_signal(signal.SIGINT)
            rest, said = process.communicate(timeout=30)
    assert process.returncode == 130 and rest == ""
    assert said == "\nstopped; the page is closed: run the same command again to open it\n"
    assert list(tmp_path.iterdir()) == []
