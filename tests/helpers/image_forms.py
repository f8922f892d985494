"""The same tiny image set written in all the forms that people have."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers.evaluate_fakes import picture

Files = dict[str, bytes]
"""Name of a class / name of an image -> encoded image, class by class, in each by name."""


def make_files(classes: Sequence[str], *, each: int = 3, suffix: str = ".png") -> Files:
    """Images that differ, ``each`` a class; their names do not tell the class."""
    return {
        f"{name}/img_{(7 * number + one * len(classes)) % 100:02d}_{one}{suffix}": encoded(100 * number + one)
        for number, name in enumerate(classes)
        for one in range(each)
    }


def encoded(seed: int) -> bytes:
    stream = io.BytesIO()
    picture(seed).save(stream, "png")
    return stream.getvalue()


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_tar(path: Path, files: Mapping[str, bytes], mode: Any = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def by_class(files: Mapping[str, bytes]) -> dict[str, Files]:
    found: dict[str, Files] = {}
    for name, content in files.items():
        label, _, rest = name.partition("/")
        found.setdefault(label, {})[rest] = content
    return found


def write_tar_of_tars(path: Path, files: Mapping[str, bytes]) -> Path:
    inner = {}
    for label, images in by_class(files).items():
        inner[f"{label}.tar"] = write_tar(path.parent / "inner" / f"{label}.tar", images).read_bytes()
    return write_tar(path, inner)


def write_benchmark_shards(
    root: Path, files: Mapping[str, bytes], label_of: Callable[[str], int], names: Sequence[str] | None
) -> Path:
    """CLIP_benchmark's layout: test/{0..n}.tar, nshards.txt, classnames.txt."""
    samples = [
        {f"s{number:07d}.png": content, f"s{number:07d}.cls": str(label_of(name.partition("/")[0])).encode()}
        for number, (name, content) in enumerate(files.items())
    ]
    shards = [samples[start : start + 4] for start in range(0, len(samples), 4)]
    for number, shard in enumerate(shards):
        write_tar(root / "test" / f"{number}.tar", {name: raw for sample in shard for name, raw in sample.items()})
    (root / "test" / "nshards.txt").write_text(f"{len(shards)}\n")
    if names is not None:
        (root / "classnames.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return root


def write_json_shards(root: Path, files: Mapping[str, bytes]) -> Path:
    """Plain shards, shuffled, with a WordNet id in the .json."""
    pairs = list(files.items())
    shards = [pairs[1::2], pairs[::2]]
    for number, shard in enumerate(shards):
        content: Files = {}
        for name, raw in reversed(shard):
            label, _, rest = name.partition("/")
            key = f"{label}-{rest.partition('.')[0]}"
            content[f"{key}.png"] = raw
            content[f"{key}.json"] = json.dumps({"label": label, "width": 9}).encode()
        write_tar(root / f"part-{number:05d}.tar", content)
    return root


def write_parquet(
    path: Path,
    files: Mapping[str, bytes],
    label_of: Callable[[str], int | str | None],
    *,
    names: Sequence[str] | None = None,
    paths: bool = True,
    group: int = 4,
) -> Path:
    """As `datasets` writes it for the hub: image {bytes, path}, label, and its features in the schema."""
    import pyarrow as arrow
    import pyarrow.parquet

    rows = [
        {
            "image": {"bytes": raw, "path": name.rpartition("/")[2] if paths else None},
            "label": label_of(name.partition("/")[0]),
        }
        for name, raw in files.items()
    ]
    table = arrow.Table.from_pylist(rows)
    features: dict[str, Any] = {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "int64"}}
    if names is not None:
        features["label"] = {"_type": "ClassLabel", "names": list(names)}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path
