from __future__ import annotations

import math
import pickle
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.data_factory import metas
from vlkit.data.plan.sampling import PairSampler
from vlkit.errors import DataError
from vlkit.spec.dataset import EnglishShareMixing, MixingSpec, TemperatureMixing, UniformMixing
from vlkit.types import SampleMeta

SIZES = [1] * 40 + [3] * 10 + [20]


def test_a_plan_is_a_function_of_seed_and_step() -> None:
    one, two = PairSampler(metas(SIZES), 16, seed=3), PairSampler(metas(SIZES), 16, seed=3)
    forward = [one.plan(step) for step in range(12)]
    assert forward == [two.plan(step) for step in reversed(range(12))][::-1]
    assert forward == [pickle.loads(pickle.dumps(one)).plan(step) for step in range(12)]  # noqa: S301
    assert forward != [PairSampler(metas(SIZES), 16, seed=4).plan(step) for step in range(12)]
    assert len({tuple(pick.index for pick in plan) for plan in forward}) == 12


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 12), st.integers(0, 5))
def test_no_concept_twice_in_a_batch_and_no_image_twice_in_an_epoch(groups: list[int], size: int, seed: int) -> None:
    found = metas(groups)
    if len(found) < size:
        return
    sampler = PairSampler(found, size, seed=seed)
    for epoch in range(3):
        seen: list[int] = []
        for number in range(sampler.steps_per_epoch):
            plan = sampler.plan(epoch * sampler.steps_per_epoch + number)
            assert len(plan) == size
            if len(groups) >= size:
                assert len({found[pick.index].concept for pick in plan}) == size
            seen += [pick.index for pick in plan]
        assert len(set(seen)) == len(seen)


def test_an_epoch_shows_all_that_distinct_batches_can_hold() -> None:
    singles = PairSampler(metas([1] * 48), 16, seed=0)
    assert singles.steps_per_epoch == 3
    assert {pick.index for step in range(3) for pick in singles.plan(step)} == set(range(48))
    # 10 concepts of 4 images, 8 a batch: 5 batches of 8 use all 40.
    fours = PairSampler(metas([4] * 10), 8, seed=0)
    assert fours.steps_per_epoch == 5
    # One concept of 40 images cannot fill batches of distinct concepts; without the wish it can.
    lopsided = metas([40, *[1] * 8])
    assert PairSampler(lopsided, 8, seed=0).steps_per_epoch == 1
    assert PairSampler(lopsided, 8, seed=0, distinct_concepts=False).steps_per_epoch == 6


def test_over_epochs_all_images_are_seen() -> None:
    sampler = PairSampler(metas(SIZES), 16, seed=1)
    assert {pick.index for step in range(300) for pick in sampler.plan(step)} == set(range(sum(SIZES)))


def test_samples_without_a_concept_are_concepts_of_their_own() -> None:
    found = [SampleMeta(str(n), "", "train", ("en",), (1,)) for n in range(20)]
    assert PairSampler(found, 20, seed=0).steps_per_epoch == 1


@pytest.mark.parametrize(
    ("mixing", "target"),
    [
        (UniformMixing(), {"en": 1 / 3, "de": 1 / 3, "sw": 1 / 3}),
        (TemperatureMixing(alpha=0.0), {"en": 1 / 3, "de": 1 / 3, "sw": 1 / 3}),
        (TemperatureMixing(alpha=1.0), {"en": 6 / 9, "de": 2 / 9, "sw": 1 / 9}),
        (
            TemperatureMixing(alpha=0.5),
            {tag: math.sqrt(n) / (math.sqrt(6) + math.sqrt(2) + 1) for tag, n in [("en", 6), ("de", 2), ("sw", 1)]},
        ),
        (EnglishShareMixing(share=0.8), {"en": 0.8, "de": 0.1, "sw": 0.1}),
        (EnglishShareMixing(share=0.0), {"de": 0.5, "sw": 0.5}),
        (EnglishShareMixing(share=1.0), {"en": 1.0}),
    ],
)
def test_realised_language_shares_are_the_mixings(mixing: MixingSpec, target: dict[str, float]) -> None:
    found = [SampleMeta(str(n), f"c{n}", "train", ("en", "de", "sw"), (6, 2, 1)) for n in range(100)]
    sampler = PairSampler(found, 100, seed=0, mixing=mixing)
    counts = Counter(pick.language for step in range(100) for pick in sampler.plan(step))
    assert set(counts) == set(target)
    for language, share in target.items():
        assert abs(counts[language] - 10_000 * share) <= 5 * math.sqrt(10_000 * share * (1 - share))


def test_a_language_is_drawn_among_those_the_sample_has() -> None:
    found = [SampleMeta(f"e{n}", "", "train", ("en",), (1,)) for n in range(10)]
    found += [SampleMeta(f"d{n}", "", "train", ("de", "en"), (3, 1)) for n in range(10)]
    found += [SampleMeta(f"s{n}", "", "train", ("sw",), (1,)) for n in range(4)]
    sampler = PairSampler(found, 20, seed=0, languages=["deu", "en"], mixing=EnglishShareMixing(share=0.0))
    assert sampler.left_out == 4 and sampler.languages == ("de", "en")
    for step in range(20):
        for pick in sampler.plan(step):
            assert pick.language == ("en" if pick.index < 10 else "de")
            assert 0 <= pick.caption_index < (1 if pick.index < 10 else 3)
    captions = Counter(pick.caption_index for step in range(300) for pick in sampler.plan(step) if pick.index >= 10)
    assert all(abs(captions[n] - 1000) < 5 * math.sqrt(3000 * 2 / 9) for n in range(3))


def test_a_spare_is_fixed_and_of_another_concept() -> None:
    found = metas(SIZES)
    sampler = PairSampler(found, 16, seed=0)
    taken = {found[pick.index].concept for pick in sampler.plan(5)}
    spares = [sampler.spare(5, row, attempt=attempt) for row in range(8) for attempt in range(3)]
    assert spares == [sampler.spare(5, row, attempt=attempt) for row in range(8) for attempt in range(3)]
    assert not taken & {found[pick.index].concept for pick in spares} and len(set(spares)) > 12


def test_what_cannot_be_sampled() -> None:
    with pytest.raises(DataError) as caught:
        PairSampler(metas([1] * 5), 8, seed=0)
    assert str(caught.value) == (
        "loop.batch_size = 8, but there are only 5 images with a caption in the chosen languages; "
        "use loop.batch_size=5 or less"
    )
    with pytest.raises(DataError) as caught:
        PairSampler(metas([1] * 5), 2, seed=0, languages=["en", "sw"])
    assert str(caught.value) == "data.languages: no caption in sw; the data has: de, en, fr"
    with pytest.raises(DataError, match="only 0 images"):
        PairSampler([], 2, seed=0)
