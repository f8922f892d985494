"""Images a second from shards to batches: vlkit's loader beside open_clip's own pipeline, on the same shards.

Where ours decodes JPEGs at a reduced size, its pixels are not those of a full decode: by how much is measured too.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import io
import itertools
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlkit.bench.figures import Figures, by_turns, ratio
from vlkit.data.batches.loader import batches
from vlkit.data.build.writer import ShardWriter, record_bytes
from vlkit.data.formats.images import read_span
from vlkit.data.plan.sampling import PairSampler
from vlkit.data.sources.combine import read_metas
from vlkit.data.sources.shards import ShardSource, expand
from vlkit.errors import DataError
from vlkit.models.dual_encoder.batch import PairBatch, PairPreparer
from vlkit.types import TextBatch

_SIZE = 224
_COMPARED = 64  # images whose pixels are compared
_LENGTH = 77  # tokens a text, as in open_clip
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class LoaderFigures(Figures):
    """Rates of images and differences of pixels."""

    @staticmethod
    def rounded(value: Any) -> Any:
        """Four places after the point."""
        return round(value, 4) if isinstance(value, float) else value


@dataclass(frozen=True)
class _Work:
    shards: tuple[Path, ...]
    transform: Callable[[Image.Image], Tensor]
    batch_size: int
    workers: int
    steps: int


def bench_data(
    path: str | None = None, *, batch_size: int = 64, workers: int = 2, steps: int = 24, repeats: int = 5
) -> Figures:
    """Times both pipelines by turns, each from a fresh start, warm-up batches not counted.

    Both read the same shards with the same number of workers, the same batch size and the same transform (open_clip's,
    224 pixels); the time of a repeat is that of ``steps`` batches arriving in the training process. ``path`` is shards
    as WebDatasetSource takes them; None makes 1280 x 960 JPEGs.

    Raises:
        DataError: Fewer images than a batch.
    """
    import open_clip

    transform: Callable[[Image.Image], Tensor] = open_clip.image_transform(_SIZE, is_train=False, mean=_MEAN, std=_STD)
    with tempfile.TemporaryDirectory(prefix="vlkit-bench-") as folder:
        shards, count = _prepare(path, Path(folder), parts=max(2, workers))
        if count < batch_size:
            raise DataError(
                f"{count} images are fewer than one batch of {batch_size}; give more shards or a smaller --batch-size"
            )
        warm_up = 2 * max(1, workers)
        work = _Work(shards, transform, batch_size, workers, warm_up + steps)
        sides = {"ours": _ours, "peer": _peer}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for repeat, name in by_turns(sides, repeats):
            pixels = sides[name](work, repeat)
            rates[name].append(_rate(pixels, steps=steps, batch_size=batch_size, warm_up=warm_up))
        ours, peer = _differences(shards, transform)
    return LoaderFigures(
        throughput_ratio=ratio(rates["ours"], rates["peer"]),  # above 1: vlkit is the faster one
        pixel_difference=ours,  # mean, absolute, from a full decode, in levels of 0..255
        peer_pixel_difference=peer,
        ours_images_per_s=statistics.median(rates["ours"]),
        peer_images_per_s=statistics.median(rates["peer"]),
        peer=f"open_clip_torch {open_clip.__version__} (open_clip_train.data.get_wds_dataset)",
        images=count,
        batch_size=batch_size,
        workers=workers,
        repeats=repeats,
    )


def _differences(shards: Sequence[Path], transform: Callable[[Image.Image], Tensor]) -> tuple[float, float]:
    """How far our pixels and the peer's are from those of a full decode, over some images."""
    from webdataset.autodecode import imagehandler

    decode, source = imagehandler("pilrgb"), ShardSource(shards)
    std_C11 = torch.tensor(_STD).view(3, 1, 1)
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    for index in range(min(_COMPARED, len(source))):
        image: Any = source[index].image
        raw = read_span(image.path, image.span)
        with Image.open(io.BytesIO(raw)) as stored:
            whole_CHW = transform(stored.convert("RGB"))
        sides = {"ours": image.draft(_SIZE), "peer": decode(f"x.{_suffix(raw)}", raw)}
        for name, side in sides.items():
            found[name].append((((transform(side) - whole_CHW) * std_C11).abs().mean() * 255).item())
    return statistics.mean(found["ours"]), statistics.mean(found["peer"])


def _rate(pixels: Iterator[Tensor], *, steps: int, batch_size: int, warm_up: int) -> float:
    for _ in itertools.islice(pixels, warm_up):
        pass
    start = time.perf_counter()
    seen = sum(batch.shape[0] for batch in itertools.islice(pixels, steps))
    seconds = time.perf_counter() - start
    if seen != steps * batch_size:
        raise DataError(f"a pipeline gave {seen} images in {steps} batches of {batch_size}")
    return seen / seconds


