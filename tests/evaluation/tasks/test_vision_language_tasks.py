"""A whole vision-language model on the tasks: its answers one by one, and a model folder by the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import vlkit
from tests.evaluation.tasks.test_captioning import table
from tests.helpers import vision_language
from vlkit.cli.app import app
from vlkit.evaluation.abilities import ANSWERS, EMBEDS
from vlkit.evaluation.results.written import read_written
from vlkit.evaluation.run import evaluate
from vlkit.spec.evaluation import SuiteSpec
from vlkit.types import Question


def _suite(folder: Path) -> SuiteSpec:
    source = table(folder)
    tasks = [
        {"kind": "captioning", "name": "say", "source": source, "generation": {"max_tokens": 6}},
        {"kind": "choices", "name": "pick", "source": source, "options": 3, "languages": ["en", "zh"]},
    ]
    return SuiteSpec.model_validate({"tasks": tasks, "batch_size": 5})


@pytest.mark.parametrize("architecture", ["llama", "mt5"])
def test_answers_are_those_of_the_model_one_by_one(architecture: str, tmp_path: Path) -> None:
    model = vision_language.tiny("qformer", architecture)
    assert ANSWERS.of(model) and not EMBEDS.of(model)
    spec = _suite(tmp_path)
    results = evaluate(model, spec, name="tiny", folder=tmp_path / "out", quiet=True)
    assert results.meta["work"]["images_encoded"] == 2 * (12 + 1)  # once in each task, and a grey one
    written = read_written(tmp_path / "out", "say", "de")
    assert written is not None
    prompt = results.meta["questions"]["say"]["de"]
    for one in (written[0], written[7]):
        asked = Question(prompt, (str(tmp_path / one.key),), "de")
        assert model.answer([asked], generation=spec.tasks[0].generation)[0].strip() == one.answer  # type: ignore[attr-defined]
    again = evaluate(model, spec, name="tiny", folder=tmp_path / "out", resume=True, quiet=True)
    assert again.rows == results.rows and again.meta["work"]["images_encoded"] == 0


def test_a_folder_of_a_model_is_evaluated_by_name(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    vlkit.save(vision_language.tiny(), tmp_path / "model")
    source = table(tmp_path)["path"]
    asked = ["eval", "model", "captions", f"tasks.0.source.path={source}", "tasks.0.form=names", "languages=[en,de]",
             "tasks.0.generation={max_tokens: 4}", "--out", "out"]  # fmt: skip
    ran = CliRunner().invoke(app, asked)
    assert ran.exit_code == 0, ran.stderr
    assert "captions: chrF % [95 % interval], F1" in ran.stdout and "en  English" in ran.stdout
    again = CliRunner().invoke(app, [*asked, "--resume"])
    assert again.exit_code == 0 and again.stdout == ran.stdout  # the model that is loaded anew is known
    refused = CliRunner().invoke(app, ["eval", "model", "retrieval", f"tasks.0.source.path={source}", "--out", "no"])
    assert refused.exit_code == 2
    said = " ".join(refused.stderr.split())
    assert "evaluate it on tasks of kind captioning, choices, presence or questions" in said
    assert not (tmp_path / "no").exists()
