from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import vlkit
from vlkit.cli.app import app


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("one.png", "two.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    return lambda *arguments: CliRunner().invoke(app, ["classify", *arguments])


def test_answers_in_a_table_best_first(run):
    result = run("one.png", "two.png", "--labels", "猫，狗、车", "--language", "zh", "--model", "tiny", "--top", "2")
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == [
        "image",
        "one.png",
        *lines[2].split()[:1],
        "two.png",
        *lines[4].split()[:1],
    ]
    assert len(lines) == 5
    assert all(any(label in line for label in "猫狗车") for line in lines[1:])


def test_json_holds_the_same_for_one_image_as_for_several(run):
    options = ("--labels", "cat|kitten,dog", "--model", "tiny", "--json")
    several = json.loads(run("one.png", "two.png", *options).stdout)
    alone = json.loads(run("two.png", *options).stdout)
    assert several["images"][1]["image"] == "two.png" and several["errors"] == []
    assert several["language"] == "en" and several["model"] == "tiny"
    for ours, theirs in zip(several["images"][1]["predictions"], alone["images"][0]["predictions"], strict=True):
        assert ours["label"] == theirs["label"] and ours["score"] == pytest.approx(theirs["score"], abs=2e-6)
    shares = [one["probability"] for one in alone["images"][0]["predictions"]]
    assert sum(shares) == pytest.approx(1, abs=1e-5) and shares == sorted(shares, reverse=True)
    assert {one["label"] for one in alone["images"][0]["predictions"]} == {"cat", "dog"}


def test_a_bad_image_among_good_ones_costs_only_itself(run):
    result = run("one.png", "bad.png", "none.png", "two.png", "--labels", "a,b", "--model", "tiny")
    assert result.exit_code == 2
    assert "one.png" in result.stdout and "two.png" in result.stdout and "bad.png" not in result.stdout
    first, second = result.stderr.splitlines()
    assert first.startswith("error: cannot read image bad.png: ")
    assert second == "error: cannot read image none.png: no such file"
    found = json.loads(run("bad.png", "one.png", "--labels", "a,b", "--model", "tiny", "--json").stdout)
    assert [one["image"] for one in found["images"]] == ["one.png"]
    assert [one["image"] for one in found["errors"]] == ["bad.png"]


def test_only_bad_images(run):
    result = run("bad.png", "--labels", "a,b", "--model", "tiny")
    assert (result.exit_code, result.stdout) == (2, "")


def test_labels_of_a_file_follow_those_of_the_line(run, tmp_path):
    (tmp_path / "labels.txt").write_text("# things\nHaus | Gebäude\n\nBaum\n", encoding="utf-8")
    result = run(
        "one.png", "--labels", "Hund", "--labels-file", "labels.txt", "--language", "de", "--model", "tiny", "--json"
    )
    assert {one["label"] for one in json.loads(result.stdout)["images"][0]["predictions"]} == {"Hund", "Haus", "Baum"}


def test_labels_are_shown_as_they_are(run):
    result = run("one.png", "--labels", "[bold]x,[/y", "--model", "tiny")
    assert result.exit_code == 0 and "[bold]x" in result.stdout and "[/y" in result.stdout


def test_labels_that_look_alike_are_named_once(run):
    result = run("one.png", "--labels", "Arm,arm", "--language", "de", "--model", "tiny")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "note: labels 'Arm' and 'arm' differ in case alone; the model may not tell them apart"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "tiny"], "error: no labels; give --labels 'cat,dog' or --labels-file FILE (one label a line)"),
        (
            ["--labels", "a,b, a", "--model", "tiny"],
            "error: label 'a' is given twice, as number 1 and 3; leave one out",
        ),
        (["--labels", "a,,b", "--model", "tiny"], "error: label number 2 is blank; give it a name or leave it out"),
        (
            ["--labels", "a", "--labels-file", "none.txt"],
            "error: cannot read labels file none.txt: no such",
        ),
        (["--labels", "a", "--language", "Frensh"], "error: no language 'Frensh'; did you mean"),
        (
            ["--labels", "a,b"],
            "error: there is no model in runs/quickstart/model; run `vlkit quickstart` here first, or give --model",
        ),
        (["--labels", "a,b", "--model", "nothing/here"], "error: "),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(run, arguments, message):
    result = run("one.png", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message) and "Traceback" not in result.stderr
    assert result.stdout == ""


def test_bad_labels_are_found_before_torch_is_loaded_and_plots_never_are(tmp_path):
    program = (
        "import sys; from vlkit.cli.app import app; from typer.testing import CliRunner\n"
        "bad = CliRunner().invoke(app, ['classify', 'x.png', '--labels', 'a,a'])\n"
        "assert bad.exit_code == 2 and 'torch' not in sys.modules\n"
        "CliRunner().invoke(app, ['classify', 'x.png', '--labels', 'a,b', '--model', 'tiny'])\n"
        "assert 'torch' in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(vlkit.__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env=environment)
