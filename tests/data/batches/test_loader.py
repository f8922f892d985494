from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.helpers.data_factory import encoded, record, shards, source, tokenize, transform
from vlkit.data.batches.loader import batches
from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.plan.sampling import PairSampler
from vlkit.data.sources.combine import read_metas
from vlkit.data.sources.shards import ShardSource
from vlkit.errors import DataError
from vlkit.models.augment import Augment
from vlkit.models.dual_encoder.batch import PairBatch, PairPreparer
from vlkit.parts.tokenizers import tokenize_mixed
from vlkit.spec.dataset import AugmentSpec


def same(ones: Sequence[PairBatch], others: Sequence[PairBatch]) -> bool:
    return len(ones) == len(others) and all(
        torch.equal(one.pixels_BCHW, other.pixels_BCHW)  # type: ignore[arg-type]
        and torch.equal(one.tokens.ids_BL, other.tokens.ids_BL)  # type: ignore[union-attr]
        and (one.languages, one.concepts) == (other.languages, other.concepts)
        for one, other in zip(ones, others, strict=True)
    )


def load(found: ShardSource, *, steps: int = 8, **settings: object) -> list[PairBatch]:
    sampler = PairSampler(read_metas(found), 4, seed=0)
    preparer = PairPreparer(transform, tokenize, Augment(settings.pop("augment", AugmentSpec())))  # type: ignore[arg-type]
    return list(batches(found, sampler, preparer=preparer, steps=steps, **settings))  # type: ignore[arg-type]


def with_bad(folder: Path, count: int, bad: set[int]) -> ShardSource:
    good = [encoded((n, 0, 0)) for n in range(count)]
    samples = [
        (f"s{n:03d}", {"png": good[n][:45] if n in bad else good[n], "json": json.dumps(record(n)).encode()})
        for n in range(count)
    ]
    return source(shards(folder, samples))


def test_batches_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    found = with_bad(tmp_path / "s", 12, {3, 7})
    augment = AugmentSpec(crop_scale=(0.5, 1.0), flip=0.5, color=0.3)
    runs = []
    for workers in (0, 1, 2):
        bad = BadSamples(0.5, total=12)
        runs.append((load(found, num_workers=workers, augment=augment, bad=bad), bad.reasons))
    assert same(runs[0][0], runs[1][0]) and same(runs[0][0], runs[2][0])
    assert runs[0][1] == runs[1][1] == runs[2][1] and sorted(runs[0][1]) == [3, 7]


def test_a_resumed_run_gets_the_same_batches(tmp_path: Path) -> None:
    found = source(shards(tmp_path / "s", count=12))
    whole = load(found)
    assert same(whole[5:], load(found, start_step=5))
    assert load(found, start_step=8) == []


def test_the_ranks_share_a_batch(tmp_path: Path) -> None:
    found = source(shards(tmp_path / "s", count=12))
    whole, parts = load(found), [load(found, rank_of=(rank, 2)) for rank in range(2)]
    for step in range(8):
        rows = [whole[step].concepts[rank::2] for rank in range(2)]
        assert [part[step].concepts for part in parts] == rows


def test_reading_leaves_the_runs_own_random_numbers_alone(tmp_path: Path) -> None:
    found = source(shards(tmp_path / "s", count=12))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(found, num_workers=1, augment=AugmentSpec(flip=0.5))
    assert torch.equal(torch.rand(3), expected)


def test_pairs_belong_together(tmp_path: Path) -> None:
    for batch in load(source(shards(tmp_path / "s", count=12))):
        assert batch.pixels_BCHW is not None and batch.tokens is not None
        for pixels_CHW, ids, language, concept in zip(
            batch.pixels_BCHW, batch.tokens.ids_BL, batch.languages, batch.concepts, strict=True
        ):
            number = int(concept[1:])
            assert round(float(pixels_CHW[0, 0, 0]) * 255) == number
            text = bytes(ids[ids > 0].tolist()).decode()
            assert text in ([f"en:thing {number}"] if language == "en" else [f"de:Ding {number}", f"de:Sache {number}"])


def test_too_many_bad_samples_end_the_run_and_are_named(tmp_path: Path) -> None:
    found = with_bad(tmp_path / "s", 12, {1, 2, 3, 5, 6, 8, 9})
    for workers in (0, 2):
        bad = BadSamples(0.5, total=12)
        with pytest.raises(DataError) as caught:
            load(found, steps=50, num_workers=workers, bad=bad)
        lines = str(caught.value).splitlines()
        assert lines[0] == (
            "7 of 12 samples cannot be read, more than data.max_bad_share = 0.5 allows; "
            "repair or remove them, or raise data.max_bad_share:"
        )
        assert len(lines) == 7 and all("cannot read image s00" in line for line in lines[1:6])
        assert lines[6] == "  ... and 2 more"


def test_without_a_tolerance_any_bad_sample_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 12 samples cannot be read"):
        load(with_bad(tmp_path / "s", 12, {4}))


def test_data_with_nothing_readable_ends(tmp_path: Path) -> None:
    found = with_bad(tmp_path / "s", 6, set(range(6)))
    with pytest.raises(DataError, match="step 0: 1000 unreadable samples in a row; the last: s00"):
        load(found, num_workers=1, bad=BadSamples(1.0, total=6))


def test_bad_samples_are_logged_while_they_are_few(caplog: pytest.LogCaptureFixture) -> None:
    bad = BadSamples(1.0, total=10)
    with caplog.at_level(logging.WARNING):
        for number in [*range(8), 0, 1]:
            bad.record(f"k{number}", "broken")
    assert len(bad) == 8
    assert [line.getMessage() for line in caplog.records] == [
        *(f"bad sample skipped: k{number}: broken" for number in range(5)),
        "more bad samples are skipped and counted, not named",
    ]


def test_mixed_languages_are_tokenised_each_as_its_own() -> None:
    tokens = tokenize_mixed(tokenize, ["a", "bbbb", "cc"], ["de", "en", "de"])
    for row, (language, text) in enumerate([("de", "a"), ("en", "bbbb"), ("de", "cc")]):
        alone = tokenize([text], language=language)
        length = int(alone.mask_BL.sum())
        assert torch.equal(tokens.ids_BL[row, :length], alone.ids_BL[0])
        assert int(tokens.mask_BL[row].sum()) == length


def test_texts_are_padded_to_the_longest_of_the_batch(tmp_path: Path) -> None:
    for batch in load(source(shards(tmp_path / "s", count=12))):
        assert batch.tokens is not None
        assert batch.tokens.ids_BL.shape[1] == int(batch.tokens.mask_BL.sum(dim=1).max())


def test_where_no_images_are_asked_for_none_is_read(tmp_path: Path) -> None:
    found = with_bad(tmp_path / "s", 12, set(range(12)))
    sampler = PairSampler(read_metas(found), 4, seed=0)
    for batch in batches(found, sampler, preparer=PairPreparer(None, tokenize), steps=3):
        assert isinstance(batch, PairBatch)
        assert batch.pixels_BCHW is None and len(batch.captions) == 4
