"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import vlkit
from tests.helpers.train_factory import drawings
from vlkit.cli.app import app
from vlkit.errors import VlkitError
from vlkit.paths import is_pattern, local, local_path, matching, split_pattern
from vlkit.spec.load import dump_yaml, load_recipe


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_the_home_folder_is_meant_once(home: Path) -> None:
    assert local_path("~/a") == home / "a" and local_path("~") == home
    assert local_path(local_path("~/a")) == home / "a"
    assert local_path("a/~/b") == Path("a/~/b")
    for name in ("./~/b", "./~", "~nobody-of-this-name/a"):  # folders here
        assert local_path(local_path(name)) == home.parent / name
    assert local("~/a/{000..009}.tar") == f"{home}/a/{{000..009}}.tar"
    for text in ("pipe:cat ~/a", "https://x.org/~me/a.tar", "", "a/./b"):
        assert local(text) == text


def test_zero_bytes_are_told_before_a_system_call_is_made(tmp_path: Path) -> None:
    said = r"a\\x00b' cannot be a path: it holds a zero byte"
    (tmp_path / "r.yaml").write_text('extends: contrastive/tiny\nrun: {folder: "a\\0b"}\n')
    for call in (
        lambda: local_path("a\0b"),
        lambda: vlkit.load("a\0b"),
        lambda: vlkit.train(load_recipe(str(tmp_path / "r.yaml"))),
    ):
        with pytest.raises(VlkitError, match=said):
            call()


def test_brackets_of_names_that_are_there_are_no_signs(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a [1] {x,y} *"
    folder.mkdir()
    for name in ("b[2].tar", "c.tar", "cb.tar"):
        (folder / name).touch()
    assert split_pattern(f"{folder}/b[2].tar") == (folder / "b[2].tar", "")
    assert split_pattern(f"{folder}/c*.tar") == (folder, "c*.tar")
    assert split_pattern("a [1] {x,y} */c?.tar") == (Path("a [1] {x,y} *"), "c?.tar")
    assert matching(folder, "c*.tar") == [folder / "c.tar", folder / "cb.tar"]
    assert is_pattern(f"{folder}/[cd].tar") and not is_pattern(f"{folder}/b[2].tar") and not is_pattern("none.tar")
    assert matching(*split_pattern("a [[]1] {x,y} [*]/[cd].tar")) == [Path("a [1] {x,y} */c.tar")]


@pytest.mark.parametrize(("written", "meant"), [("~/x", "home/x"), ("./~/x", "~/x"), ("x/~", None)])
def test_a_recipe_knows_whose_folder_is_meant(home: Path, written: str, meant: str | None) -> None:
    where = str(home.parent / meant) if meant else written
    recipe = load_recipe("contrastive/tiny", [f"run.folder={written}", "data.sources.0.kind=webdataset",
                                              f"data.sources.0.path={written}"])  # fmt: skip
    assert recipe.run.folder == where and recipe.data.sources[0].path == where  # type: ignore[union-attr]
    Path("again.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    assert load_recipe("again.yaml") == recipe
    for command in ("pipe:cat ~/x", "https://x.org/~me/x.tar"):
        read = load_recipe("contrastive/tiny", ["data.sources.0.kind=webdataset", f"data.sources.0.path={command}"])
        assert read.data.sources[0].path == command  # type: ignore[union-attr]


@pytest.mark.parametrize("place", ["~", "home/models [1]/{a,b}*"])
def test_a_folder_of_any_name_is_written_read_and_inspected(home: Path, place: str) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    folder = f"./{place}"
    data = [f"data.sources=[{{kind: folder, path: {drawings(home / 'data', 24)}}}]", "data.languages=[en,de]"]
    sizes = ["data.holdout_concepts=0", "loop.batch_size=8", "stages.0.steps=1", "stages.1.steps=1"]
    trained = run("train", "contrastive/tiny", f"run.folder={folder}", *data, *sizes)
    assert trained.exit_code == 0, trained.output
    model = f"{folder}/model"
    assert (home.parent / place / "model/spec.yaml").exists() and vlkit.load(model)
    Image.new("RGB", (8, 8), "red").save(home.parent / place / "red.png")
    seen = run("classify", f"{folder}/red.png", "--labels", "a,b", "--model", model)
    assert seen.exit_code == 0 and f"{folder}/red.png" in seen.stdout, seen.output

    shards = f"{folder}/shards"
    (home.parent / place / "red.csv").write_text("image,caption,language\nred.png,red,en\n", encoding="utf-8")
    made = run("data", "shard", f"{folder}/red.csv", f"--out={shards}", "--quiet", "--workers=0")
    assert made.exit_code == 0, made.output
    (tar,) = (home.parent / place / "shards").glob("*.tar")
    for pattern in (shards, f"{shards}/*.tar", f"{shards}/{tar.stem[:-1]}{{0..0}}.tar", f"{shards}/{tar.name}"):
        assert run("data", "info", pattern).exit_code == 0, pattern
    assert {path.name for path in home.parent.iterdir()} - {"home"} == {place.split("/")[0]} - {"home"}
    assert not (home / "model").exists()


def test_home_is_meant_by_every_command(home: Path) -> None:
    home.mkdir()
    vlkit.save(vlkit.load("tiny"), "~/model")
    Image.new("RGB", (8, 8), "red").save(home / "red.png")
    (home / "labels.txt").write_text("a\nb\n", encoding="utf-8")
    arguments = ["classify", "~/red.png", "--labels-file=~/labels.txt", "--model=~/model"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert len(vlkit.ZeroShotClassifier(vlkit.load("~/model"), ["a", "b"]).classify("~/red.png")) == 1
    (home / "red.csv").write_text("image,caption,language\nred.png,red,en\n", encoding="utf-8")
    arguments = ["data", "shard", "~/red.csv", "--out=~/shards", "--quiet", "--workers=0"]
    assert CliRunner().invoke(app, arguments).exit_code == 0 and list((home / "shards").glob("*.tar"))
    assert [path.name for path in home.parent.iterdir()] == ["home"]
