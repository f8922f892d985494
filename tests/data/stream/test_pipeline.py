"""Pipelines of the user's own: every sample once, each reader its share, exact resume, errors that name the fault."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.stream_factory import fill, numbers, row_facts, streams
from tests.helpers.train_factory import losses, recipe
from vlkit.data.sources.open import open_source
from vlkit.data.stream.pipeline import Pipeline
from vlkit.errors import DataError, SpecError
from vlkit.spec.dataset import DataSpec
from vlkit.spec.load import load_recipe, load_spec
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.sources import PipelineSource
from vlkit.training.loop import train
from vlkit.types import Sample, Turn

CODE = """
import random, sys
import webdataset
from PIL import Image

IMPORTED = True
NOTHING = 3
COUNT = 24


def one(n, **more):
    picture = Image.new("RGB", (9, 7), (n, 2 * n, 9))
    return {"image": picture, "captions": {"de": f"de {n}", "en": f"en {n}"}, "key": str(n), **more}


def plain():
    return [one(n) for n in range(COUNT)]


def shuffled(epoch):
    order = list(range(COUNT))
    random.Random(epoch).shuffle(order)
    for n in order:
        yield one(n, concept=f"c{n % 5}")


def other(epoch):
    for n in random.SystemRandom().sample(range(COUNT), COUNT):
        yield one(n)


def shards():
    found = webdataset.WebDataset(FOLDER + "/part{000..003}-0000.tar", shardshuffle=False, empty_check=False)
    return found.decode("pil").map(lambda sample: {"image": sample["png"], **sample["json"], "key": sample["__key__"]})


def undecoded():
    return webdataset.WebDataset(FOLDER + "/part{000..003}-0000.tar", shardshuffle=False, empty_check=False)


def documented(epoch):
    urls = FOLDER + "/part{000..003}-0000.tar"
    found = webdataset.WebDataset(urls, shardshuffle=100, detshuffle=True, seed=epoch, empty_check=False)
    return found.shuffle(1000, seed=epoch).decode("pil").map(
        lambda one: {"image": one["png"], "captions": one["json"]["captions"]}
    )


def odd():
    for n in range(COUNT):
        yield {"image": one(n)["image"]} if n == 3 else one(n, split="test") if n == 4 else one(n)


def no_image():
    return [{"caption": f"en {n}", "language": "en"} for n in range(2000)]


def numbers():
    return range(9)


def breaks():
    yield one(0)
    raise KeyError("x")


def empty():
    return []


def nothing():
    pass


def english():
    return [{"image": one(n)["image"], "caption": f"en {n}"} for n in range(COUNT)]
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "s", [6, 6, 6, 6])
    (tmp_path / "own_pipelines.py").write_text(f"FOLDER = {str(tmp_path / 's')!r}\n{CODE}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_pipelines", raising=False)


def spec(function: str, *, language: str | None = None, **more: Any) -> DataSpec:
    source = {"kind": "pipeline", "object": f"own_pipelines:{function}", "language": language}
    return DataSpec.model_validate({"sources": [source], **more})


@pytest.mark.parametrize("function", ["plain", "shuffled", "shards", "undecoded", "documented"])
@pytest.mark.parametrize(("workers", "ranks"), [(0, 1), (2, 1), (1, 2)])
def test_every_sample_comes_once_a_pass(function: str, workers: int, ranks: int) -> None:
    found: list[int] = []
    for stream in streams(spec(function, distinct_concepts=False), batch=4, workers=workers, ranks=ranks):
        for batch in stream.steps(0, 6):
            found += numbers(batch)
            assert batch.pixels_BCHW is not None and set(batch.sources) == {f"own_pipelines:{function}"}
            for n, language, text in zip(numbers(batch), batch.languages, batch.captions, strict=True):
                assert text == f"{language} {n}"
    assert sorted(found) == list(range(24))


