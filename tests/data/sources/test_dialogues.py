"""Conversations as a source: read, planned, counted, written as shards and read back; alt texts beside translations."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.evaluate_fakes import picture
from vlkit.data.batches.loader import batches
from vlkit.data.batches.unreadable import BadSamples
from vlkit.data.build.reshard import ShardOptions, write_shards
from vlkit.data.plan.pairs import open_pairs
from vlkit.data.sources.combine import identities, summarize
from vlkit.data.sources.dialogues import read_dialogues, read_native_and_translated
from vlkit.data.sources.open import open_path, open_sources
from vlkit.data.sources.records import Records
from vlkit.data.stream.stream import Stream, open_stream
from vlkit.errors import DataError
from vlkit.spec.dataset import DataSpec
from vlkit.types import Batch, Pick, Sample

YES = "yes"


class Told(tuple[Any, ...]):
    """A batch for tests: samples with their picks."""

    languages: tuple[str, ...]
    sources: tuple[str, ...]


class Plain:
    """A preparer that opens every image of a sample and gives it as it is."""

    reads = True

    def row(self, sample: Sample, pick: Pick) -> tuple[Sample, Pick, list[int]]:
        return sample, pick, [image().width for image in sample.images]

    def collate(self, rows: Any) -> Batch:
        told = Told(rows)
        told.languages = tuple(pick.language for _, pick, _ in rows)
        return told  # type: ignore[return-value]


def llava(number: int, **more: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": f"<image>\nFrage {number}?"}, {"from": "gpt", "value": f"Antwort {number}"}]
    return {"id": f"q{number}", "image": f"{number % 6}.png", "conversations": said, "lang": "de", **more}


def records() -> list[dict[str, Any]]:
    texts = [{"from": "human", "value": "Habari?"}, {"from": "gpt", "value": "Nzuri"}]
    several = [{"from": "human", "value": "<image><image> same?"}, {"from": "gpt", "value": "no"}]
    return [
        *[llava(number) for number in range(10)],
        *[{"id": f"t{number}", "conversations": texts, "lang": "sw"} for number in range(6)],
        {"id": "two", "image": ["0.png", "5.png"], "conversations": several, "lang": "en", "task": "vqa"},
        {"id": "also", "images": ["1.png", "2.png"], "context": "same?", "label": YES, "lang": "en", "keywords": [YES]},
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "all.json").write_text(json.dumps(records()))
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records()))
    return tmp_path


def spec(path: Path, **more: Any) -> DataSpec:
    return DataSpec.model_validate({"sources": [{"kind": "dialogues", "path": str(path)}], **more})


def test_json_and_jsonl_hold_the_same_samples(folder: Path) -> None:
    one, other = (read_dialogues(folder / f"all.{end}") for end in ("json", "jsonl"))
    assert [replace(sample, images=()) for sample in one.samples] == [
        replace(sample, images=()) for sample in other.samples
    ]
    assert [len(sample.images) for sample in one.samples] == [1] * 10 + [0] * 6 + [2, 2]
    assert one[16].images[1]().tobytes() == picture(5).tobytes()
    assert (one[16].task, one[17].keywords, one[0].concept, one[10].concept) == ("vqa", (YES,), "0.png", "")
    assert [open_path(str(folder / f"all.{end}"))[17].turns for end in ("json", "jsonl")] == [one[17].turns] * 2
    assert one.meta(16) == replace(one.meta(16), languages=("en",), counts=(1,), key="two")


def test_answers_are_planned_by_language_and_concept(folder: Path) -> None:
    data = spec(folder / "all.json", mixing={"kind": "weights", "weights": {"de": 0.5, "sw": 0.3, "en": 0.2}})
    source, sampler = open_pairs(data, batch_size=4, seed=1)
    drawn: Counter[str] = Counter()
    for step in range(512):
        picks = sampler.plan(step)
        drawn.update(pick.language for pick in picks)
        assert all(pick.language in source[pick.index].counts() and pick.caption_index == 0 for pick in picks)
    assert dict(drawn) == {"de": 1024, "sw": 614, "en": 410}
    plain = open_pairs(spec(folder / "all.json"), batch_size=4, seed=1)[1]
    for step in range(20):
        shown = [concept for pick in plain.plan(step) if (concept := source.meta(pick.index).concept)]
        assert len(set(shown)) == len(shown)
    only = open_pairs(spec(folder / "all.json", languages=["sw"]), batch_size=4, seed=1)[1]
    assert {pick.language for step in range(9) for pick in only.plan(step)} == {"sw"}
    held = spec(folder / "all.json", holdout_concepts=4)
    sides = [open_sources(held, split=split) for split in ("train", "validation")]
    assert sum(map(len, sides)) == 18 and not set(identities(sides[0])) & set(identities(sides[1]))


def test_batches_hold_no_one_and_several_images_and_a_broken_one_is_counted(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"broken")
    source, sampler = open_pairs(spec(folder / "all.jsonl"), batch_size=6, seed=0)
    bad = BadSamples(0.2, total=len(source))
    rows = [row for batch in batches(source, sampler, preparer=Plain(), steps=9, bad=bad) for row in batch]  # type: ignore[attr-defined]
    assert {len(widths) for _, _, widths in rows} == {0, 1, 2}
    assert set(bad.reasons) == {3, 9}
    assert next(iter(bad.reasons.values())).startswith("q")
    assert "all.jsonl:" in bad.reasons[3]
    assert "3.png" not in {sample.concept for sample, _, _ in rows}


def test_records_of_a_source_are_what_it_gives(folder: Path) -> None:
    source = open_sources(spec(folder / "all.json"))
    kept = Records(source)
    for number in range(len(source)):
        given, found = source[number], kept[number]
        assert replace(found, images=()) == replace(given, images=()) and len(found.images) == len(given.images)
    assert kept[16].images[1]().tobytes() == picture(5).tobytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_give_back_what_was_written(folder: Path, workers: int) -> None:
    source = open_path(str(folder / "all.json"))
    written = write_shards(source, folder / "s", ShardOptions(per_shard=7), workers=workers, quiet=True)
    assert (written.samples, written.shards, written.languages) == (18, 3, {"de": 10, "sw": 6, "en": 2})
    found = open_path(str(folder / "s"))
    for number in range(18):
        given, back = source[number], found[number]
        assert replace(back, images=(), key=given.key) == replace(given, images=())
        assert [one().tobytes() for one in back.images] == [one().tobytes() for one in given.images]
        assert found.meta(number).languages == source.meta(number).languages
    assert summarize(found).languages == {"de": 10, "sw": 6, "en": 2}
    few = write_shards(source, folder / "en", ShardOptions(languages=("en",)), workers=0, quiet=True)
    assert (few.samples, few.left_out) == (2, 16)


def test_streams_deal_conversations(folder: Path) -> None:
    write_shards(open_path(str(folder / "all.json")), folder / "s", ShardOptions(per_shard=3), workers=0, quiet=True)
    data = DataSpec.model_validate(
        {"sources": [{"kind": "webdataset", "path": str(folder / "s"), "sampling": "stream", "task": "chat"}]}
    )
    stream = Stream(open_stream(data, batch_size=4, seed=0, num_workers=0), preparer=Plain())
    rows = [row for batch in stream.steps(0, 9) for row in batch]  # type: ignore[attr-defined]
    assert {pick.language for _, pick, _ in rows} == {"de", "sw", "en"}
    assert {len(widths) for _, _, widths in rows} == {0, 1, 2}
    assert {sample.task for sample, _, _ in rows} == {"chat", "vqa"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"conversations": 1}', ":1: 'conversations' must be a list of objects"),
        (
            "a.jsonl",
            '{"caption": "x"}',
            ":1: no conversation; expected 'conversations', 'turns', or 'context' and 'label', there are: caption",
        ),
        (
            "a.jsonl",
            '\n{"image": 3, "context": "a", "label": "b"}',
            ":2: 'image' must be the path of an image or a list of them",
        ),
        (
            "a.jsonl",
            '{"context": "<image>", "label": "b"}',
            ":1: its turns have 1 place for images (<image>), and it has no images",
        ),
        ("a.json", '[{"context": "a", "label": "b"}, 3]', ": record 2 is a number, expected an object"),
        ("a.json", '[{"context": "a", "label": "b"}, {"turns": []}]', ": record 2: its conversation has no answer"),
        ("a.json", "{}", ": expected a list, found an object"),
        ("a.json", "[]", ": there are no conversations"),
        ("a.txt", "", ": conversations are read from a .json file with a list of them, or from a .jsonl file"),
    ],
)  # fmt: skip
def test_wrong_conversations_are_told_with_their_place(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        read_dialogues(tmp_path / name, language="en")
    assert str(caught.value).startswith(f"{tmp_path / name}{said}")


def test_a_table_of_conversations_is_told_how_to_be_read(folder: Path) -> None:
    data = DataSpec.model_validate({"sources": [{"kind": "folder", "path": str(folder / "all.jsonl")}]})
    with pytest.raises(
        DataError, match=r"all.jsonl:1: is a conversation; give the table as a source of kind dialogues"
    ):
        open_sources(data)


def test_native_and_translated_texts_are_weighted_apart(folder: Path) -> None:
    rows = [
        {"image": f"{number % 6}.png", "lang": "ar", "source": "alt" if number < 8 else "mt_caption",
         "text": f"نص {number}", **({"keywords": ["نص", " "]} if number < 8 else {})}
        for number in range(24)
    ]  # fmt: skip
    path = folder / "mella.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    native, translated, both = (read_native_and_translated(path, texts=one) for one in ("native", "translated", "both"))
    assert (len(native), len(translated), len(both)) == (8, 16, 24)
    assert {(one.translated, one.keywords, one.task) for one in native.samples} == {(False, ("نص",), "caption")}
    assert {(one.translated, one.keywords, one.task) for one in translated.samples} == {(True, (), "caption")}
    assert native[0].captions == {"ar": ("نص 0",)} and len({sample.key for sample in both.samples}) == 24
    source = {"kind": "native_and_translated", "path": str(path)}
    sources = [{**source, "texts": "native", "weight": 3}, {**source, "texts": "translated", "weight": 1}]
    opened, sampler = open_pairs(DataSpec.model_validate({"sources": sources}), batch_size=4, seed=0)
    drawn = Counter(opened[pick.index].translated for step in range(512) for pick in sampler.plan(step))
    assert dict(drawn) == {False: 1536, True: 512}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": "0.png", "lang": "ar", "text": "x"}, "'source' is None, expected 'alt' or 'mt_caption'"),
        ({"source": "alt", "lang": "ar", "text": "x"}, "no 'image', the path of one"),
        ({"source": "alt", "image": "0.png", "text": "x"}, "no 'lang', the language of its text"),
        ({"source": "alt", "image": "0.png", "lang": "ar", "text": ""}, "'text' is empty"),
        ({"source": "alt", "image": "0.png", "lang": "qqq", "text": "x"}, "no language 'qqq'"),
    ],
)
def test_wrong_lines_of_it_are_told(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataError) as caught:
        read_native_and_translated(path)
    assert str(caught.value).startswith(f"{path}:1: {said}")


def test_sources_say_what_their_samples_teach(folder: Path) -> None:
    (folder / "xtd.json").write_text(json.dumps({"images": ["0.png"], "captions": {"de": [["Bild"]]}}))
    published = {"kind": "babel_json", "path": str(folder / "xtd.json"), "images": str(folder)}
    for given, task in (({}, "caption"), ({"task": "ocr"}, "ocr")):
        assert open_sources(DataSpec.model_validate({"sources": [{**published, **given}]}))[0].task == task
    assert open_sources(spec(folder / "all.json"))[0].task == ""


def test_coco_captions(folder: Path) -> None:
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(3)],
        "annotations": [
            {"image_id": 1, "id": 5, "caption": " A  dog\n"},
            {"image_id": 0, "id": 6, "caption": "a cat"},
            {"image_id": 1, "id": 7, "caption": "ein Hund", "language": "de"},
            {"image_id": 1, "id": 8, "caption": "the dog"},
        ],
    }
    path = folder / "captions.json"
    path.write_text(json.dumps(content))
    data = DataSpec.model_validate({"sources": [{"kind": "coco_captions", "path": str(path), "images": str(folder)}]})
    found = open_sources(data)
    assert {found[n].key: dict(found[n].captions) for n in range(len(found))} == {
        "1.png": {"en": ("A dog", "the dog"), "de": ("ein Hund",)}, "0.png": {"en": ("a cat",)}
    }  # fmt: skip
    content["annotations"] += [{"image_id": 9, "caption": "x"}, {"image_id": 1, "caption": 3}]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        open_sources(data)
    assert str(caught.value) == (
        f"{path}: annotation 4: its image_id 9 is no image's id; annotation 5: its caption must be text"
    )
    path.write_text("{}")
    with pytest.raises(DataError, match=r'captions.json: must be {"images": \[{"id", "file_name"}\]'):
        open_sources(data)
