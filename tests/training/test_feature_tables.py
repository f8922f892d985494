"""Tables of cached features: equal to what the encoder gives for each sample, whatever happened to the files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.data_factory import shards
from tests.helpers.train_factory import drawings, read_rows, recipe, write_rows
from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.plan.pairs import open_pairs
from vlkit.data.sources.table import TableSource
from vlkit.distributed.runtime import Runtime
from vlkit.errors import DataError
from vlkit.models.dual_encoder.frozen import frozen_parts
from vlkit.models.feature_cache import FrozenImages, FrozenPart, FrozenTexts, encode_frozen
from vlkit.models.registry import build
from vlkit.parts.encoders import build_image_encoder, build_text_encoder
from vlkit.spec.dataset import AugmentSpec
from vlkit.spec.parts import TinyImage, TinyText
from vlkit.training import feature_tables as tables
from vlkit.training.batches import LookedUpBatches, PlannedBatches
from vlkit.training.feature_tables import ImageTable, TextTable, view_of
from vlkit.training.frozen_features import FrozenFeatures
from vlkit.training.loop import train
from vlkit.types import Batch, Sample, SampleMeta

SPEC = TinyImage(image_size=16, width=16, depth=1)


def encoder(seed: int = 0, spec: TinyImage = SPEC) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_image_encoder(spec)


def make_table(
    source: TableSource, image: torch.nn.Module, *, views: int = 1, seed: int = 0, limit: float = 0.0
) -> ImageTable:
    augment = AugmentSpec(flip=0.5, color=0.5)
    bad = BadSamples(limit, total=len(source))
    part = FrozenImages("image", image, image.transform)
    return ImageTable(part, source, augment=augment, views=views, seed=seed, bad=bad)


@pytest.fixture
def source(tmp_path: Path) -> TableSource:
    return TableSource(drawings(tmp_path / "data", 10))


def counted(module: torch.nn.Module) -> list[int]:
    rows: list[int] = []
    module.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    return rows


def test_cached_equals_uncached(source: TableSource) -> None:
    image = encoder()
    pixels = torch.stack([image.transform(source[index].image()) for index in range(10)])
    table = make_table(source, image, views=3)
    assert table.all_rows().shape == (10, 3, 16) and table.bad == frozenset()
    torch.testing.assert_close(table.all_rows()[:, 0], encode_frozen(image, pixels), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(table.look_up([4, 2, 4], [0, 1, 2])[1], table.all_rows()[2, 1])
    counts = counted(image)
    assert torch.equal(make_table(source, image, views=3).all_rows(), table.all_rows())
    assert counts == []


def test_a_table_that_was_interrupted_goes_on_with_the_same_bits(
    source: TableSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tables, "_IMAGES", 4)
    plain, counts, stop_at = tables._encode, list[int](), 3

    def stopping(part: FrozenPart, inputs: Any) -> torch.Tensor:
        counts.append(len(inputs))
        if len(counts) == stop_at:
            raise KeyboardInterrupt
        return plain(part, inputs)

    monkeypatch.setattr(tables, "_encode", stopping)
    with pytest.raises(KeyboardInterrupt):
        make_table(source, encoder(), views=2)
    found = make_table(source, encoder(), views=2).all_rows()
    assert counts == [4, 4, 4, 4, 4, 4]  # two were kept, the third is done again
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "another"))
    assert torch.equal(make_table(source, encoder(), views=2).all_rows(), found)
    assert counts == [4] * 11


def test_views_differ_and_hang_on_the_seed(source: TableSource) -> None:
    image = encoder()
    one, again, other = (make_table(source, image, views=3, seed=seed).all_rows() for seed in (0, 0, 1))
    assert torch.equal(one, again) and torch.equal(one[:, 0], other[:, 0])
    assert (one[:, 1] != other[:, 1]).any(dim=1).sum() > 7
    assert (one[:, 1] != one[:, 2]).any(dim=1).sum() > 7
    assert torch.equal(make_table(source, image).all_rows(), one[:, :1])


def test_another_encoder_transform_or_file_misses(source: TableSource, tmp_path: Path) -> None:
    first = make_table(source, encoder()).all_rows()
    retrained, resized = encoder(1), encoder(0)
    resized.transform.settings["size"] = "another"
    for image in (retrained, resized):
        counts = counted(image)
        make_table(source, image)
        assert counts == [10]
    (tmp_path / "data" / "3.png").write_bytes((tmp_path / "data" / "4.png").read_bytes())
    image = encoder()
    counts = counted(image)
    second = make_table(source, image).all_rows()
    assert counts == [1]
    torch.testing.assert_close(second[3], first[4], atol=1e-6, rtol=1e-5)


def test_bad_images_are_counted_and_never_remembered(
    source: TableSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "data" / "3.png"
    raw, times = path.read_bytes(), path.stat()
    path.write_bytes(raw[:40] + bytes(len(raw) - 40))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            table = make_table(source, encoder(), views=2, limit=0.1)
        assert table.bad == {3} and not table.all_rows()[3].any() and table.all_rows()[4].any()
        assert [message for message in caplog.messages if message.startswith("bad sample skipped: 3.png: cannot read")]
    with pytest.raises(DataError, match=r"^1 of 10 samples cannot be read, more than data\.max_bad_share = 0\.05"):
        make_table(source, encoder(), limit=0.05)
    path.write_bytes(raw)  # repaired, of the same size and time
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert make_table(source, encoder()).bad == frozenset()


def test_sources_of_other_kinds_are_known_by_their_pixels(source: TableSource) -> None:
    class Own:
        def __init__(self, broken: int | None = None) -> None:
            self.broken = broken

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Sample:
            def image() -> object:
                if index == self.broken:
                    raise DataError("no such picture")
                return source[index].image()

            return Sample(str(index), (image,), {"en": ("x",)})  # type: ignore[arg-type]

        def meta(self, index: int) -> SampleMeta:
            return SampleMeta(str(index), "", "train", ("en",), (1,))

    whole = make_table(Own(), image := encoder()).all_rows()  # type: ignore[arg-type]
    torch.testing.assert_close(whole, make_table(source, encoder()).all_rows()[:4], atol=1e-6, rtol=1e-5)
    counts = counted(image)
    assert make_table(Own(2), image, limit=0.5).bad == {2}  # type: ignore[arg-type]
    assert counts == []


def test_texts_are_looked_up_in_their_language(source: TableSource, tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = build_text_encoder(TinyText(width=16, depth=1))
    rows = read_rows(source.table)
    rows[0]["captions"]["fr"] = "thing 0"
    write_rows(source.table, rows)
    table = TextTable(FrozenTexts("text", text, text.tokenize), TableSource(source.table), languages=("en", "fr"))
    texts, tags = ["thing 0", "chose 4", "a thing 9", "thing 0"], ["en", "fr", "en", "fr"]
    expected = torch.cat(
        [encode_frozen(text, text.tokenize([one], language=tag)) for one, tag in zip(texts, tags, strict=True)]
    )
    torch.testing.assert_close(table.look_up(texts, tags), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(KeyError):
        table.look_up(["Ding 1"], ["de"])
    calls: list[int] = []
    text.register_forward_pre_hook(lambda _, args: calls.append(len(args[0].ids_BL)))
    again = TextTable(FrozenTexts("text", text, text.tokenize), TableSource(source.table), languages=("en", "fr"))
    assert calls == [] and torch.equal(again.all_rows(), table.all_rows())


def test_every_view_comes_up() -> None:
    from vlkit.types import Pick

    assert {view_of(Pick(0, "en", 0, seed), 3) for seed in range(9)} == {0, 1, 2}
    assert {view_of(Pick(0, "en", 0, seed), 1) for seed in range(9)} == {0}


def test_cached_steps_open_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards(tmp_path / "shards", count=12)
    data = {"sources": [{"kind": "webdataset", "path": str(tmp_path / "shards")}]}
    made = recipe(tmp_path, tmp_path / "run", data=data)
    opened: list[Path] = []
    plain = Path.open

    def counting(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(self)
        return plain(self, *args, **kwargs)

    def noting(self: LookedUpBatches, start: int, stop: int) -> Iterator[Batch]:
        opened.clear()
        for batch in steps(self, start, stop):
            assert len(batch.captions) == 6 and batch.image_BD is not None and batch.text_BD is not None
            during.extend(path for path in opened if path.suffix == ".tar")
            yield batch
            opened.clear()

    during: list[Path] = []
    steps, reading = LookedUpBatches.steps, PlannedBatches.steps
    monkeypatch.setattr(Path, "open", counting)
    monkeypatch.setattr(LookedUpBatches, "steps", noting)
    train(made)
    assert during == []
    uncached = recipe(tmp_path, tmp_path / "run", data=data, loop={"cache_features": False})
    monkeypatch.setattr(PlannedBatches, "steps", lambda self, start, stop: opened.clear() or reading(self, start, stop))
    train(uncached, overwrite=True)
    assert any(path.suffix == ".tar" for path in opened)  # it would have been seen


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
def test_grids_of_tokens_are_looked_up_as_pooled_features_are(source: TableSource, kept: torch.dtype) -> None:
    image = encoder()
    part = FrozenImages("vision", image, image.transform, encode=image.tokens, dtype=kept, settings={"of": "tokens"})
    bad = BadSamples(0.0, total=len(source))
    pixels = torch.stack([image.transform(source[index].image()) for index in range(10)])
    fresh_NMD = encode_frozen(image, pixels, encode=image.tokens)
    counts: list[int] = []
    part.module.blocks[0].register_forward_pre_hook(lambda _, args: counts.append(len(args[0])))
    for expected in ([10], [10]):
        table = ImageTable(part, source, augment=AugmentSpec(), views=1, seed=0, bad=bad)
        found_BMD = table.look_up([7, 2], [0, 0])
        assert found_BMD.dtype == kept and found_BMD.shape[1] > 1
        torch.testing.assert_close(found_BMD, fresh_NMD[[7, 2]].to(kept), atol=1e-6, rtol=1e-2)
        assert counts == expected
    assert make_table(source, image).all_rows().shape == (10, 1, 16)  # pooled ones are others


def test_tables_are_by_part_and_only_of_what_is_frozen(source: TableSource, tmp_path: Path) -> None:
    made = recipe(source.table, tmp_path / "run")
    model = build(made.model)
    found, sampler = open_pairs(made.data, batch_size=6, seed=0)
    bad = BadSamples(0.0, total=10)
    features = FrozenFeatures(made, Runtime(torch.device("cpu")), frozen_parts(model), found, sampler.languages, bad)

    def tables(*needs: str) -> dict[str, Any]:
        features.prepare(needs)
        return dict(features.tables)

    model.requires_grad_(False)
    first = tables("image", "text")
    assert list(first) == ["image", "text"] == [table.part.name for table in first.values()]
    assert tables() == first and features.table("image") is first["image"]
    assert tables("text") == {} and features.table("image") is None  # losses between texts look at no image
    model.text.requires_grad_(True)
    assert tables("image", "text") == {"image": first["image"]}
    model.image.requires_grad_(True)
    model.text.requires_grad_(False)
    assert tables("image", "text") == {}  # who reads pixels tokenises too
    model.image.requires_grad_(False)
    again = tables("image", "text")
    assert again["image"] is not first["image"] and again["text"] is not first["text"]
