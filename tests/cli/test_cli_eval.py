"""`vlkit eval` and `vlkit compare`, from a folder of images to a table."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import vlkit
from vlkit.cli.app import app
from vlkit.cli.eval import model_name

SUITE = """
tasks:
  - kind: zero_shot
    name: pets
    images: {kind: folder, path: images}
    labels: {kind: files, paths: [labels.csv]}
  - {kind: retrieval, name: captions, source: {kind: folder, path: table.csv}}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("cat", "dog", "owl")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for one in range(2):
            pixels = np.random.default_rng(10 * number + one).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{one}.png")
    names = [("en", "cat", "dog", "owl"), ("no", "katt", "hund", "ugle")]
    lines = [f"{tag},{number},{name}" for tag, *each in names for number, name in enumerate(each)]
    (tmp_path / "labels.csv").write_text("\n".join(["language,class,name", *lines]))
    rows = [f"images/{name}/0.png,a {name},{tag}" for tag, *each in names[:1] for name in each]
    (tmp_path / "table.csv").write_text("\n".join(["image,caption,language", *rows]))
    (tmp_path / "suite.yaml").write_text(SUITE)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_two_models_then_compare(run: Any, tmp_path: Path) -> None:
    model = vlkit.load("tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    vlkit.save(model, tmp_path / "runs" / "other" / "model")
    first = run("eval", "tiny", "suite.yaml")
    assert first.exit_code == 0, first.stderr
    assert "nb  Norwegian" in first.stdout and "t2i@1" in first.stdout
    folder = Path("runs/eval/suite-tiny")
    assert f"written to {folder}/results.json; look at {folder}/report-captions.html, {folder}/report-pets.html" in (
        first.stderr
    )
    second = run("eval", "runs/other/model", "suite.yaml", "--out", "other", "--name", "the other", "--device", "cpu")
    assert second.exit_code == 0, second.stderr
    compared = run("compare", str(folder), "other/results.json", "--out", "compared")
    assert compared.exit_code == 0, compared.stderr
    assert (
        "tiny against the other, in %" in compared.stdout and "pets: mean difference of 2 languages" in compared.stdout
    )
    assert (tmp_path / "compared" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "compared" / "comparison.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[1].startswith("tiny,the other,captions,en,mean_recall,0,3,")
    assert "By how much" in (tmp_path / "compared" / "comparison.html").read_text(encoding="utf-8")
    table = (tmp_path / "compared" / "comparison.md").read_text()
    assert table.startswith("| language | task | classes | tiny | the other | difference | 95 % interval |")


def test_several_models_in_one_command_are_compared(run: Any, tmp_path: Path) -> None:
    model = vlkit.load("tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    vlkit.save(model, tmp_path / "runs" / "other" / "model")
    said = ("eval", "tiny", "suite.yaml", "tasks.1.languages=[en]", "--also", "runs/other/model", "--out", "both")
    plan = run(*said, "--dry-run")
    assert plan.exit_code == 0 and "the results would be in both/tiny, both/other" in plan.stdout
    done = run(*said)
    assert done.exit_code == 0, done.stderr
    assert "tiny against other, in %" in done.stdout and "pets: mean difference of 2 languages" in done.stdout
    rows = {name: json.loads(Path(f"both/{name}/results.json").read_text())["results"] for name in ("tiny", "other")}
    assert {row["variant"] for row in rows["tiny"]} == {"tiny"} and {row["variant"] for row in rows["other"]} == {
        "other"
    }
    assert (tmp_path / "both" / "other" / "compared" / "tiny" / "comparison.html").is_file()
    assert run(*said, "--overwrite").exit_code == 0
    for name, message in (
        ("one", "--name gives 1 names (one) for 2 models (tiny, runs/other/model); give one each, with commas between"),
        ("a,a", "two models are called 'a' in results; give --name with a name for each, such as mine,a"),
    ):
        wrong = run("eval", "tiny", "suite.yaml", "--also", "runs/other/model", "--name", name)
        assert wrong.exit_code == 2 and message in wrong.stderr


def test_overrides_choose_and_resume_goes_on(run: Any) -> None:
    said = ("eval", "tiny", "suite.yaml", "tasks.0.languages=[no]", "tasks.1.languages=[en]", "--out", "o")
    assert run(*said).exit_code == 0
    rows = json.loads(Path("o/results.json").read_text())["results"]
    assert [row["language"] for row in rows] == ["nb", "en"] and rows[0]["variant"] == "tiny"
    taken = run(*said)
    assert (taken.exit_code, taken.stdout) == (2, "")
    assert "error: o holds an evaluation; --resume goes on with it, --overwrite replaces it" in taken.stderr
    assert run(*said, "--resume").exit_code == 0 and run(*said, "--overwrite").exit_code == 0
    shared = run("eval", "tiny", "suite.yaml", "--out", "p", "--cache", "o/features")
    assert shared.exit_code == 0 and not Path("p/features").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["suite.yaml", "languages=[de]"], "no language of task pets 'de'; there are: en, nb"),
        (["suite.yaml", "languages=[qq]"], "no language 'qq'"),
        (["suite.yaml", "tasks.0.images.path=none"], "none: no such folder of images"),
        (["suite.yaml", "tasks.0.image.path=none"], "command line  tasks.0.image"),
        (["suite.yaml", "seed=-1"], "command line  seed = -1\n  should be an int >= 0"),
        (["babel_imagenet"], "babel_imagenet.yaml:9  tasks.0.images.path\n  missing; should be text"),
        (["no_such"], "error: no suite 'no_such'"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(run: Any, arguments: list[str], message: str) -> None:
    result = run("eval", "no-such-model", *arguments)
    assert result.exit_code == 2 and message in result.stderr, result.stderr
    assert not Path("runs").exists()


def test_all_that_is_wrong_is_told_at_once(run: Any) -> None:
    Path("taken").mkdir()
    Path("taken/notes.txt").touch()
    wrong = ["languages=[en,qq]", "tasks.0.images.path=none", "tasks.0.labels.paths=[labels.csv,no.json,nor.json]"]
    more = ["tasks.0.templates={kind: file, path: prompts.json}", "tasks.1.source.path=captions.csv"]
    result = run("eval", "nowhere", "suite.yaml", *wrong, *more, "--out", "taken", "--own-use")
    assert result.exit_code == 2 and result.stderr.splitlines() == [
        "error: --own-use says what --dump-classnames may write; give both or none",
        "no model 'nowhere'. Give a model folder, 'open_clip:MODEL/TAG', 'open_clip:MODEL/FILE', 'hf:ID', "
        "'hf-hub:ORG/NAME' or 'tiny'.",
        "taken holds other files; --out takes a new folder",
        "no language 'qq'. See vlkit list languages.",
        "cannot read template file prompts.json: no such file or directory",
        "none: no such folder of images, nor file",
        "cannot read label file no.json: no such file or directory",
        "cannot read label file nor.json: no such file or directory",
        "captions.csv: no such table",
    ]


def test_a_dry_run_shows_what_would_be_done_and_does_nothing(run: Any) -> None:
    before = sorted(Path().rglob("*"))
    result = run("eval", "tiny", "suite.yaml", "tasks.1.languages=[en]", "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert "the results would be in runs/eval/suite-tiny\n" in result.stdout
    assert ["pets", "6", "2", "en,", "nb"] in lines and ["captions", "3", "1", "en"] in lines
    assert result.stdout.endswith("dry run: nothing was evaluated and nothing was written\n")
    assert sorted(Path().rglob("*")) == before


def test_what_is_written_when_asked_for(run: Any) -> None:
    assert run("eval", "tiny", "suite.yaml", "--out", "plain").exit_code == 0
    assert not Path("plain/classnames.json").exists() and not Path("plain/clip_benchmark").exists()
    asked = run("eval", "tiny", "suite.yaml", "--out", "all", "--dump-classnames", "--clip-benchmark")
    assert asked.exit_code == 0, asked.stderr
    assert json.loads(Path("all/classnames.json").read_text())["pets"]["names"]["nb"]["2"] == ["ugle"]
    rows = [json.loads(path.read_text()) for path in Path("all/clip_benchmark").iterdir()]
    assert sorted((one["dataset"], one["language"]) for one in rows) == [
        ("captions", "en"),
        ("pets", "en"),
        ("pets", "nb"),
    ]
    again = run("eval", "tiny", "suite.yaml", "--out", "all", "--overwrite")
    assert again.exit_code == 0 and not Path("all/classnames.json").exists() and not Path("all/clip_benchmark").exists()


def test_names_that_may_not_be_passed_on_are_refused_before_a_model_is_loaded(run: Any) -> None:
    Path("babel.json").write_text(json.dumps({"DE": [[0, 2], ["Schleie", "Weisshai"]]}))
    for name, number in (("cat", "0"), ("dog", "2")):
        shutil.copytree(Path("images", name), Path("val", number))
    said = ["tasks.0.images={kind: imagenet, path: val, classes: present}", "tasks.0.labels.paths=[babel.json]"]
    refused = run("eval", "no-such-model", "suite.yaml", *said, "--dump-classnames")
    assert refused.exit_code == 2 and "task 'pets' may not be passed on" in refused.stderr
    alone = run("eval", "no-such-model", "suite.yaml", *said, "--own-use")
    assert alone.exit_code == 2 and "give both or none" in alone.stderr
    kept = run("eval", "tiny", "suite.yaml", *said, "--dump-classnames", "--own-use", "--out", "o")
    assert kept.exit_code == 0, kept.stderr
    assert "license of the names in o/classnames.json: Babel-ImageNet labels" in kept.stderr
    assert "Weisshai" in Path("o/classnames.json").read_text(encoding="utf-8")


def test_published_scores_are_compared_and_correlated(run: Any) -> None:
    compared = run("compare", "reference:babel_imagenet/OC-B32", "reference:babel_imagenet/OC-H14")
    assert compared.exit_code == 0 and "mean difference of 101 languages" in compared.stdout
    found = run("correlate", "reference:babel_imagenet", "reference:xm3600", "--replicates", "0")
    assert found.exit_code == 0, found.stderr
    cells = next(line.split() for line in found.stdout.splitlines() if line.startswith("all "))
    assert cells[:4] == ["all", "with", "408", "0.649"]
    wrong = run("correlate", "reference:xm3600", "reference:xm3600", "--given", "log-classes")
    assert wrong.exit_code == 2 and "leave out --given" in wrong.stderr


def test_suites_are_listed(run: Any) -> None:
    listed = run("list", "suites", "imagenet").stdout
    assert "babel_imagenet" in listed and "omw_imagenet" in listed and "2 suites" in listed


def test_compare_says_what_is_wrong(run: Any) -> None:
    for arguments, message in (
        (("none.json", "none.json"), "no results file none.json"),
        (("suite.yaml", "suite.yaml"), "suite.yaml is not a results file"),
        (("a", "b", "--models", "one"), "give two names with a comma between"),
    ):
        result = run("compare", *arguments)
        assert result.exit_code == 2 and message in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("runs/quickstart/model", "quickstart"),
        ("runs/mine/", "mine"),
        ("./model", "model"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "ViT-B-32-laion2b_s34b_b79k"),
        ("hf:google/siglip2-base-patch16-224", "siglip2-base-patch16-224"),
        ("tiny", "tiny"),
    ],
)
def test_models_are_called_after_where_they_are(model: str, name: str) -> None:
    assert model_name(model) == name


@pytest.mark.parametrize("first", ["import vlkit.evaluation.run", "vlkit.evaluate"])
def test_evaluate_is_callable_whatever_is_imported_first(first: str) -> None:
    code = f"import vlkit\n{first}\nfrom vlkit import evaluate\nassert callable(evaluate) and callable(vlkit.evaluate)"
    subprocess.run([sys.executable, "-c", code], check=True)
