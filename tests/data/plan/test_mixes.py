"""Shares of languages: published tables and tiers, English set apart, limits; realised exactly, the same by seed."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.helpers.data_factory import shards
from tests.helpers.train_factory import HEADS, drawings, recipe, write_rows
from vlkit.data.plan.mixes import settled, tiers_of, with_english
from vlkit.data.plan.pairs import open_pairs
from vlkit.data.stream.stream import open_stream
from vlkit.errors import DataError
from vlkit.spec.dataset import (
    DataSpec,
    EnglishShareMixing,
    MixingSpec,
    ProportionalMixing,
    TemperatureMixing,
    TieredMixing,
    UniformMixing,
    WeightsMixing,
)
from vlkit.training.loop import train

ROOT = math.sqrt(8)


def shares(mixing: MixingSpec, counts: dict[str, int], languages: list[str] | None = None) -> dict[str, float]:
    found = settled(mixing, counts, languages)
    assert isinstance(found, WeightsMixing)
    total = sum(found.weights.values())
    return {language: weight / total for language, weight in found.weights.items()}


def test_mc4s_table_has_the_96_languages_of_mblip_and_its_shares_add_up() -> None:
    everything = dict.fromkeys(tiers_everywhere() | {"nb", "ht"}, 1)
    from vlkit.data.plan import mixes
    from vlkit.languages import normalize

    table = mixes._published()["proportional"]["mc4"]
    assert len({normalize(code) for code in table}) == len(table) == 96
    assert abs(sum(table.values()) - 100) < 0.1
    found = shares(ProportionalMixing(), everything)
    assert math.isclose(found["de"] / found["sw"], 6.089 / 0.0143)
    assert "he" in found and "tl" in found and "nb" in found and "la" not in found


def tiers_everywhere() -> set[str]:
    return {language for languages in tiers_of(TieredMixing()).values() for language in languages}


def test_marcos_tokens_are_equal_within_a_tier() -> None:
    low = [f"{one}" for one in ("bn", "sw", "uk", "th", "vi", "id", "he", "el", "cs", "pl", "nl", "ro", "hu", "kk")]
    low += ["az", "ur", "ms", "tl", "ne"]
    counts = dict.fromkeys(["en", "zh", "ar", "de", "es", "fr", "ko", "ja", "pt", "tr", *low], 7)
    found = shares(ProportionalMixing(table="marco_llm"), counts)
    total = 90.4 + 48.2 + 8 * 10.6 + 19 * 1.9
    assert len(found) == 29
    assert math.isclose(found["en"], 90.4 / total) and math.isclose(found["zh"], 48.2 / total)
    assert {round(found[one] * total, 9) for one in ("ar", "de", "tr")} == {10.6}
    assert {round(found[one] * total, 9) for one in low} == {1.9}
    half = shares(ProportionalMixing(table="marco_llm", english=0.5), counts)
    assert math.isclose(half["en"], 0.5) and math.isclose(half["zh"] / half["sw"], 48.2 / 1.9)


def test_centurios_tiers_hold_a_hundred_languages_each_in_one() -> None:
    tiers = tiers_of(TieredMixing())
    assert {name: len(languages) for name, languages in tiers.items()} == {
        "T5": 7,
        "T4": 18,
        "T3": 28,
        "T2": 17,
        "T1": 30,
    }
    assert len(tiers_everywhere()) == 100
    found = shares(TieredMixing(), dict.fromkeys(tiers_everywhere(), 1))
    assert math.isclose(found.pop("en"), 0.5)
    assert len(found) == 99 and {round(share, 12) for share in found.values()} == {round(0.5 / 99, 12)}


def test_tiers_have_their_shares_evenly_within() -> None:
    counts = dict.fromkeys(["en", "de", "ar", "fi", "sw", "am", "xh", "ast"], 3)
    plain = shares(TieredMixing(shares={"T5": 2, "T2": 1}, english=None), counts)
    assert {one: round(share, 9) for one, share in plain.items()} == {
        **dict.fromkeys(["ar", "de", "en"], round(2 / 9, 9)), **dict.fromkeys(["am", "sw", "xh"], round(1 / 9, 9))
    }  # fmt: skip
    half = shares(TieredMixing(shares={"T5": 2, "T2": 1}, english=0.4), counts)
    assert math.isclose(half["en"], 0.4) and math.isclose(half["de"], 0.2) and math.isclose(half["sw"], 0.6 / 9)
    own = shares(TieredMixing(tiers={"a": ("no", "iw"), "b": ("en",)}, english=None), {"nb": 1, "he": 1, "en": 9})
    assert {round(share, 9) for share in own.values()} == {round(1 / 3, 9)}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=8), st.floats(0, 1), st.floats(0.05, 1), st.floats(1, 9))
def test_limits_hold_and_those_below_them_keep_their_proportion(
    amounts: list[int], alpha: float, most: float, repeats: float
) -> None:
    counts = dict(zip(("de", "en", "fr", "ru", "sw", "ja", "zh", "ar"), amounts, strict=False))
    mixing = TemperatureMixing(alpha=alpha, max_share=most, max_repeats=repeats)
    limits = {one: min(most, repeats * count / sum(amounts)) for one, count in counts.items()}
    if sum(limits.values()) < 1 - 1e-6:
        with pytest.raises(DataError, match=r"data\.mixing: the limits leave .* raise max_share"):
            settled(mixing, counts, None)
        return
    found = shares(mixing, counts)
    free = [one for one in counts if found[one] < limits[one] - 1e-9]
    assert all(found[one] <= limits[one] + 1e-9 for one in counts)
    for one in free:
        assert math.isclose(found[one] / found[free[0]], (counts[one] / counts[free[0]]) ** alpha, rel_tol=1e-6)
        assert all(
            found[other] / counts[other] ** alpha <= found[one] / counts[one] ** alpha + 1e-9 for other in counts
        )


def test_english_alone_or_absent_changes_nothing() -> None:
    assert with_english({"de": 1.0, "fr": 2.0}, 0.5) == {"de": 1.0, "fr": 2.0}
    assert with_english({"en": 1.0}, 0.5) == {"en": 1.0}
    assert shares(EnglishShareMixing(share=1.0), {"en": 1, "de": 1}) == {"en": 1.0}
    assert settled(UniformMixing(), {"de": 1}, None) == UniformMixing()


@pytest.mark.parametrize(
    ("mixing", "languages", "said"),
    [
        (
            TieredMixing(shares={"T1": 1}, english=None),
            None,
            "data.mixing.kind = tiered leaves nothing to learn from; the data has: ast, de, en",
        ),
        (
            ProportionalMixing(),
            ["de", "ast"],
            "data.mixing.kind = proportional has no share for ast of data.languages; leave out what it lacks, or use "
            "kind weights",
        ),
        (EnglishShareMixing(), ["de", "fr"], "data.languages: no caption in fr; the data has: ast, de, en"),
        (
            TieredMixing(tiers={"a": ("de",), "b": ("deu", "en")}),
            None,
            "data.mixing.tiers: de stands in a and in b; keep one of them",
        ),
    ],
)
def test_a_mix_that_cannot_be_had_is_told(mixing: MixingSpec, languages: list[str] | None, said: str) -> None:
    with pytest.raises(DataError) as caught:
        settled(mixing, {"de": 1, "en": 1, "ast": 1}, languages)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "tiered", "shares": {"T6": 1}}, "shares: no tier T6; there are: T1, T2, T3, T4, T5"),
        ({"kind": "tiered", "shares": {"T1": 0}}, "shares must be above 0"),
    ],
)  # fmt: skip
def test_a_wrong_spec_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataSpec.model_validate({"sources": [{"kind": "folder", "path": "x.jsonl"}], "mixing": given})


def one_language_each(folder: Path) -> dict[str, Any]:
    """A translated set: each image with a caption in one language, four in five of them English."""
    drawings(folder, 40, variants=1)
    tags = ["en"] * 8 + ["de", "sw"]
    rows = [{"image": f"{n}.png", "captions": {tags[n % 10]: f"thing {n}"}} for n in range(40)]
    write_rows(folder / "one.jsonl", rows)
    return {"sources": [{"kind": "folder", "path": str(folder / "one.jsonl")}]}


@pytest.mark.parametrize(
    ("mixing", "target"),
    [
        ({"kind": "english_share"}, {"en": 0.5, "de": 0.25, "sw": 0.25}),
        ({"kind": "temperature", "alpha": 0}, {"en": 1 / 3, "de": 1 / 3, "sw": 1 / 3}),
        ({"kind": "temperature", "alpha": 0.5}, {"en": ROOT / (ROOT + 2), "de": 1 / (ROOT + 2), "sw": 1 / (ROOT + 2)}),
        ({"kind": "temperature", "alpha": 1}, {"en": 0.8, "de": 0.1, "sw": 0.1}),
        ({"kind": "tiered", "english": 0.25}, {"en": 0.25, "de": 0.375, "sw": 0.375}),
    ],
)  # fmt: skip
def test_shares_are_met_to_the_row_where_each_image_has_one_language(
    tmp_path: Path, mixing: dict[str, Any], target: dict[str, float]
) -> None:
    data = DataSpec.model_validate({**one_language_each(tmp_path), "mixing": mixing})
    source, sampler = open_pairs(data, batch_size=8, seed=3)
    again = open_pairs(data, batch_size=8, seed=3)[1]
    drawn: Counter[str] = Counter()
    for step in range(256):  # a block of quotas
        picks = sampler.plan(step)
        assert picks == again.plan(step)
        assert all(pick.language in source[pick.index].captions for pick in picks)
        drawn.update(pick.language for pick in picks)
    assert {language: round(2048 * share) for language, share in target.items()} == pytest.approx(dict(drawn), abs=1)


def test_streams_take_tables_for_the_languages_that_they_are_told(tmp_path: Path) -> None:
    source = {"sources": [{"kind": "webdataset", "path": str(shards(tmp_path / "s", count=2)), "sampling": "stream"}]}
    given = {**source, "mixing": {"kind": "tiered", "english": 0.25}}
    with pytest.raises(DataError) as caught:
        open_stream(DataSpec.model_validate(given), batch_size=4, seed=0, num_workers=0)
    assert str(caught.value) == (
        "data.mixing.kind = tiered needs to know the languages of the data, and streams are not read before: name them "
        "in data.languages"
    )
    data = DataSpec.model_validate({**given, "languages": ["en", "de", "fr"]})
    plan = open_stream(data, batch_size=4, seed=0, num_workers=0)
    assert plan.data.mixing == WeightsMixing(weights={"de": 0.375, "en": 0.25, "fr": 0.375})


def test_stages_mix_languages_each_in_its_way_and_count_what_they_learned_from(tmp_path: Path) -> None:
    table = drawings(tmp_path / "d")
    mixed = {"name": "mixed", "trainable": HEADS, "steps": 6}
    english = {**mixed, "name": "english", "mixing": {"kind": "english_share", "share": 1.0}}
    half = {**mixed, "name": "half", "mixing": {"kind": "english_share", "share": 0.5}}
    run = train(recipe(table, tmp_path / "run", english, half, mixed))
    rows = {line["stage"]: line["rows"] for line in run.metrics() if "rows" in line}
    assert rows["english"] == {"languages": {"en": 36}, "sources": {"table.jsonl": 36}}
    assert sum(rows["half"]["languages"].values()) == 36 and 17 <= rows["half"]["languages"]["en"] <= 19
    assert set(rows["mixed"]["languages"]) == {"de", "en", "fr"}
