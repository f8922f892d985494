"""Sources that only some stages learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.helpers.evaluate_fakes import picture
from vlkit.data.plan.pairs import plan_pairs
from vlkit.data.sources.open import open_sources
from vlkit.errors import DataError
from vlkit.spec.dataset import DataSpec
from vlkit.spec.recipe import Recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(9):
        picture(number).save(tmp_path / f"{number}.png")
    for name, language in (("pairs", "en"), ("talks", "sw"), ("both", "de")):
        rows = [{"image": f"{number}.png", "caption": f"{name} {number}", "language": language} for number in range(9)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def sources(folder: Path, **weights: float) -> list[dict[str, Any]]:
    stages: dict[str, dict[str, Any]] = {"pairs": {"stages": ["first"]}, "talks": {"stages": ["second"]}, "both": {}}
    files = [{"kind": "folder", "path": str(folder / f"{name}.jsonl"), **more} for name, more in stages.items()]
    return [{**file, "weight": weights[name]} if weights else file for name, file in zip(stages, files, strict=True)]


def drawn(folder: Path, stage: str | None, *, rows: int = 4, steps: int = 40, **more: Any) -> dict[str, int]:
    data = DataSpec.model_validate({"distinct_concepts": False, **more})
    source = open_sources(data)
    sampler = plan_pairs(source, data, batch_size=rows, seed=0, stage=stage)
    picks = [pick for step in range(steps) for pick in sampler.plan(step)]
    assert all(pick.language in source[pick.index].captions for pick in picks)
    return {tag: sum(pick.language == tag for pick in picks) for tag in sorted({pick.language for pick in picks})}


def test_a_stage_learns_from_its_sources(folder: Path) -> None:
    given = sources(folder)
    assert set(drawn(folder, "first", sources=given)) == {"de", "en"}
    assert set(drawn(folder, "second", sources=given)) == {"de", "sw"}
    assert set(drawn(folder, None, sources=given)) == {"de", "en", "sw"}


def test_weights_count_among_the_sources_of_the_stage(folder: Path) -> None:
    given = sources(folder, pairs=3, talks=9, both=1)
    assert drawn(folder, "first", sources=given) == {"de": 40, "en": 120}
    assert drawn(folder, "second", sources=given) == {"de": 16, "sw": 144}
    half = {"kind": "english_share", "share": 0.5}
    assert drawn(folder, "first", sources=sources(folder), mixing=half) == {"de": 80, "en": 80}


def test_too_little_for_a_batch_in_a_stage(folder: Path) -> None:
    with pytest.raises(DataError, match=r"^loop\.batch_size = 20, but there are only 18 images with a caption"):
        drawn(folder, "first", rows=20, sources=sources(folder))


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ([["frist"]], "data.sources.0.stages: no stage frist; there are: first, second"),
        ([["first"], ["first"]], "data.sources: stage second has none to learn from; name it in `stages` of one"),
    ],
)
def test_a_recipe_names_stages_that_it_has(stages: list[list[str]], problem: str) -> None:
    recipe = {
        "model": {"image": {"kind": "tiny"}, "text": {"kind": "tiny"}},
        "data": {"sources": [{"kind": "folder", "path": "a.jsonl", "stages": names} for names in stages]},
        "stages": [{"name": name, "trainable": ["image"], "steps": 1} for name in ("first", "second")],
    }
    with pytest.raises(ValidationError, match=problem.replace(".", r"\.")):
        Recipe.model_validate(recipe)
