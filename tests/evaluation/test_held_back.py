"""What is held back without a concept is a class of its own, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.data_factory import encoded, shards
from vlkit.data.sources.open import open_sources
from vlkit.data.sources.shards import ShardSource
from vlkit.errors import DataError
from vlkit.evaluation import held_back
from vlkit.evaluation.tasks.zero_shot_task import captioned_task
from vlkit.spec import sources as spec
from vlkit.spec.dataset import DataSpec


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two collections that number their samples alike."""
    names = {"one": ("cat", "dog", "cow"), "two": ("sun", "moon", "star")}
    return [
        shards(
            tmp_path / folder,
            [(str(n), {"png": encoded((n, 0, 0)), "txt": name.encode()}) for n, name in enumerate(each)],
        )
        for folder, each in names.items()
    ]


def test_strangers_of_one_key_are_two_classes(folders: list[Path]) -> None:
    paths = [folder / "shard-0000.tar" for folder in folders]
    task = captioned_task("all", ShardSource(paths, language="en"), split=None)
    assert [row and row[0] for row in task.names["en"]] == ["cat", "dog", "cow", "sun", "moon", "star"]
    with pytest.raises(DataError, match=r"^2 samples are of one concept, '0'; a class needs an image of its own"):
        captioned_task("all", ShardSource([paths[0], paths[0]], language="en"), split=None)


def test_what_a_run_holds_back_is_counted_one_by_one(folders: list[Path]) -> None:
    sources = tuple(spec.WebDatasetSource(path=str(folder), language="en") for folder in folders)
    data = DataSpec(sources=sources, holdout_concepts=4)
    kept = open_sources(data, split="validation")
    assert len(kept) == 4 and len(open_sources(data)) == 2
    assert list(held_back._task([kept[number] for number in range(4)], None).targets) == [0, 1, 2, 3]
