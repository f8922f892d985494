"""`vlkit generate`: images, grids and folders, edits, and what is refused before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import vlkit
from tests.helpers.painters import painter
from vlkit.cli.app import app
from vlkit.models.image_grid import image_grid
from vlkit.models.text_to_image.model import TextToImageModel

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vlkit.save(painter(sampling={"steps": 3, "seed": 40}), tmp_path_factory.mktemp("t2i") / "model")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["generate", *map(str, words), "--model", str(model)])


def test_an_image_is_that_of_the_model(run: Run, model: Path) -> None:
    result = run("قارچ", "--language", "fa", "--out", "one.png")
    assert result.exit_code == 0, result.output
    assert result.stdout == "1 image in one.png, seed 40\n"
    expected = vlkit.load(model, expect=TextToImageModel).generate("قارچ", language="fa", seed=40)[0]
    assert Image.open("one.png").tobytes() == expected.tobytes()


def test_several_are_a_grid_or_a_folder(run: Run, model: Path) -> None:
    assert "4 images in grid.png, seeds 7 to 8" in run("a", "b", "-n", 2, "--seed", 7, "--out", "grid.png").stdout
    images = vlkit.load(model, expect=TextToImageModel).generate(["a", "b"], seed=7, num_images=2)
    assert Image.open("grid.png").tobytes() == image_grid(images, 2).tobytes()
    assert Image.open("grid.png").size == (2 * 128 + 4, 2 * 128 + 4)
    plain = json.loads(run("a", "b", "-n", 2, "--seed", 7, "--out", "folder", "--json").stdout)
    assert [row["seed"] for row in plain["images"]] == [7, 8, 7, 8]
    assert [Image.open(row["file"]).tobytes() for row in plain["images"]] == [image.tobytes() for image in images]


def test_an_image_is_changed_where_the_mask_is_white(run: Run) -> None:
    assert run("a", "--out", "old.png", "--seed", 1).exit_code == 0
    mask = Image.new("L", (16, 16))
    mask.paste(255, (8, 0, 16, 16))
    mask.save("mask.png")
    assert run("b", "--image", "old.png", "--mask", "mask.png", "--out", "new.png").exit_code == 0
    assert run("b", "--image", "old.png", "--strength", 1, "--out", "other.png").exit_code == 0
    assert Image.open("new.png").size == Image.open("other.png").size == (16, 16)


@pytest.mark.parametrize(("words", "message"), [
    (("",), "a prompt is empty"),
    (("a", "--language", "xyzzy"), "no language 'xyzzy'"),
    (("a", "--out", "notes.txt"), "is no image file; allowed: .png"),
    (("a", "--mask", "m.png"), "give it with --image"),
    (("a", "--image", "i.png"), "give one of the two"),
    (("a", "b", "--image", "i.png", "--strength", 1), "as one prompt says, and there are 2"),
    (("a", "--image", "none.png", "--strength", 1), "none.png"),
    (("a", "--out", "taken.png"), "is there already; replace it with --overwrite"),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_is_lost(run: Run, words: tuple[str, ...], message: str) -> None:
    Path("taken.png").write_bytes(b"mine")
    result = run(*words)
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output
    assert Path("taken.png").read_bytes() == b"mine" and not Path("generated.png").exists()


def test_another_kind_of_model_is_refused(run: Run) -> None:
    vlkit.save(vlkit.load("tiny"), "pairs")
    result = CliRunner().invoke(app, ["generate", "a", "--model", "pairs"])
    assert result.exit_code == 2 and "which is no painter as is wanted here" in " ".join(result.stderr.split())
