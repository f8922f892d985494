"""On real pictures: one large batch and the same batch in micro-batches train the same model."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlkit.data.sources.open import open_sources
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.evaluation.tasks.zero_shot_task import openmoji_unseen
from vlkit.spec.load import load_recipe
from vlkit.training.loop import train

_TOWERS = "[{name: towers, trainable: [image, text, image_head, text_head, scale], steps: 90, lr: 3e-3}]"


@pytest.mark.assets
def test_micro_batches_reach_the_same_scores_on_unseen_concepts(tmp_path: Path) -> None:
    scores, losses = [], []
    for micro_batch in ("null", "32", "10"):
        folder = tmp_path / micro_batch
        changes = [f"stages={_TOWERS}", f"loop.micro_batch={micro_batch}", f"run.folder={folder}"]
        recipe = load_recipe("contrastive/tiny", changes)
        run = train(recipe)
        task = openmoji_unseen(open_sources(recipe.data, split="test"))
        rows = evaluate_task(run.model(), task, languages=["en", "de"], variant=micro_batch)
        scores.append({row.language: (row["acc1"], row["acc5"]) for row in rows})
        losses.append([line["loss"] for line in run.metrics()])
    assert losses[0][-1] < losses[0][0] - 0.1  # it learns
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-4)
    assert scores[0] == scores[1] == scores[2]
