"""Captions as translations of each other, and sources that teach languages of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.evaluate_fakes import picture
from vlkit.data.plan.pairs import open_pairs
from vlkit.data.sources.combine import problems, summarize
from vlkit.data.sources.open import open_sources, source_names
from vlkit.data.stream.stream import open_stream
from vlkit.errors import DataError
from vlkit.image_prompts import ImagePrompts
from vlkit.models.turns import turns_of
from vlkit.spec.dataset import DataSpec
from vlkit.types import Turn

ROWS: list[dict[str, Any]] = [
    {"image": "0.png", "concept": "dog", "captions": {"en": ["dog", "hound"], "de": ["Hund", "Köter", "Töle"]}},
    {"image": "1.png", "concept": "cat", "captions": {"en": "cat", "sw": "paka", "de": "Katze"}},
    {"image": "2.png", "concept": "owl", "captions": {"sw": "bundi"}, "split": "test"},
    {"image": "3.png", "captions": {"en": "cow", "sw": "ng'ombe"}},
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for row in ROWS:
        picture(int(row["image"][0])).save(tmp_path / row["image"])
    path = tmp_path / "animals.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def data(table: Path, *, own: dict[str, Any] | None = None, **more: Any) -> DataSpec:
    of = {"kind": "folder", "path": str(table)}
    sources = [{**of, **(own or {})}, {"kind": "translations", "of": of, **more}]
    return DataSpec.model_validate({"sources": sources})


def test_each_caption_is_to_be_said_in_each_other_language_of_its_image(table: Path) -> None:
    spec = data(table)
    source = open_sources(spec, split="all")
    found = [source[index] for index in range(4, len(source))]
    assert [(s.turns[0].text, s.turns[1].text, s.turns[1].language) for s in found] == [
        ("dog", "Hund", "de"), ("hound", "Köter", "de"), ("cat", "paka", "sw"), ("cat", "Katze", "de"),
        ("cow", "ng'ombe", "sw"),
    ]  # fmt: skip
    assert {(s.turns[0].role, s.turns[0].language, s.images, s.task) for s in found} == {
        ("user", "en", (), "translate")
    }
    assert [s.concept for s in found[:3]] == ["dog", "dog", "cat"]
    assert len({s.key for s in found}) == len(found)
    for index in range(len(source)):
        meta, sample = source.meta(index), source[index]
        assert dict(zip(meta.languages, meta.counts, strict=True)) == sample.counts()
        assert (meta.key, meta.split) == (sample.key, sample.split)
    assert source_names(spec.sources) == ["animals.jsonl", "animals.jsonl translations"]
    assert problems(source) == {}


def test_from_another_language(table: Path) -> None:
    source = open_sources(data(table, reads="swa"), split="all")
    assert [source[index].turns[1] for index in range(4, len(source))] == [
        Turn("assistant", "cat", "en"), Turn("assistant", "Katze", "de"), Turn("assistant", "cow", "en"),
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"^nothing to translate: no image has a caption in fr and one in another"):
        open_sources(data(table, reads="fr"))


def test_what_is_kept_back_of_the_images_is_not_translated_either(table: Path) -> None:
    source = open_sources(data(table, reads="sw"), split="test")
    assert [source[index].captions for index in range(len(source))] == [{"sw": ("bundi",)}]


def test_a_source_teaches_the_languages_that_it_names(table: Path) -> None:
    source, sampler = open_pairs(data(table, own={"languages": ["deu"]}, languages=["sw"]), batch_size=2, seed=0)
    picks = [pick for step in range(40) for pick in sampler.plan(step)]
    seen = {(bool(source[pick.index].images), pick.language) for pick in picks}
    assert seen == {(True, "de"), (False, "sw")}
    assert summarize(source).languages == {"de": 4, "sw": 2}
    for pick in picks:
        assert pick.language in source[pick.index].counts()


@pytest.mark.parametrize("key", ["languages", "stages"])
def test_streams_draw_from_all_sources_alike(tmp_path: Path, key: str) -> None:
    spec = DataSpec.model_validate({"sources": [{"kind": "webdataset", "path": str(tmp_path), key: ["de"]}]})
    with pytest.raises(
        DataError, match=rf"^data\.sources\.0\.{key}: streams draw from all sources alike; leave it out"
    ):
        open_stream(spec, batch_size=1, seed=0, num_workers=0)


def test_a_text_to_be_translated_stands_in_a_prompt(table: Path) -> None:
    source, sampler = open_pairs(data(table, own={"languages": ["de"]}, languages=["sw"]), batch_size=3, seed=0)
    prompts = ImagePrompts("name", "english", None)
    asked = set()
    for step in range(30):
        for pick in sampler.plan(step):
            sample = source[pick.index]
            if not sample.images:
                user, answer = turns_of(sample, pick, prompts)
                assert sample.turns[0].text in user.text and "Swahili" in user.text
                assert answer.text in ("paka", "ng'ombe")
                asked.add(user.text)
    assert "Translate into Swahili: cat" in asked and len(asked) == 8
