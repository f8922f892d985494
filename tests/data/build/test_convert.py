"""Data sets in other toolkits' forms: what is written is read back, and captions answer prompts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.helpers.evaluate_fakes import picture
from vlkit.cli.app import app
from vlkit.data.build.convert import Form, convert
from vlkit.data.sources.open import open_path
from vlkit.errors import DataError, VlkitError
from vlkit.image_prompts import question_prompts
from vlkit.types import Source, Turn

TALK = [
    {"role": "user", "text": "<image> <image>\nSame?", "language": "en"},
    {"role": "assistant", "text": "No.", "language": "en"},
    {"role": "user", "text": "Na hii?", "language": "sw"},
    {"role": "assistant", "text": "Ndiyo.", "language": "sw"},
]


@pytest.fixture
def talks(tmp_path: Path) -> Source:
    for number in range(2):
        picture(number).save(tmp_path / f"{number}.png")
    rows: list[dict[str, Any]] = [
        {"image": ["0.png", "1.png"], "turns": TALK, "keywords": ["no"]},
        {"image": "1.png", "context": "<image>\nWas ist das?", "label": "Ein Ding.", "language": "de", "task": "vqa"},
        {"context": "Hi", "label": "Hello", "language": "en", "translated": False},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_path(str(tmp_path / "t.jsonl"))


def back(folder: Path, form: Form) -> Source:
    return open_path(str(next(path for path in folder.iterdir() if path.name.startswith(form))))


@pytest.mark.parametrize("form", ["llava", "turns"])
def test_conversations_come_back_as_they_were(talks: Source, tmp_path: Path, form: Form) -> None:
    done = convert(talks, tmp_path / "out", form, quiet=True)
    assert (done.records, done.images, done.bad) == (3, 2, {})  # an image of two conversations is there once
    found = back(tmp_path / "out", form)
    for number in range(3):
        given, read = talks[number], found[number]
        if number == 1:  # the question was put into a prompt that names the language
            assert read.turns[0].text.startswith("<image>\n") and "Was ist das?" in read.turns[0].text
            assert read.turns[1:] == given.turns[1:]
        else:
            assert read.turns == given.turns
        assert [one().tobytes() for one in read.images] == [one().tobytes() for one in given.images]
        assert (read.keywords, read.task, read.translated) == (given.keywords, given.task, given.translated)


def test_mblip_and_centurio_have_questions_and_answers(talks: Source, tmp_path: Path) -> None:
    done = convert(talks, tmp_path / "m", "mblip", quiet=True)
    assert done.records == 2
    assert list(done.bad.values()) == ["mblip has one question, with its images before the text; take centurio"]
    rows = json.loads(done.file.read_text(encoding="utf-8"))
    assert rows[0]["image_id"] == "images/000000001-0.png" and rows[0]["label"] == "Ein Ding."
    assert "<" not in rows[0]["context"] and rows[1] == {
        "image_id": "", "language": "en", "context": "Hi", "label": "Hello", "translated": False
    }  # fmt: skip
    done = convert(talks, tmp_path / "c", "centurio", quiet=True)
    rows = json.loads(done.file.read_text(encoding="utf-8"))
    assert rows[0]["context"] == ["<image_placeholder> <image_placeholder>\nSame?", "Na hii?"]
    assert [turn.text for turn in back(tmp_path / "c", "centurio")[0].turns] == [turn["text"] for turn in TALK]


def test_captions_answer_prompts_and_every_image_has_its_place(tmp_path: Path) -> None:
    for number in range(6):
        picture(number).save(tmp_path / f"{number}.png")
    rows = [
        {"image": f"{n}.png", "captions": {"de": [f"Ding {n}", f"Sache {n}"], "fr": f"chose {n}"}} for n in range(6)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_path(str(tmp_path / "t.jsonl"))
    done = convert(source, tmp_path / "out", "llava", quiet=True)
    assert (done.records, done.images) == (18, 6)
    found = back(tmp_path / "out", "llava")
    answers = Counter(found[number].turns[1] for number in range(18))
    assert answers == Counter(
        Turn("assistant", text, language)
        for row in rows
        for language, texts in row["captions"].items()
        for text in ([texts] if isinstance(texts, str) else texts)
    )
    for number in range(18):
        question, answer = found[number].turns
        mark, _, prompt = question.text.partition("\n")
        assert mark == "<image>" and prompt in question_prompts("caption", answer.language)
    only = convert(source, tmp_path / "fr", "turns", languages=["fra"], quiet=True)
    assert only.records == 6


def test_a_broken_image_is_left_out_and_nothing_is_replaced_unasked(talks: Source, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"broken")
    done = convert(talks, tmp_path / "out", "llava", quiet=True)
    assert done.records == 2 and "cannot read image" in next(iter(done.bad.values()))
    with pytest.raises(DataError, match="out: is there already; choose another --out, or replace it with --overwrite"):
        convert(talks, tmp_path / "out", "turns", quiet=True)
    convert(talks, tmp_path / "out", "turns", overwrite=True, quiet=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images", "turns.jsonl"]
    with pytest.raises(VlkitError, match="out"):
        convert(back(tmp_path / "out", "turns"), tmp_path / "out", "llava", overwrite=True, quiet=True)
    assert len(back(tmp_path / "out", "turns")) == 2


def test_the_command_line_converts(talks: Source, tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "out"), "--form", "turns", "--quiet"]
    done = CliRunner().invoke(app, ["data", "convert", str(tmp_path / "t.jsonl"), *options])
    assert done.exit_code == 0, done.output
    assert len(back(tmp_path / "out", "turns")) == 3
    told = CliRunner().invoke(app, ["data", "info", str(tmp_path / "out/turns.jsonl")]).stdout
    assert "turns of the first sample" in told and "Na hii?" in told
