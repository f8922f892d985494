"""Prompt modes of a suite: all from one pass over the images, each template's worth, and published settings."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.evaluate_fakes import CountingModel, picture
from vlkit.data.names.imagenet import openai_templates, wordnet_ids
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.compare.parity import differences, published_name, told_languages, with_parity
from vlkit.evaluation.compare.reference import reference
from vlkit.evaluation.embed.encoding import Encoding, EncodingCounts
from vlkit.evaluation.results.results_file import Results
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import open_suite
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.evaluation.tasks.zero_shot_task import template_scores
from vlkit.models.digest import weights_digest
from vlkit.spec.evaluation import SuiteSpec

NAMES = {"en": ["cat", "dog", "bear"], "de": ["Katze", "Hund", "Bär"]}
MODES: dict[str, Any] = {
    "label": {"kind": "none"},
    "english": {"kind": "english"},
    "custom": {"kind": "list", "texts": ["{}!", "a {}", "{}!"]},
    "templates": {"kind": "packaged"},
}


@pytest.fixture
def task(tmp_path: Path) -> dict[str, Any]:
    for number in range(3):
        (tmp_path / "images" / str(number)).mkdir(parents=True)
        for one in range(4):
            picture(10 * number + one).save(tmp_path / "images" / str(number) / f"{one}.png")
    labels = {tag: dict(enumerate(names)) for tag, names in NAMES.items()}
    (tmp_path / "labels.json").write_text(json.dumps({"labels": labels}), encoding="utf-8")
    return {
        "kind": "zero_shot",
        "images": {"kind": "folder", "path": str(tmp_path / "images")},
        "labels": {"kind": "files", "paths": [str(tmp_path / "labels.json")]},
    }


def _suite(task: dict[str, Any], **more: Any) -> SuiteSpec:
    return SuiteSpec.model_validate(
        {"tasks": [task | {"name": mode, "templates": templates} | more for mode, templates in MODES.items()]}
    )


def test_all_prompt_modes_cost_one_pass_over_the_images(task: dict[str, Any], tmp_path: Path) -> None:
    model = CountingModel()
    results = evaluate(model, _suite(task), quiet=True)
    assert model.images_seen == 12 == results.meta["work"]["images_encoded"]
    assert [row.text("prompt") for row in results.rows] == [mode for mode in MODES for _ in NAMES]
    assert results.meta["work"]["texts_encoded"] < results.meta["work"]["texts_asked"]
    opened = open_suite(_suite(task))
    for one in opened.tasks:
        alone = {row.language: row["acc1"] for row in evaluate_task(CountingModel(), one)}
        assert {row.language: row["acc1"] for row in results.rows if row.task == one.name} == alone
    assert opened.tasks[1].templates == openai_templates()


def test_a_second_run_with_the_same_cache_encodes_nothing(task: dict[str, Any], tmp_path: Path) -> None:
    runs = [
        evaluate(CountingModel(), _suite(task), folder=tmp_path / name, cache=tmp_path / "cache", quiet=True)
        for name in ("one", "two")
    ]
    assert runs[0].rows[0]["acc1"] == runs[1].rows[0]["acc1"]
    assert runs[1].meta["work"] == {**runs[0].meta["work"], "images_encoded": 0, "texts_encoded": 0}


def test_each_template_alone_without_encoding_again(task: dict[str, Any], tmp_path: Path) -> None:
    suite = _suite(task, per_template=True)
    evaluate(CountingModel(), suite, folder=tmp_path / "run", quiet=True)
    with (tmp_path / "run" / "templates.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["task"] == "custom"]
    assert [(row["language"], row["times"]) for row in rows if row["template"] == "{}!"] == [("en", "2"), ("de", "2")]
    custom = open_suite(suite).tasks[2]
    for row in rows:
        single = evaluate_task(CountingModel(), replace(custom, templates=(row["template"],)))
        expected = next(one for one in single if one.language == row["language"])
        assert [float(row[name]) for name in ("acc1", "ci_low", "ci_high")] == pytest.approx(
            [expected["acc1"], expected["ci_low"], expected["ci_high"]], abs=1e-6
        )
    counts = EncodingCounts()
    evaluate_task(CountingModel(), custom, encoding=Encoding(cache=tmp_path / "cache", counts=counts))
    before = (counts.images, counts.texts)
    scores = template_scores(CountingModel(), custom, "deu", encoding=Encoding(cache=tmp_path / "cache", counts=counts))
    assert (counts.images, counts.texts) == before and len(scores) == 2 and scores[0].acc1 >= scores[1].acc1


def test_a_template_without_a_slot_is_refused_before_anything_runs(task: dict[str, Any]) -> None:
    wrong = _suite(task | {"templates": {"kind": "none"}}).tasks[2]
    wrong = wrong.model_copy(update={"templates": wrong.templates.model_copy(update={"texts": ("a photo",)})})
    with pytest.raises(DataError, match="'a photo' has no slot"):
        open_suite(SuiteSpec(tasks=(wrong,)))


class TestParity:
    def _babel(self, tmp_path: Path, **templates: Any) -> SuiteSpec:
        for wnid in wordnet_ids()[:3]:
            (tmp_path / "val" / wnid).mkdir(parents=True)
            picture(1).save(tmp_path / "val" / wnid / "1.png")
        names = {"DE": [[0, 2], ["Schleie", "Weißer Hai"]], "FY": [[0, 1], ["seelt", "goudfisk"]]}
        (tmp_path / "babel.json").write_text(json.dumps(names), encoding="utf-8")
        (tmp_path / "prompts.json").write_text(json.dumps({"DE": ["Foto  {} ."], "EN": ["x {}"]}), encoding="utf-8")
        task = {
            "kind": "zero_shot",
            "name": "b",
            "images": {"kind": "imagenet", "path": str(tmp_path / "val"), "classes": "present"},
            "labels": {"kind": "files", "paths": [str(tmp_path / "babel.json")]},
            "templates": templates or {"kind": "file", "path": str(tmp_path / "prompts.json"), "english": "file",
                                       "normalize_whitespace": True},
        }  # fmt: skip
        return SuiteSpec.model_validate({"tasks": [task]})

    def test_settings_are_those_of_the_published_evaluation(self, tmp_path: Path) -> None:
        (task,) = open_suite(with_parity(self._babel(tmp_path), "babel-imagenet")).tasks
        assert task.templates_of("de") == ("Foto  {} .",)  # stray blanks stay
        assert task.templates_of("en") == openai_templates() and task.templates_of("fy") == ("{}",)
        assert (task.spoken("fy"), task.spoken("de")) == ("en", "de")

    def test_tokenizers_are_told_what_the_authors_told_them(self) -> None:
        told = told_languages()
        assert {tag: other for tag, other in told.items() if other != "en"} == {
            "zh": "zh-Hant",
            "nb": "nn",
            "ku": "ckb",
        }
        published = reference("babel_imagenet")
        codes = {published.codes[tag] for tag in told if tag in published.scores}
        assert {"FY", "BR", "LA", "WUU", "NV", "CV", "DIQ", "CHR", "CE", "HAK", "NAH"} <= codes
        assert not {"AF", "SQ", "UZ", "DE", "SW"} & codes

    def test_how_far_scores_are_from_the_published_ones(self, tmp_path: Path) -> None:
        assert published_name("open_clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k") == "OC-B32"
        assert published_name("hf:BAAI/AltCLIP-m9") == "AltCLIP" and published_name("runs/x/model") is None
        results = evaluate(CountingModel(), with_parity(self._babel(tmp_path), "babel-imagenet"), quiet=True)
        published = reference("babel_imagenet").of("OC-B32")
        off = {"en": 0.0011, "de": 0.003, "fy": -0.0031}
        rows = [
            replace(row, values={**row.values, "acc1": published[row.language] + off[row.language]})
            for row in results.rows
        ]
        found = differences(Results(results.meta, tuple(rows)), "OC-B32", task="b")
        assert [(one.language, one.within) for one in found] == [("fy", False), ("de", True), ("en", False)]
        assert not any(one.same_classes for one in found)  # three classes here, hundreds there
        table = reference("babel_imagenet")
        rows = [
            replace(row, values={**row.values, "num_classes": table.classes_of(row.language) + (row.language == "fy")})
            for row in rows
        ]
        found = differences(Results(results.meta, tuple(rows)), "OC-B32", task="b")
        assert [(one.language, one.same_classes) for one in found] == [("fy", False), ("de", True), ("en", True)]

    def test_what_it_cannot_be(self, task: dict[str, Any]) -> None:
        with pytest.raises(DataError, match="needs a task with images of kind imagenet"):
            with_parity(_suite(task), "babel-imagenet")
        with pytest.raises(UnknownName, match="babel-imagenet"):
            with_parity(_suite(task), "babel")


def test_the_digest_of_the_weights_is_computed_once_a_run_and_anew_afterwards(
    task: dict[str, Any], tmp_path: Path
) -> None:
    class Asked(CountingModel):
        times = 0

        def state_dict(self, *args: Any, **settings: Any) -> Any:
            Asked.times += 1
            return super().state_dict(*args, **settings)

    model = Asked()
    results = evaluate(model, _suite(task, per_template=True), folder=tmp_path / "run", quiet=True)
    assert Asked.times == 1
    assert weights_digest(model) == results.meta["models"]["model"]
    with torch.no_grad():
        model.pixels_DE.add_(1)
    assert weights_digest(model) != results.meta["models"]["model"]
