"""`vlkit data shard`: what goes in comes out, with the same bytes however it was made."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.helpers.data_factory import encoded, shards
from vlkit.cli.app import app
from vlkit.data.build import reshard as module
from vlkit.data.build.reshard import ShardOptions, write_shards
from vlkit.data.sources.combine import summarize
from vlkit.data.sources.open import open_path
from vlkit.data.sources.shards import ShardSource, expand
from vlkit.data.sources.tree import read_tree
from vlkit.errors import DataError


def table(folder: Path, count: int = 23, *, bad: tuple[int, ...] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        raw = encoded((number, 9, 9), size=(90, 60), kind="JPEG" if number % 2 else "PNG")
        (folder / f"{number}.img").write_bytes(raw[: len(raw) // 2] if number in bad else raw)
        captions = {"de": [f"Ding {number}", f"Sache {number}"], **({"en": f"thing {number}"} if number % 3 else {})}
        rows.append({"image": f"{number}.img", "captions": captions, "concept": f"c{number // 2}", "license": "CC0"})
    path = folder / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def write(
    source: Path | str, out: Path, *, workers: int = 0, overwrite: bool = False, **options: Any
) -> module.Written:
    return write_shards(
        open_path(str(source)), out, ShardOptions(**options), workers=workers, overwrite=overwrite, quiet=True
    )


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    made, out = table(tmp_path / "t"), tmp_path / "out"
    written = write(made, out, per_shard=10)
    assert (written.samples, written.shards, written.bad, written.left_out) == (23, 3, {}, 0)
    assert json.loads((out / "sizes.json").read_text()) == {
        "shard-0000.tar": 10, "shard-0001.tar": 10, "shard-0002.tar": 3
    }  # fmt: skip
    before, after = open_path(str(made)), open_path(str(out))
    for index in range(23):
        one, two = before[index], after[index]
        assert (dict(one.captions), one.concept, one.license, one.split) == (
            dict(two.captions), two.concept, two.license, two.split
        )  # fmt: skip
        assert one.image().tobytes() == two.image().tobytes()
    assert summarize(after).languages == written.languages == {"de": 46, "en": 15}


def test_the_bytes_depend_on_the_input_alone(tmp_path: Path) -> None:
    made = table(tmp_path / "t", bad=(5, 11))
    options: dict[str, Any] = {"per_shard": 6, "image_size": 32, "languages": ("en", "deu")}
    for name, workers in (("a", 0), ("b", 1), ("c", 2)):
        write(made, tmp_path / name, workers=workers, **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    again = write(str(tmp_path / "a"), tmp_path / "d", per_shard=100, image_size=32)  # reshard: images as they are
    assert again.shards == 1
    one, two = open_path(str(tmp_path / "a")), open_path(str(tmp_path / "d"))
    assert [one[n].image().tobytes() for n in range(21)] == [two[n].image().tobytes() for n in range(21)]


@pytest.mark.parametrize("stop", [4, 9, 17, 22])
def test_an_interrupted_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    made = table(tmp_path / "t", bad=(3, 8))
    want = write(made, tmp_path / "whole", per_shard=4)
    pack, read = module._Chunks._pack, []

    def broken(self: Any, index: int) -> Any:
        if index == stop:
            raise KeyboardInterrupt
        return pack(self, index)

    def counted(self: Any, index: int) -> Any:
        read.append(index)
        return pack(self, index)

    monkeypatch.setattr(module, "_CHUNK", 1)
    monkeypatch.setattr(module._Chunks, "_pack", broken)
    with pytest.raises(KeyboardInterrupt):
        write(made, tmp_path / "out", per_shard=4)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(module._Chunks, "_pack", counted)
    assert write(made, tmp_path / "out", per_shard=4) == want
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(read) < 23 - stop + 7  # whole shards are not read again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t", "whole"]


def test_half_a_job_with_other_settings_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = table(tmp_path / "t")
    want = write(made, tmp_path / "whole", per_shard=5)
    pack = module._Chunks._pack
    with monkeypatch.context() as patch:
        patch.setattr(module, "_CHUNK", 1)
        patch.setattr(module._Chunks, "_pack", lambda self, n: 1 / 0 if n == 12 else pack(self, n))
        with pytest.raises(ZeroDivisionError):
            write(made, tmp_path / "out", per_shard=4)
    assert write(made, tmp_path / "out", per_shard=5) == want
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_shards_keep_to_their_size(tmp_path: Path) -> None:
    samples = [(f"s{n}", {"png": noise(n), "json": b'{"captions": {"en": "x"}}'}) for n in range(40)]
    made = shards(tmp_path / "s", samples)
    out = tmp_path / "out"
    written = write(made, out, per_shard=None, max_mb=0.1)
    sizes = [path.stat().st_size for path in expand(str(out))]
    assert written.shards == len(sizes) > 4 and max(sizes) <= 100_000
    assert min(sizes[:-1]) > 80_000  # and are filled
    assert [len(ShardSource([path])) for path in expand(str(out))] == list(
        json.loads((out / "sizes.json").read_text()).values()
    )


def noise(seed: int) -> bytes:
    import random

    stream = io.BytesIO()
    Image.frombytes("RGB", (64, 64), random.Random(seed).randbytes(64 * 64 * 3)).save(stream, "PNG")
    return stream.getvalue()


def test_large_images_are_made_small_and_small_ones_copied(tmp_path: Path) -> None:
    samples = [
        ("large", {"png": encoded((1, 2, 3), size=(120, 80)), "txt": b"x"}),
        ("small", {"png": encoded((4, 5, 6), size=(30, 20)), "txt": b"y"}),
    ]
    made = shards(tmp_path / "s", samples)
    write_shards(
        open_path(str(made), language="en"), tmp_path / "out", ShardOptions(image_size=40), workers=0, quiet=True
    )
    out = open_path(str(tmp_path / "out"))
    assert [out[n].image().size for n in range(2)] == [(60, 40), (30, 20)]
    assert out[1].image().getpixel((3, 3)) == (4, 5, 6)


def test_bad_inputs_are_left_out_counted_and_named(tmp_path: Path) -> None:
    written = write(table(tmp_path / "t", bad=(5, 6)), tmp_path / "out", languages=("en",))
    assert sorted(written.bad) == ["5.img"] and "cannot read image" in written.bad["5.img"]  # 6 has no English
    assert (written.samples, written.left_out) == (14, 8)
    with pytest.raises(DataError, match=r"no sample is left of 2; the first problem: 0.img: cannot read"):
        write(table(tmp_path / "b", 2, bad=(0, 1)), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    made, out = table(tmp_path / "t"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"out: is there already; choose another --out, or replace it with --overwrite"):
        write(made, out)
    assert (out / "thesis.tex").read_text() == "years of work"
    write(made, out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["shard-0000.tar", "sizes.json", "summary.json"]


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    for name in ("train/golden_retriever/1.png", "train/tench/1.jpg", "test/tench/2.jpeg"):
        (tmp_path / "i" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "i" / name).write_bytes(encoded(kind="PNG" if name.endswith("png") else "JPEG"))
    (tmp_path / "i" / "stray.png").write_bytes(encoded())
    source = read_tree(tmp_path / "i", language="en")
    assert [(source.meta(n).key, source.meta(n).split, source.meta(n).concept) for n in range(3)] == [
        ("test/tench/2.jpeg", "test", "tench"),
        ("train/golden_retriever/1.png", "train", "golden_retriever"),
        ("train/tench/1.jpg", "train", "tench"),
    ]
    assert source[1].captions == {"en": ("golden retriever",)}
    assert list(source.problems) == ["stray.png"]
    with pytest.raises(DataError, match=r"names of its folders are captions; say in which language"):
        read_tree(tmp_path / "i")


def test_a_folder_of_images_with_texts(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded())
    (tmp_path / "a.txt").write_text("ein Hund\n")
    (tmp_path / "b.png").write_bytes(encoded())
    (tmp_path / "b.json").write_text('{"captions": {"zh": "狗"}, "split": "test"}')
    (tmp_path / "c.png").write_bytes(encoded())
    source = read_tree(tmp_path, language="de")
    assert [(dict(source[n].captions), source[n].split) for n in range(2)] == [
        ({"de": ("ein Hund",)}, "train"), ({"zh": ("狗",)}, "test")
    ]  # fmt: skip
    assert source.problems == {"c.png": "no .json or .txt beside it"}
    with pytest.raises(DataError, match=r"no image with a caption \(0 images\)"):
        (tmp_path / "empty").mkdir()
        read_tree(tmp_path / "empty")


def test_the_command(tmp_path: Path) -> None:
    made, out = table(tmp_path / "t", bad=(5,)), tmp_path / "out"
    line = ["data", "shard", str(made), "--out", str(out), "--max-mb", "1", "--languages", "de", "--workers", "0"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert "samples" in result.output and "22" in result.output and "5.img: cannot read image" in result.output
    assert summarize(open_path(str(out))).languages == {"de": 44}
    shutil.rmtree(out)
    for option, value in (("--image-size", "4"), ("--per-shard", "0"), ("--quality", "101"), ("--max-mb", "0")):
        wrong = CliRunner().invoke(app, [*line, option, value])
        assert wrong.exit_code == 2 and f"{option} {value}: must be" in wrong.output
