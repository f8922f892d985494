"""`vlkit data shard`: what goes in comes out, with the same bytes however it was made."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
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
from vlkit.errors import DataError, VlkitError


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


def stop_half_way(made: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes shards of four up to the twelfth sample."""
    pack = module._Chunks._pack
    with monkeypatch.context() as patch:
        patch.setattr(module, "_CHUNK", 1)
        patch.setattr(module._Chunks, "_pack", lambda self, n: 1 / 0 if n == 12 else pack(self, n))
        with pytest.raises(ZeroDivisionError):
            write(made, out, per_shard=4)


def test_half_a_job_with_other_settings_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = table(tmp_path / "t")
    want = write(made, tmp_path / "whole", per_shard=5)
    stop_half_way(made, tmp_path / "out", monkeypatch)
    assert write(made, tmp_path / "out", per_shard=5) == want
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def mended_caption(made: Path) -> None:
    made.write_text(made.read_text().replace('Ding 2"', 'Ding zwei"'))


def replaced_image(made: Path) -> None:
    path = made.parent / "2.img"
    times = path.stat()
    path.write_bytes(encoded((99, 99, 99), size=(90, 60)))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as cp -p and rsync -t leave it


@pytest.mark.parametrize("change", [mended_caption, replaced_image])
def test_half_a_job_on_other_contents_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    made = table(tmp_path / "t")
    stop_half_way(made, tmp_path / "out", monkeypatch)
    change(made)
    written = write(made, tmp_path / "out", per_shard=4)
    assert written == write(made, tmp_path / "whole", per_shard=4)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_call_that_was_stopped_in_its_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = table(tmp_path / "t")
    with monkeypatch.context() as patch:
        patch.setattr(module, "shutil", None)  # with which the shards' first place is taken away
        with pytest.raises(AttributeError):
            write(made, tmp_path / "out")
    times = [path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()]
    assert write(made, tmp_path / "out").samples == 23
    assert [path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()] == times  # nothing was left to do
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t"]


def test_a_full_disk_is_told_and_the_same_call_goes_on(tmp_path: Path) -> None:
    made = table(tmp_path / "t", 200)
    line = ["data", "shard", str(made), "--out", str(tmp_path / "out"), "--per-shard", "20", "--workers", "1"]
    code = (
        "import resource, signal, sys\n"
        "from vlkit.cli.app import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.argv = ['vlkit', *{line!r}]\n"
        "main()\n"
    )
    full = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert full.returncode == 2 and not (tmp_path / "out").exists()
    assert full.stderr.strip().splitlines()[-1] == (
        f"error: cannot write {tmp_path}/out: File too large; free some space or choose a place that can be written to "
        "(outputs: --out or run.folder, caches: the environment variable VLKIT_HOME), then run the same command "
        "again, it goes on from there"
    )
    assert CliRunner().invoke(app, line).exit_code == 0
    write(made, tmp_path / "whole", per_shard=20)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_phone_photos_and_small_formats_are_copied_as_they_are(tmp_path: Path) -> None:
    kinds = {"a.jpg": "MPO", "b.avif": "AVIF", "c.jp2": "JPEG2000", "d.jfif": "JPEG", "e.gif": "GIF"}
    (tmp_path / "i").mkdir()
    for name, kind in kinds.items():
        (tmp_path / "i" / name).write_bytes(encoded(kind=kind, size=(64, 48)))
        (tmp_path / "i" / name).with_suffix(".txt").write_text(name)
    write_shards(open_path(str(tmp_path / "i"), language="en"), tmp_path / "o", ShardOptions(), workers=0, quiet=True)
    with tarfile.open(tmp_path / "o" / "shard-0000.tar") as archive:
        names = [one.name.partition(".")[2] for one in archive if not one.name.endswith("json")]
        raw = [archive.extractfile(one).read() for one in archive if not one.name.endswith("json")]  # type: ignore[union-attr]
    assert names == ["jpg", "avif", "jp2", "jpg", "png"]
    assert raw[:4] == [(tmp_path / "i" / name).read_bytes() for name in list(kinds)[:4]]


def test_what_is_called_alike_or_not_in_utf8_is_counted_and_written(tmp_path: Path) -> None:
    broken = encoded()[:40]
    for name in ("a", "b"):
        shards(tmp_path / name, [("0", {"png": broken, "txt": b"x"}), ("1", {"png": encoded(), "txt": b"y"})])
    written = write_shards(
        open_path(str(tmp_path / "{a,b}" / "shard-0000.tar"), language="en"), tmp_path / "o", ShardOptions(), workers=0,
        quiet=True,
    )  # fmt: skip
    assert (written.samples, list(written.bad)) == (2, ["0", "0 (2)"])
    images = tmp_path / "i"
    images.mkdir()
    name = os.fsdecode(b"caf\xe9")
    (images / f"{name}.png").write_bytes(encoded())
    (images / f"{name}.txt").write_text("Kaffee")
    (images / f"{name}2.png").write_bytes(broken)
    (images / f"{name}2.txt").write_text("Tee")
    written = write_shards(open_path(str(images), language="de"), tmp_path / "p", ShardOptions(), quiet=True, workers=1)
    assert list(written.bad) == [r"caf\xe92.png"] and json.loads((tmp_path / "p" / "summary.json").read_text())
    assert dict(open_path(str(tmp_path / "p"))[0].captions) == {"de": ("Kaffee",)}


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
    with pytest.raises(VlkitError, match=r"something else than shards of vlkit data shard \(thesis\.tex\), and all"):
        write(made, out, overwrite=True)
    assert (out / "thesis.tex").read_text() == "years of work"
    (out / "thesis.tex").unlink()
    write(made, out)
    with pytest.raises(DataError, match="replace it with --overwrite"):
        write(made, out, per_shard=5)
    write(made, out, per_shard=20, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "shard-0000.tar", "shard-0001.tar", "sizes.json", "summary.json"
    ]  # fmt: skip
    (out / "notes.txt").write_text("why these")
    with pytest.raises(VlkitError, match=r"and beside it notes\.txt, which vlkit did not write and would delete"):
        write(made, out, overwrite=True)


def test_originals_are_never_replaced(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    table(photos)
    for out in (photos, tmp_path / "." / "photos", tmp_path / "photos" / ".." / "photos"):
        line = ["data", "shard", str(photos / "table.jsonl"), "--out", str(out), "--overwrite", "--workers", "0"]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 2 and "holds something else than shards" in result.output
    write(photos / "table.jsonl", tmp_path / "shards")
    (tmp_path / "link").symlink_to(tmp_path / "shards")
    before = contents(tmp_path / "shards")
    for out in (tmp_path / "shards", tmp_path / "link"):  # smaller ones in the place of what they are made of
        with pytest.raises(VlkitError, match=r"would be replaced and holds .*shard-0000\.tar, which is read here"):
            write(tmp_path / "shards", out, image_size=16, overwrite=True)
    assert contents(tmp_path / "shards") == before and len(list(photos.iterdir())) == 24
    assert [path.name for path in tmp_path.glob(".*")] == []


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
