"""What the quickstart prints at its end can be pasted."""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.pages import unquoted_signs
from vlkit import next_steps
from vlkit.evaluation.report.gallery import GalleryItem, LanguageAnswers

SHELLS = [shell for shell in ("bash", "zsh") if shutil.which(shell)]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in the folder `my venv`, with the command vlkit, that no shell knows of."""
    programs = tmp_path / "my venv/bin"
    programs.mkdir(parents=True)
    (programs / "vlkit").write_text('#!/bin/sh\nprintf "%s|" "$@"\n', encoding="utf-8")
    (programs / "vlkit").chmod(0o755)
    (programs / "activate").write_text(f"export PATH='{programs}':\"$PATH\"\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return programs


def gallery() -> list[GalleryItem]:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, format="PNG")
    names = ("château d'eau", "a, b", "œuf", "chat", "chien", "lion")
    return [GalleryItem(name, stream.getvalue(), {"fr": LanguageAnswers(name, ())}) for name in names]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("activate", [True, False])
def test_the_printed_commands_run_as_pasted(environment: Path, shell: str, activate: bool) -> None:
    if not activate:
        (environment / "activate").unlink()
    folder = Path("runs/my run [1]")
    example, labels = next_steps.save_example(folder, gallery())
    assert Image.open(example).size == (8, 8)
    lines = next_steps.next_commands(folder, example, labels)
    assert lines[0] == ("source 'my venv/bin/activate'" if activate else f"export PATH='{environment}':\"$PATH\"")
    assert not any(map(unquoted_signs, lines))
    ran = subprocess.run([shell, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert ran.stderr == "" and ran.returncode == 0
    labels_said = "chat,chien,château d'eau,œuf"
    first = ["classify", f"{folder}/example.png", "--labels", labels_said, "--language", "fr", "--model"]
    second = ["train", "quickstart/multilingual", "run.folder=runs/mine", "data.languages=[en,de,fr]"]
    assert ran.stdout.split("|")[:-1] == [*first, f"{folder}/model", *second, "stages.0.steps=400"]


def test_nothing_is_activated_where_the_command_is_known(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin:/bin")
    lines = next_steps.next_commands(Path("runs/quickstart"), Path("runs/quickstart/example.png"), ["chat"])
    assert [shlex.split(line)[:2] for line in lines] == [["vlkit", "classify"], ["vlkit", "train"]]
