"""Shares of sources and languages over indexed data: what is asked for is what the batches hold."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.data_factory import encoded, shards, tokenize, transform
from vlkit.data.batches.loader import batches
from vlkit.data.plan.pairs import open_pairs
from vlkit.data.plan.sampling import PairSampler
from vlkit.data.plan.weighted import Quotas, Shares, WeightedPairSampler
from vlkit.errors import DataError
from vlkit.models.dual_encoder.batch import PairPreparer
from vlkit.spec.dataset import DataSpec, UniformMixing, WeightsMixing
from vlkit.types import SampleMeta

ZH_EN = WeightsMixing(weights={"zh": 0.3, "en": 0.7})


def pairs(count: int, *languages: str, start: int = 0, variants: int = 1) -> list[SampleMeta]:
    return [
        SampleMeta(f"{n}", f"c{n // variants}", "train", languages, (1,) * len(languages))
        for n in range(start, start + count)
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.05, 9), min_size=1, max_size=5), st.integers(1, 70), st.integers(0, 9))
def test_quotas_are_met_and_count_what_came_before(weights: list[float], rows: int, seed: int) -> None:
    quotas = Quotas(weights, rows=rows, seed=[seed])
    before = Counter[int]()
    for step in range(2 * quotas.steps):
        strata, ranks = quotas.draw(step)
        assert len(strata) == rows
        for stratum, rank in zip(strata.tolist(), ranks.tolist(), strict=True):
            assert rank == before[stratum]
            before[stratum] += 1
        for stratum, weight in enumerate(weights):  # at every step, not only in the long run
            assert abs(before[stratum] - weight / sum(weights) * before.total()) <= 2 + len(weights)
    for stratum, weight in enumerate(weights):
        assert abs(before[stratum] - weight / sum(weights) * before.total()) <= 2


def test_languages_have_their_shares_where_each_image_has_only_one() -> None:
    metas = [*pairs(900, "en"), *pairs(100, "zh", start=900)]
    sampler = WeightedPairSampler(metas, 16, shares=Shares([0] * 1000), seed=0, mixing=ZH_EN)
    seen = Counter(pick.language for step in range(1000) for pick in sampler.plan(step))
    assert abs(seen["zh"] / seen.total() - 0.3) < 0.01
    shown = Counter(pick.index for step in range(300) for pick in sampler.plan(step))
    rare, usual = ([shown[n] for n in numbers] for numbers in (range(900, 1000), range(900)))
    assert max(rare) - min(rare) <= 3 and max(usual) - min(usual) <= 2  # each language deals all of its images


def test_sources_have_their_shares_and_deal_all_their_images() -> None:
    metas = [*pairs(30, "en", "de"), *pairs(300, "en", "de", start=30)]
    shares = Shares([0] * 30 + [1] * 300, (1.0, 3.0))
    sampler = WeightedPairSampler(metas, 8, shares=shares, seed=0, mixing=UniformMixing(), distinct_concepts=False)
    plans = [sampler.plan(step) for step in range(1000)]
    seen = Counter(pick.index < 30 for plan in plans for pick in plan)
    assert abs(seen[True] / 8000 - 0.25) < 0.01
    shown = Counter(pick.index for plan in plans for pick in plan)
    for numbers in (range(30), range(30, 330)):
        counts = [shown[n] for n in numbers]
        assert max(counts) - min(counts) <= 1  # epochs: no image a second time before all others came


def test_sources_and_languages_together() -> None:
    metas = [*pairs(40, "en", "zh"), *pairs(40, "en", start=40)]
    shares = Shares([0] * 40 + [1] * 40, (0.5, 0.5))
    sampler = WeightedPairSampler(metas, 8, shares=shares, seed=0, mixing=ZH_EN)
    seen = Counter((pick.index < 40, pick.language) for step in range(1000) for pick in sampler.plan(step))
    assert {key: count / 8000 for key, count in seen.items()} == {
        (True, "zh"): pytest.approx(0.15, abs=0.01),
        (True, "en"): pytest.approx(0.35, abs=0.01),
        (False, "en"): pytest.approx(0.5, abs=0.01),
    }


@pytest.mark.parametrize("mixing", [UniformMixing(), ZH_EN])
def test_batches_of_a_single_language(mixing: UniformMixing | WeightsMixing) -> None:
    metas = [*pairs(60, "en", "zh"), *pairs(60, "en", start=60)]
    sampler = WeightedPairSampler(
        metas, 8, shares=Shares([0] * 120, None, "single"), seed=0, mixing=mixing, distinct_concepts=False
    )
    languages = [{pick.language for pick in sampler.plan(step)} for step in range(1000)]
    assert all(len(one) == 1 for one in languages)
    share = sum("zh" in one for one in languages) / 1000
    assert abs(share - (0.25 if isinstance(mixing, UniformMixing) else 0.3)) < 0.02
    assert all(pick.index < 60 for step in range(50) for pick in sampler.plan(step) if pick.language == "zh")


def test_a_plan_is_a_function_of_seed_and_step() -> None:
    metas = [*pairs(50, "en"), *pairs(50, "zh", start=50)]
    one, two, other = (
        WeightedPairSampler(metas, 8, shares=Shares([0] * 100), seed=seed, mixing=ZH_EN) for seed in (1, 1, 2)
    )
    forward = [one.plan(step) for step in range(20)]
    assert forward == [two.plan(step) for step in reversed(range(20))][::-1]
    assert forward == [pickle.loads(pickle.dumps(one)).plan(step) for step in range(20)]  # noqa: S301
    assert forward != [other.plan(step) for step in range(20)]


def test_no_concept_twice_in_a_batch() -> None:
    metas = [*pairs(48, "en", variants=3), *pairs(48, "zh", variants=3)]
    sampler = WeightedPairSampler(metas, 8, shares=Shares([0] * 96), seed=0, mixing=ZH_EN)
    for step in range(100):
        assert len({metas[pick.index].concept for pick in sampler.plan(step)}) == 8


def test_spares_are_of_the_same_kind() -> None:
    metas = [*pairs(40, "en"), *pairs(40, "zh", start=40)]
    sampler = WeightedPairSampler(metas, 8, shares=Shares([0] * 40 + [1] * 40, (1, 1)), seed=0, mixing=UniformMixing())
    for step in range(10):
        plan = sampler.plan(step)
        taken = {pick.index for pick in plan}
        for row, pick in enumerate(plan):
            spares = [sampler.spare(step, row, attempt=attempt) for attempt in range(4)]
            assert {spare.language for spare in spares} == {pick.language}
            assert not taken & {spare.index for spare in spares} and len({s.index for s in spares}) > 1


def folder(path: Path, count: int, *languages: str) -> Path:
    samples = [
        (
            f"s{n:03d}",
            {"png": encoded((n, 0, 9)), "json": json.dumps({"captions": {c: f"{c} {n}" for c in languages}}).encode()},
        )
        for n in range(count)
    ]
    return shards(path, samples)


def test_from_the_recipe_to_the_batch(tmp_path: Path) -> None:
    folder(tmp_path / "one", 12, "en", "de")
    folder(tmp_path / "two", 24, "en")
    sources = [{"kind": "webdataset", "path": str(tmp_path / name)} for name in ("one", "two")]
    plain = DataSpec.model_validate({"sources": sources})
    assert type(open_pairs(plain, batch_size=8, seed=0)[1]) is PairSampler
    weighted = DataSpec.model_validate({"sources": [{**s, "weight": w} for s, w in zip(sources, (3, 1), strict=True)]})
    source, sampler = open_pairs(weighted, batch_size=8, seed=0)
    loaded = list(batches(source, sampler, preparer=PairPreparer(transform, tokenize), steps=256))
    seen = Counter(name for batch in loaded for name in batch.sources)
    assert abs(seen["one"] / seen.total() - 0.75) < 0.01
    for batch in loaded[:10]:
        for name, language, caption, pivot in zip(
            batch.sources, batch.languages, batch.captions, batch.pivots, strict=True
        ):
            assert caption.split()[0] == language and pivot == f"en {caption.split()[1]}"
            assert language == "en" or name == "one"
    single = plain.model_copy(update={"language_batches": "single"})
    assert isinstance(open_pairs(single, batch_size=8, seed=0)[1], WeightedPairSampler)


def test_translations_of_one_caption_stand_at_the_same_number(tmp_path: Path) -> None:
    captions = {"de": ["eins", "zwei"], "en": ["one", "two"], "fr": ["un", "deux", "trois"]}
    samples = [
        (f"s{n}", {"png": encoded((n, 0, 9)), "json": json.dumps({"captions": captions}).encode()}) for n in range(4)
    ]
    data = DataSpec.model_validate({"sources": [{"kind": "webdataset", "path": str(shards(tmp_path / "s", samples))}]})
    source, sampler = open_pairs(data, batch_size=4, seed=0)
    met = set()
    for batch in batches(source, sampler, preparer=PairPreparer(transform, tokenize), steps=40):
        met |= set(zip(batch.captions, batch.pivots, strict=True))
    assert met == {
        ("eins", "one"), ("zwei", "two"), ("one", "one"), ("two", "two"),
        ("un", "one"), ("deux", "two"), ("trois", "one"),
    }  # fmt: skip


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    metas = pairs(20, "en")
    with pytest.raises(DataError, match=r"no caption in zh; the data has: en"):
        WeightedPairSampler(metas, 8, shares=Shares([0] * 20), seed=0, mixing=ZH_EN)
    with pytest.raises(DataError, match=r"data.sources.1 has a weight but no image with a caption in the chosen"):
        WeightedPairSampler(metas, 8, shares=Shares([0] * 20, (1, 1)), seed=0, mixing=UniformMixing())
    with pytest.raises(DataError, match=r"gives no weight to de of data.languages; it has: zh, en"):
        WeightedPairSampler(metas, 8, shares=Shares([0] * 20), seed=0, mixing=ZH_EN, languages=["en", "de"])
    for wrong in ({"weights": {"zh": 0.0}}, {"weights": {}}):
        with pytest.raises(ValueError, match="weights"):
            WeightsMixing.model_validate(wrong)
    with pytest.raises(ValueError, match="1 of 2 have a weight"):
        DataSpec.model_validate(
            {"sources": [{"kind": "built", "name": "flags", "weight": 2}, {"kind": "built", "name": "openmoji"}]}
        )