def _ours(work: _Work, seed: int) -> Iterator[Tensor]:
    source = ShardSource(work.shards)
    sampler = PairSampler(read_metas(source), work.batch_size, seed=seed)
    preparer = PairPreparer(work.transform, _tokenize, draft_size=_SIZE)
    for batch in batches(source, sampler, preparer=preparer, steps=work.steps, num_workers=work.workers):
        if isinstance(batch, PairBatch) and batch.pixels_BCHW is not None:
            yield batch.pixels_BCHW


def _peer(work: _Work, seed: int) -> Iterator[Tensor]:
    arguments = types.SimpleNamespace(
        train_data="::".join(map(str, work.shards)),
        train_num_samples=work.steps * work.batch_size,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=seed,
        batch_size=work.batch_size,
        workers=work.workers,
        world_size=1,
    )
    data = _open_clip_data().get_wds_dataset(
        arguments, work.transform, is_train=True, tokenizer=lambda text: _tokenize([text]).ids_BL
    )
    for pixels_BCHW, _ in data.dataloader:
        yield pixels_BCHW


def _open_clip_data() -> Any:
    """open_clip's data module, made to run with the other packages as they are today; the pipeline stays its own.

    It imports pandas for its CSV reader alone: where that is missing an empty module stands in. webdataset >= 1.0 marks
    the end of each shard with an empty record, which open_clip <= 3.3 takes for a file: the marks are switched off.
    """
    from webdataset.tariterators import tar_file_expander

    stand_in = importlib.util.find_spec("pandas") is None
    if stand_in:
        sys.modules["pandas"] = types.ModuleType("pandas")
    try:
        module = importlib.import_module("open_clip_train.data")
    finally:
        if stand_in:
            del sys.modules["pandas"]
    if "eof_value" in inspect.signature(tar_file_expander).parameters:
        module.tar_file_expander = functools.partial(tar_file_expander, eof_value=None)  # type: ignore[attr-defined]
    return module


def _tokenize(texts: Sequence[str], *, language: str | None = None) -> TextBatch:
    """UTF-8 bytes: cheap, and the same on both sides."""
    ids_BL = torch.zeros((len(texts), _LENGTH), dtype=torch.int64)
    for row, text in enumerate(texts):
        raw = text.encode()[:_LENGTH]
        ids_BL[row, : len(raw)] = torch.frombuffer(bytearray(raw), dtype=torch.uint8).long() + 1 if raw else 0
    return TextBatch(ids_BL, (ids_BL > 0).long())


def _prepare(path: str | None, folder: Path, *, parts: int) -> tuple[tuple[Path, ...], int]:
    """A copy for both: at least one shard a worker, and the ``.txt`` that open_clip asks for beside each image."""
    samples = list(_made() if path is None else _copied(path))
    with ShardWriter(folder, per_shard=-(-len(samples) // parts)) as writer:
        for number, (suffix, image, caption) in enumerate(samples):
            text = {"txt": caption.encode(), "json": record_bytes({"en": [caption]})}
            writer.write(f"{number:06d}", {suffix: image, **text})
    return expand(str(folder)), len(samples)


def _copied(path: str) -> Iterator[tuple[str, bytes, str]]:
    source = ShardSource(expand(path), language="en")
    for index in range(min(len(source), 4096)):
        sample = source[index]
        image: Any = sample.image
        raw = read_span(image.path, image.span)
        yield _suffix(raw), raw, next(iter(sample.captions.values()))[0]


def _suffix(raw: bytes) -> str:
    return "png" if raw[:4] == b"\x89PNG" else "webp" if raw[8:12] == b"WEBP" else "jpg"


def _made(count: int = 256) -> Iterator[tuple[str, bytes, str]]:
    random = np.random.default_rng(0)
    for number in range(count):
        yield "jpg", made_photo(random, width=1280, height=960), f"a made photo, number {number}"


def made_photo(random: np.random.Generator, *, width: int, height: int) -> bytes:
    """A photo-like JPEG: colour fields, edges at all scales, and grain."""
    scene = np.zeros((height, width, 3))
    for scale in (16, 64, 256):  # detail of a photo falls off with its frequency
        noise = random.integers(0, 256, (scale * 3 // 4, scale, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        scene += (np.asarray(layer, dtype=np.float64) - 127.5) * (8 / scale) ** 0.5
    grain = random.integers(-6, 7, scene.shape)
    stream = io.BytesIO()
    Image.fromarray(np.clip(127.5 + scene + grain, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()
