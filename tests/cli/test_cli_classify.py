from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
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
        assert ours["label"] == theirs["label"] and ours["cosine"] == pytest.approx(theirs["cosine"], abs=2e-6)
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


def images_of(result):
    return [one["image"] for one in json.loads(result.stdout)["images"]]


def test_an_image_given_twice_is_answered_twice(run):
    options = ("--labels", "cat,dog", "--model", "tiny", "--json")
    found = json.loads(run("one.png", "two.png", "one.png", *options).stdout)["images"]
    assert [one["image"] for one in found] == ["one.png", "two.png", "one.png"]
    for ours, theirs in zip(found[0]["predictions"], found[2]["predictions"], strict=True):
        assert ours["label"] == theirs["label"] and ours["cosine"] == pytest.approx(theirs["cosine"], abs=2e-6)


def test_folders_archives_and_patterns_stand_for_their_images(run, tmp_path):
    folder = tmp_path / "photos [1]"
    (folder / "sub").mkdir(parents=True)
    for place in ("b.png", "sub/a.PNG", "c.txt", ".hidden.png"):
        shutil.copy(tmp_path / "one.png", folder / place)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "two.png", "deep/two.png")
    options = ("--labels", "cat,dog", "--model", "tiny", "--json")
    assert images_of(run("photos [1]", *options)) == ["photos [1]/b.png", "photos [1]/sub/a.PNG"]
    assert images_of(run("photos [1]/", "all.zip", *options))[1:] == ["photos [1]/sub/a.PNG", "all.zip/deep/two.png"]
    assert images_of(run("photos [1]/b.png", *options)) == ["photos [1]/b.png"]
    assert images_of(run("photos [1]/*.png", "[t]wo.png", *options)) == ["photos [1]/b.png", "two.png"]
    assert images_of(run("photos [1]/**/*.PNG", *options)) == ["photos [1]/sub/a.PNG"]

    (tmp_path / "empty").mkdir()
    wrong = run("none/*.png", "empty", "one.png", *options)
    assert wrong.exit_code == 2 and images_of(wrong) == ["one.png"]
    first, second = wrong.stderr.splitlines()
    assert first == "error: no file matches none/*.png" and second.startswith("error: empty holds no images (files")


@pytest.fixture
def served(tmp_path):
    """The address of a server of the folder."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_urls_are_fetched(run, served, monkeypatch):
    options = ("--labels", "cat,dog", "--model", "tiny", "--json")
    here = json.loads(run("one.png", *options).stdout)["images"][0]["predictions"]
    found = run(f"{served}/one.png", f"{served}/none.png", f"{served}/bad.png", "http://127.0.0.1:1/x.png", *options)
    assert images_of(found) == [f"{served}/one.png"]
    assert json.loads(found.stdout)["images"][0]["predictions"] == here
    lines = found.stderr.splitlines()
    assert lines[-3] == f"error: cannot read image {served}/none.png: the server answers 404 File not found"
    assert lines[-2].startswith(f"error: cannot read image {served}/bad.png: ")
    assert lines[-1].startswith("error: cannot read image http://127.0.0.1:1/x.png: ") and "refused" in lines[-1]
    monkeypatch.setenv("VLKIT_LIMIT_MB", "0")
    assert "more than the limit of 0 MB" in run(f"{served}/one.png", *options).stderr


def test_templates_and_device_are_those_asked_for(run):
    options = ("--labels", "cat,dog", "--model", "tiny", "--json", "--device", "cpu")
    usual = json.loads(run("one.png", *options).stdout)
    assert len(usual["templates"]) > 1
    given = json.loads(run("one.png", *options, "--templates", "a {}.", "--templates", "{}").stdout)
    assert given["templates"] == ["a {}.", "{}"]
    classifier = vlkit.ZeroShotClassifier(vlkit.load("tiny"), ["cat", "dog"], templates=["a {}.", "{}"])
    expected = {one.label: one.score for one in classifier.classify("one.png")[0]}
    found = {one["label"]: one["cosine"] for one in given["images"][0]["predictions"]}
    assert found == pytest.approx(expected, abs=2e-6)
    assert run("one.png", *options, "--templates", "no slot").exit_code == 2
    if not torch.cuda.is_available():
        wrong = run("one.png", *options[:4], "--device", "cuda")
        assert wrong.exit_code == 2 and "this machine has none; there are: cpu" in wrong.stderr


def test_json_holds_all_labels_and_the_table_a_few(run, tmp_path):
    labels = ",".join(f"thing {number}" for number in range(9))
    every = json.loads(run("one.png", "--labels", labels, "--model", "tiny", "--json").stdout)
    assert len(every["images"][0]["predictions"]) == 9
    assert set(every["images"][0]["predictions"][0]) == {"label", "probability", "cosine"}
    few = json.loads(run("one.png", "--labels", labels, "--model", "tiny", "--json", "--top", "2").stdout)
    assert few["images"][0]["predictions"] == every["images"][0]["predictions"][:2]
    assert run("one.png", "--labels", labels, "--model", "tiny").stdout.count("thing") == 5
    many = run(*["one.png"] * 60, "--labels", "a,b", "--model", "tiny")
    assert many.stdout.count("one.png") == 50 and "the first 50 of 60 images; --json prints all" in many.stderr


def test_names_and_labels_do_not_act_on_the_terminal(run, tmp_path):
    shutil.copy(tmp_path / "one.png", tmp_path / "x\x1b[2J\x9b.png")
    (tmp_path / "y\x1b]0;t\x07.png").write_bytes(b"nothing")
    arguments = ("x\x1b[2J\x9b.png", "y\x1b]0;t\x07.png", "--labels", "a\x1b[31m,b", "--model", "tiny")
    for result in (run(*arguments), run(*arguments, "--json")):
        assert not re.search("[\x1b\x9b\x07]", result.stdout + result.stderr)
    assert images_of(run(*arguments, "--json")) == ["x\x1b[2J\x9b.png"]


def test_all_that_is_wrong_is_told_at_once(run):
    result = run("one.png", "--labels", "a,a", "--language", "Frensh", "--templates", "x", "--templates", "")
    assert result.exit_code == 2 and result.stdout == ""
    lines = result.stderr.removeprefix("error: ").splitlines()
    assert [line.split()[0] for line in lines] == ["label", "no", "the", "the", "there"]
    assert "'a' is given twice" in lines[0] and "no language 'Frensh'; did you mean" in lines[1]