@pytest.mark.parametrize("function", ["shuffled", "plain", "shards", "documented"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_exactly_where_it_stopped(function: str, workers: int) -> None:
    data = spec(function, languages=["de"])
    (whole,) = streams(data, batch=4, workers=workers)
    wanted = [row_facts(batch) for batch in whole.steps(0, 16)]  # two passes and more
    for stop in (1, 7, 13):
        (first,) = streams(data, batch=4, workers=workers)
        before = [row_facts(batch) for batch in first.steps(0, stop)]
        (second,) = streams(data, batch=4, workers=workers)
        second.restore(json.loads(json.dumps(first.state())))
        assert before + [row_facts(batch) for batch in second.steps(stop, 16)] == wanted


def test_passes_differ_where_the_function_takes_the_epoch() -> None:
    (stream,) = streams(spec("shuffled", distinct_concepts=False), batch=24)
    one, two = (numbers(batch) for batch in stream.steps(0, 2))
    assert one != two and sorted(one) == sorted(two) == list(range(24))


def test_concepts_do_not_meet_while_others_are_there() -> None:
    (stream,) = streams(spec("shuffled"), batch=4)
    batches = list(stream.steps(0, 4))
    assert all(len(set(batch.concepts)) == 4 for batch in batches)


def test_a_pipeline_that_gives_others_is_told(caplog: pytest.LogCaptureFixture) -> None:
    (first,) = streams(spec("other"), batch=4)
    list(first.steps(0, 3))
    (second,) = streams(spec("other"), batch=4)
    second.restore(first.state())
    with caplog.at_level(logging.WARNING):
        assert len(list(second.steps(3, 5))) == 2
    assert "own_pipelines:other: does not give the samples again that it gave before" in caplog.text


def test_a_pipeline_that_became_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = streams(spec("plain"), batch=4)
    list(first.steps(0, 3))
    monkeypatch.setattr("own_pipelines.COUNT", 5)
    (second,) = streams(spec("plain"), batch=4)
    second.restore(first.state())
    with pytest.raises(DataError, match="ends after 5 samples, and the run that is resumed had taken 12"):
        list(second.steps(3, 4))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "own_pipeline:plain",
            "own_pipeline:plain: No module named 'own_pipeline'; a module must be",
        ),
        ("own_pipelines:plian", "own_pipelines has no 'plian'; did you mean 'plain'?"),
        ("own_pipelines:NOTHING", "own_pipelines:NOTHING: is a int, expected a function that returns the samples"),
    ],
)
def test_what_the_recipe_names_is_wrong(name: str, message: str) -> None:
    data = DataSpec.model_validate({"sources": [{"kind": "pipeline", "object": name}]})
    with pytest.raises(DataError) as caught:
        streams(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("numbers", "own_pipelines:numbers: sample 0 is a int, expected a dict of an image and captions"),
        ("breaks", "own_pipelines:breaks: fails at sample 1: KeyError: 'x'"),
        ("nothing", "own_pipelines:nothing: fails at sample 0: TypeError: 'NoneType' object is not iterable"),
        ("empty", "own_pipelines:empty: reader 0 of 1 gets no sample to learn from (split train, any language)"),
        ("no_image", "'000000000' has no image"),
        ("english", "'caption' has no language: add a 'language' field or set the source's language"),
    ],
)
def test_what_the_pipeline_gives_is_wrong(function: str, message: str) -> None:
    (stream,) = streams(spec(function), batch=4)
    with pytest.raises(DataError) as caught:
        list(stream.steps(0, 1))
    assert message in str(caught.value) or any(message in reason for reason in stream.bad._examples.values())


def test_some_samples_that_are_no_use() -> None:
    (stream,) = streams(spec("odd", max_bad_share=0.5), batch=22)
    (batch,) = stream.steps(0, 1)
    assert sorted(numbers(batch)) == [n for n in range(24) if n not in (3, 4)]
    assert dict(stream.bad.by_shard) == {"own_pipelines:odd": 1}
    assert list(stream.bad._examples.values()) == ["sample 3: it has no captions, only: image"]


def test_captions_take_the_language_of_the_source() -> None:
    (stream,) = streams(spec("english", language="eng"), batch=4)
    (batch,) = stream.steps(0, 1)
    assert batch.languages == ("en",) * 4


def test_beside_shards_it_needs_a_weight(tmp_path: Path) -> None:
    shards = {"kind": "webdataset", "path": str(tmp_path / "s")}
    own = {"kind": "pipeline", "object": "own_pipelines:plain"}
    with pytest.raises(DataError, match=r"data\.sources\.1 is a pipeline, whose size is not known"):
        streams(DataSpec.model_validate({"sources": [shards, own]}))
    weighted = DataSpec.model_validate({"sources": [shards | {"weight": 3}, own | {"weight": 1}]})
    (stream,) = streams(weighted, batch=8, images=False)
    sources = [name for batch in stream.steps(0, 256) for name in batch.sources]
    assert sources.count("own_pipelines:plain") == 512  # of 2048
    with pytest.raises(DataError, match="one after the other"):
        open_source(weighted.sources[1])


def test_a_recipe_imports_nothing_before_the_run_starts(tmp_path: Path) -> None:
    made = recipe(
        tmp_path / "t", tmp_path / "run", data={"sources": [{"kind": "pipeline", "object": "own_pipelines:plain"}]}
    )
    (tmp_path / "r.yaml").write_text(made.model_dump_json(exclude={"run"}))
    assert load_recipe(tmp_path / "r.yaml").data == made.data and "own_pipelines" not in sys.modules
    assert len(losses(train(made))) == 6 and sys.modules["own_pipelines"].IMPORTED


def test_a_model_folder_names_no_code(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "image: {kind: tiny}\ntext: {kind: tiny}\nembed_dim: 8\n"
        "data: {sources: [{kind: pipeline, object: 'own_pipelines:plain'}]}\n"
    )
    with pytest.raises(SpecError, match="no such key"):
        load_spec(DualEncoderSpec, tmp_path / "spec.yaml")
    assert "own_pipelines" not in sys.modules


@pytest.mark.parametrize("name", ["own", "own:", ":x", "own.py:x y", "a/b:c", "a:b()"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="object"):
        PipelineSource(object=name)


def test_samples_of_several_images() -> None:
    pipeline = Pipeline("own_pipelines:x", "x", language="en")
    two = [Image.new("RGB", (n, n)) for n in (3, 5)]
    several = pipeline.sample({"images": two, "caption": "a pair"}, number=0)
    assert [image().size for image in several.images] == [(3, 3), (5, 5)] and several.image().size == (3, 3)
    given = Sample("k", (), {"en": ("x",)}, turns=(Turn("user", "what?", "en"), Turn("assistant", "this", "en")))
    assert pipeline.sample(given, number=1) == replace(given, source="x")
    with pytest.raises(DataError, match="sample 'k' has no image"):
        _ = given.image
