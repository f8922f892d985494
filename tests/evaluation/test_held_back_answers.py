"""What training of a model that answers measures: the loss of captions kept back is the loss that it trains on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.train_factory import drawings, figures, merged, recipe
from vlkit.data.sources.open import open_sources
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.held_back_answers import HeldBackAnswers
from vlkit.objectives.tokens.answer_loss import AnswerLoss
from vlkit.spec.objectives import AnswersObjective
from vlkit.spec.recipe import Recipe
from vlkit.training.loop import train
from vlkit.types import Pick

VLM: dict[str, Any] = {
    "kind": "vision_language",
    "encoder": {"kind": "tiny", "image_size": 16, "width": 16, "depth": 1},
    "bridge": {"kind": "linear"},
    "language_model": {"kind": "tiny", "architecture": "llama"},
}
STAGE = {"name": "bridge", "trainable": ("bridge",), "steps": 4}
TOLD = {"kind": "held_back_answers", "every": 2}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data")


def made(table: Path, folder: Path, **more: Any) -> Recipe:
    prompts = folder.with_suffix(".json")
    prompts.write_text(json.dumps({"name": {"english": ["Name it in {language}:"]}}))
    data = merged({"holdout_concepts": 4, "prompts": {"task": "name", "templates": str(prompts)}}, more.pop("data", {}))
    return recipe(
        table, folder, STAGE, model=VLM, data=data, objectives=[{"kind": "answers"}], **more
    )  # fmt: skip


def test_the_loss_of_what_is_kept_back_is_that_of_training_and_changes_nothing(table: Path, tmp_path: Path) -> None:
    plain = train(made(table, tmp_path / "plain"))
    run = train(made(table, tmp_path / "told", validation={**TOLD, "written": True}))
    assert [line for line in figures(run) if "validation" not in line] == figures(plain)
    measured = [line for line in run.metrics() if "validation" in line]
    assert [line["step"] for line in measured] == [2, 4]
    last = measured[-1]["validation"]
    assert set(last["loss"]) == set(last["chrf"]) == {"de", "en", "fr"}
    assert last["mean_loss"] == pytest.approx(sum(last["loss"].values()) / 3)
    assert all(0 <= value <= 1 for value in last["chrf"].values())
    assert run.summary().endswith(f"mean_chrf {last['mean_chrf']:.3f} on what was held back")

    model, held = run.model(), open_sources(run.recipe().data, split="validation")
    preparer = model.preparer(run.recipe().data)
    picks = [Pick(index, "fr", 0, 0) for index in range(len(held))]
    assert len(picks) == len(held) == 8
    batch = preparer.collate([preparer.row(held[pick.index], pick) for pick in picks])
    with torch.no_grad():
        loss = AnswerLoss(AnswersObjective())(model.eval(), batch)
    assert last["loss"]["fr"] == pytest.approx(float(loss.total), rel=1e-5)


def test_some_languages_and_so_many_images(table: Path, tmp_path: Path) -> None:
    told = HeldBackAnswers(made(table, tmp_path / "run", validation={**TOLD, "languages": ["deu"], "limit": 3}))
    assert told.languages == ("de",) and len(told.samples) == 3
    learned = HeldBackAnswers(made(table, tmp_path / "run", validation=TOLD, data={"languages": ["fr", "de"]}))
    assert set(learned.languages) == {"fr", "de"}
    with pytest.raises(UnknownName, match=r"no language of validation 'sw'"):
        HeldBackAnswers(made(table, tmp_path / "run", validation={**TOLD, "languages": ["sw"]}))


def test_what_cannot_be_measured(table: Path, tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match=r"^validation\.kind = held_back_answers measures on the concepts that data"):
        train(made(table, tmp_path / "run", validation=TOLD, data={"holdout_concepts": 0}))
    images = {"kind": "folder", "path": str(table)}
    texts = {"sources": [{"kind": "translations", "of": images}], "holdout_concepts": 2}
    with pytest.raises(DataError, match=r"^validation: no image that is kept back has a caption; set validation to"):
        train(made(table, tmp_path / "run", validation=TOLD, data=texts))
    assert not (tmp_path / "run").exists()
    with pytest.raises(
        VlkitError,
        match=r"^validation\.kind = held_back needs a model that can embed images and texts, and a vision_language "
        r"cannot; take kind held_back_answers, or set validation to null$",
    ):
        train(made(table, tmp_path / "run", validation={"every": 1}))
