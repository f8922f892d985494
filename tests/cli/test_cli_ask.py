"""`vlkit caption` and `vlkit ask`: every language, a bad image among good ones, and answers that run to the left."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import vlkit
from tests.helpers.vision_language import picture, tiny
from vlkit.cli.answer_text import LiveAnswer, write_answer, write_line
from vlkit.cli.app import app
from vlkit.models.vision_language.model import VisionLanguageModel

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vlkit.save(tiny("qformer"), tmp_path_factory.mktemp("vlm") / "model")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    picture(1).save("one.png")
    picture(2).save("two.png")
    Path("bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    return lambda *words: CliRunner().invoke(app, [*map(str, words)])


def test_captions_of_several_images_and_languages(run: Run, model: Path) -> None:
    result = run(
        "caption", "one.png", "bad.png", "two.png", "--language", "sw, ar", "--model", model, "--max-tokens", 3
    )
    assert result.exit_code == 2
    assert result.stderr.startswith("error: cannot read image bad.png: ") and result.stderr.count("\n") == 1
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [
        ["one.png", "sw"], ["one.png", "ar"], ["two.png", "sw"], ["two.png", "ar"]
    ]  # fmt: skip
    plain = json.loads(
        run("caption", "two.png", "--language", "ar", "--model", model, "--max-tokens", 3, "--json").stdout
    )
    ready = vlkit.load(model, expect=VisionLanguageModel)
    assert plain == {
        "model": str(model),
        "captions": [
            {"image": "two.png", "language": "ar", "caption": ready.caption("two.png", language="ar", max_tokens=3)}
        ],
        "errors": [],
    }


def test_a_question_about_two_images_or_none(run: Run, model: Path) -> None:
    words = ("ask", "这是 <image> 还是 <image>？", "one.png", "two.png", "--language", "zh", "--model", model, "--json")
    found = json.loads(run(*words, "--max-tokens", 3).stdout)
    ready = vlkit.load(model, expect=VisionLanguageModel)
    told = ready.ask(["one.png", "two.png"], "这是 <image> 还是 <image>？", language="zh", max_tokens=3)
    assert found["answer"] == told and found["language"] == "zh" and found["images"] == ["one.png", "two.png"]
    result = run("ask", "Habari?", "--model", model, "--prefix", "Nzuri", "--max-tokens", 3)
    assert result.exit_code == 0 and result.stdout.startswith("Nzuri") and result.stdout.endswith("\n")


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            ["caption", "one.png", "--language", "Frensh,xx", "--beams", "2", "--temperature", "1"],
            [
                "error: no language 'Frensh'; did you mean",
                "no language 'xx'. See vlkit list languages.",
                "there is no model in runs/pictures/model; run `vlkit train vlm/pictures` here first, or give --model",
                "--beams follows the likeliest answers and --temperature draws one; leave one of them out",
            ],
        ),
        (["caption", "one.png", "--language", " ,"], ["error: no language; give --language de,", "there is no model"]),
        (
            ["ask", " ", "bad.png", "none.png", "--model", "tiny"],
            [
                "error: the question is empty; write what you want to know",
                "cannot read image bad.png",
                "cannot read image none",
            ],
        ),
        (
            ["ask", "?", "--model", "tiny"],
            ["error: tiny holds a model of kind dual_encoder, which is no answering model as is wanted here"],
        ),
    ],
)
def test_bad_input_is_told_at_once(run: Run, words: list[str], messages: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 2 and result.stdout == ""
    for line, message in zip(result.stderr.splitlines(), messages, strict=True):
        assert line.startswith(message)


def test_more_places_than_images_is_one_message(run: Run, model: Path) -> None:
    result = run("ask", "<image> <image>?", "one.png", "--model", model)
    assert result.exit_code == 2
    assert result.stderr == "error: question 1: its text has 2 places for images (<image>) and it has 1 images\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_isolates_answers_and_a_pipe_gets_them_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        monkeypatch.setattr(sys, "stdout", stream)
        write_line("a.png", "ar", " قطة\n\u202eكبيرة\x1b[31m ")
        write_answer("قطة\nكلب\n")
    assert pipe.getvalue() == "a.png\tar\tقطة \\u202eكبيرة\\x1b[31m\nقطة\nكلب\n"
    assert terminal.getvalue() == (
        "\u2068a.png\u2069  \u2068ar\u2069  \u2068قطة \\u202eكبيرة\\x1b[31m\u2069\n\u2068قطة\u2069\n\u2068كلب\u2069\n"
    )


def test_an_answer_is_written_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    live, seen = LiveAnswer(), []
    for piece in (" ", "\nein", " ", "Hund\n", "\n", "da", " "):
        live(piece)
        seen.append(terminal.getvalue())
    live.end()
    assert seen[:3] == ["", "\u2068ein", "\u2068ein"] and seen[3] == "\u2068ein Hund"
    assert terminal.getvalue() == "\u2068ein Hund\u2069\n\u2068\u2069\n\u2068da\u2069\n"


def test_what_streams_is_what_is_answered(model: Path) -> None:
    ready, pieces = vlkit.load(model, expect=VisionLanguageModel), list[str]()
    text = ready.ask(picture(1), "Qué?", max_tokens=6, stream=pieces.append)
    assert "".join(pieces).strip() == text
