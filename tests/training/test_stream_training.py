"""Training on shards that are streamed: killed and resumed is uninterrupted, whatever the stages and workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers import train_factory as factory
from tests.helpers.train_factory import ALL, HEADS, drawings, figures, recipe
from vlkit.data.build.reshard import ShardOptions, write_shards
from vlkit.data.sources.open import open_path
from vlkit.data.stream.stream import Stream
from vlkit.errors import VlkitError
from vlkit.models.registry import build
from vlkit.models.trainable import snapshot
from vlkit.spec.recipe import Recipe
from vlkit.training.batches import stream_plan
from vlkit.training.loop import train

TWO_STAGES = ({"name": "h", "trainable": HEADS, "steps": 12}, {"name": "t", "trainable": ALL, "steps": 24})


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    table = drawings(tmp_path / "data", 40)
    write_shards(open_path(str(table)), tmp_path / "shards", ShardOptions(per_shard=5), workers=0, quiet=True)
    return tmp_path / "shards"


def streaming(folder: Path, out: Path, *stages: Any, workers: int, **data: Any) -> Recipe:
    made = recipe(Path("unused"), out, *stages, loop={"num_workers": workers})
    path = f"pipe:cat {folder}/shard-{{0000..0007}}.tar"
    given = {"sources": [{"kind": "webdataset", "path": path}], "stream": {"window_shards": 2}, **data}
    return Recipe.model_validate({**made.model_dump(), "data": {**made.model_dump()["data"], **given}})


def streamed(made: Recipe) -> Stream:
    return Stream(stream_plan(made, ranks=(0, 1)), preparer=build(made.model).preparer(made.data))


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_is_uninterrupted(shards: Path, tmp_path: Path, workers: int) -> None:
    settings: dict[str, Any] = {"workers": workers, "augment": {"flip": 0.5}}
    whole = train(streaming(shards, tmp_path / "whole", *TWO_STAGES, **settings))
    assert [line["step"] for line in figures(whole)] == list(range(1, 37))
    made = streaming(shards, tmp_path / "killed", *TWO_STAGES, **settings)
    step = factory.killed(made, after=(21, 34))
    torch.rand(7)
    resumed = train(made, resume=True)
    assert figures(resumed) == figures(whole), f"killed at step {step}"
    assert snapshot(resumed.model()) == snapshot(whole.model())


def test_other_workers_are_refused_at_a_resume(shards: Path, tmp_path: Path) -> None:
    stage = {"name": "h", "trainable": HEADS, "steps": 30}
    factory.killed(streaming(shards, tmp_path / "run", stage, workers=0), after=(21, 28))
    with pytest.raises(VlkitError, match=r"workers \(1 then, 2 now\) changed; resume with what the run was started"):
        train(streaming(shards, tmp_path / "run", stage, workers=2), resume=True)


def test_a_warm_start_is_refused(shards: Path, tmp_path: Path) -> None:
    stage = {"name": "h", "trainable": HEADS, "steps": 2, "warm_start": {}}
    with pytest.raises(VlkitError, match="warm start needs data that can be read at any place"):
        train(streaming(shards, tmp_path / "run", stage, workers=0))


def test_texts_are_padded_to_the_longest_of_the_batch(shards: Path, tmp_path: Path) -> None:
    made = streaming(shards, tmp_path / "run", workers=0)
    for batch in streamed(made).steps(0, 5):
        assert batch.tokens is not None
        assert batch.tokens.ids_BL.shape[1] == int(batch.tokens.mask_BL.sum(dim=1).max()) < made.model.text.max_length


def test_large_photos_are_decoded_small_enough_and_large_enough(shards: Path, tmp_path: Path) -> None:
    made = streaming(shards, tmp_path / "run", workers=0)
    model = build(made.model)

    def draft_size(recipe: Recipe) -> int | None:
        return model.preparer(recipe.data).draft_size  # type: ignore[attr-defined, no-any-return]

    assert draft_size(made) == 16
    cropping = made.model_copy(
        update={"data": made.data.model_copy(update={"augment": made.data.augment.model_copy(
            update={"crop_scale": (0.25, 1.0)})})}
    )  # fmt: skip
    side = draft_size(cropping)
    assert side is not None and side * (0.25 * 3 / 4) ** 0.5 >= 16  # the smallest crop of a square still has 16 pixels
    off = made.model_copy(update={"data": made.data.model_copy(update={"jpeg_draft": False})})
    assert draft_size(off) is None
    del model.image.resized_to  # a user's encoder need not tell
    assert draft_size(made) is None


def test_drafts_are_what_training_reads(tmp_path: Path) -> None:
    (tmp_path / "i" / "cat").mkdir(parents=True)
    for number in range(8):
        Image.effect_noise((256, 256), 60).convert("RGB").save(tmp_path / "i" / "cat" / f"{number}.jpg", quality=95)
    write_shards(
        open_path(str(tmp_path / "i"), language="en"), tmp_path / "s", ShardOptions(per_shard=8), workers=0, quiet=True
    )
    shown = {}
    for draft in (True, False):
        made = streaming(tmp_path / "s", tmp_path / "run", workers=0, jpeg_draft=draft, distinct_concepts=False)
        made = made.model_copy(
            update={"data": made.data.model_copy(update={"sources": (made.data.sources[0].model_copy(
                update={"path": f"pipe:cat {tmp_path}/s/shard-0000.tar"}),)})}
        )  # fmt: skip
        (batch,) = streamed(made).steps(0, 1)
        shown[draft] = batch.pixels_BCHW
    assert shown[True] is not None and shown[False] is not None
    assert 0 < (shown[True] - shown[False]).abs().mean() < 0.5
