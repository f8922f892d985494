"""Generated images under a judge: one that understands, one that does not; floors, stops, pages, errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers.painting_fakes import LANGUAGES, PALETTE, DrawsColors, color_judge, color_samples
from tests.helpers.ranks import on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.embed.drawing import Drawing, Prompt, drawn_images
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.metrics.distribution_distance import kernel_distance
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import open_suite, read_suite
from vlkit.evaluation.tasks.generation_figures import generation_values
from vlkit.evaluation.tasks.generation_task import GenerationTask
from vlkit.evaluation.tasks.prompts_to_draw import color_combinations, named_concepts
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.spec.evaluation import SuiteSpec
from vlkit.spec.generated_images import CombinationFile, GeneratedImagesSpec, PackagedCombinations, PromptGroup


def task(*, limit: int | None = None, images: int = 3, **more: Any) -> GenerationTask:
    prompts = named_concepts(color_samples(), PromptGroup(limit=limit), LANGUAGES, candidates=None, of="task drawn")
    return GenerationTask("drawn", prompts, color_judge(), Drawing(num_images=images), **more)


def test_one_that_understands_all_languages_equals_real_images() -> None:
    for row in evaluate_task(DrawsColors(), task()):
        assert row["acc1"] == row["real_acc1"] == row["image_acc1"] == row["ratio_acc1"] == row["acc1_of_english"] == 1
        assert row["n_prompts"] == 8 == row["n_candidates"] and row["n_images"] == 24 and row["chance"] == 1 / 8
        assert row["acc1_ci_low"] < 1 == row["acc1_ci_high"]
        assert row["clc"] == pytest.approx(1) and row["clc_floor"] < 0.5 < row["clc_ceiling"] < 1
        assert row["clc_way"] >= 1 and row["clc_way_ci_low"] <= row["clc_way"]
        assert row["clipscore"] > 2 > row["clipscore_floor"] and row["real_clipscore"] > row["clipscore"]
        assert row["clipscore"] == pytest.approx(row["clipscore_english"])
        assert row["kid_ci_low"] <= row["kid"] <= row["kid_ci_high"]
        assert math.isnan(row["css"])  # names of one word cannot be cut


def test_one_that_is_blind_in_a_language_is_at_chance_and_floor_there_alone() -> None:
    rows = {row.language: row for row in evaluate_task(DrawsColors(blind=["de"]), task())}
    assert rows["en"]["acc1"] == 1 == rows["zh"]["acc1"]
    assert rows["de"]["acc1"] == pytest.approx(1 / 8) == rows["de"]["acc1_of_english"] == rows["de"]["ratio_acc1"]
    assert rows["de"]["clc"] == pytest.approx(rows["de"]["clc_floor"], abs=1e-6)
    assert rows["de"]["clc_way"] == pytest.approx(0, abs=1e-6)
    assert rows["en"]["clc_way"] > 0.3
    assert rows["de"]["clipscore_way"] < 0.2 < rows["en"]["clipscore_way"]
    assert rows["de"]["kid"] > rows["en"]["kid"]


def test_all_languages_are_drawn_whichever_are_asked_for_and_processes_agree() -> None:
    whole = {row.language: row.flat() for row in evaluate_task(DrawsColors(), task())}
    one = evaluate_task(DrawsColors(), task(), languages=["zh"])
    assert [repr(row.flat()) for row in one] == [repr(whole["zh"])]
    assert [repr(found) for found in on_ranks(2, _ranked)] == [repr(list(whole.values()))] * 2


def _ranked() -> list[Any]:
    encoding = Encoding(ranks=Ranks.world(), batch_size=64)
    return [row.flat() for row in evaluate_task(DrawsColors(), task(), encoding=encoding)]


def test_a_file_is_drawn_once_and_only_what_is_missing_or_damaged_again(tmp_path: Path) -> None:
    prompts = [Prompt(tag, name) for names in PALETTE for tag, name in zip(LANGUAGES, names, strict=True)]
    drawing = Drawing(num_images=2, batch_size=4, settings={"brightness": 0.5})
    first, encoding = DrawsColors(), Encoding(cache=tmp_path)
    with drawn_images(first, prompts, drawing, encoding=encoding) as drawn:
        files = {one: [image.path for image in images] for one, images in drawn.items()}
        assert drawn[Prompt("en", "red")][0]().getpixel((20, 20))[0] < 120  # settings reach the model
    asked = [call for call in first.calls if call[1] != ("polar bear",)]
    assert all(len(batch) <= 2 for _, batch in asked) and sum(len(batch) for _, batch in asked) == len(prompts)
    assert encoding.counts.drawn == 2 * len(prompts)
    files[Prompt("de", "rot")][1].write_bytes(files[Prompt("de", "rot")][1].read_bytes()[:-20])
    files[Prompt("en", "blue")][0].unlink()
    again = DrawsColors()
    with drawn_images(again, prompts, drawing, encoding=Encoding(cache=tmp_path)) as drawn:
        assert {name for _, batch in again.calls for name in batch} == {"rot", "blue", "polar bear"}
        assert all(image().size == (24, 24) for images in drawn.values() for image in images)
    other = DrawsColors()
    with torch.no_grad():
        other.weight += 1
    with drawn_images(other, prompts, drawing, encoding=Encoding(cache=tmp_path)):
        assert sum(len(batch) for _, batch in other.calls) == 1 + len(prompts)


def test_prompts_that_are_half_english_are_drawn_where_they_can_be_cut() -> None:
    prompts = color_combinations(PackagedCombinations(), LANGUAGES, of="task drawn")
    assert len(prompts) == 24 and prompts.texts["de"][0] == "rotes Auto"
    assert prompts.mixed("de", english_first=True)[0] == "red Auto"
    assert prompts.mixed("de", english_first=False)[0] == "rotes car"
    assert not prompts.mixed("en", english_first=True)
    painter = DrawsColors()
    opened = GenerationTask("drawn", prompts, color_judge(), Drawing(num_images=2))
    rows = {row.language: row for row in evaluate_task(painter, opened)}
    assert {"red Auto", "rotes car"} <= {text for _, batch in painter.calls for text in batch}
    german = rows["de"]
    assert german["n_switched"] == 24 and math.isnan(rows["en"]["css"])
    assert german["css_english_first"] == pytest.approx(1) and german["css_way"] > german["css_floor"]
    # the judge knows colours alone: of things in one colour it can only guess
    assert german["color_acc"] == 1 and german["object_acc"] == pytest.approx(1 / 6) and math.isnan(german["real_acc1"])
    plain = GenerationTask("drawn", prompts, color_judge(), Drawing(num_images=1), code_switching=False)
    (row,) = evaluate_task(DrawsColors(), plain, languages=["de"])
    assert math.isnan(row["css"]) and math.isnan(row["clc_ceiling"]) and math.isnan(row["clc_way"])


def test_ratios_and_ways_are_their_formulas() -> None:
    each = {"acc5": [1, 0.5, 0, 0.5], "real_acc5": [1, 1, 0.5, 1], "clc": [0.6, 0.8, 0.7, 0.7],
            "clc_floor": [0.2, 0.2, 0.2, 0.2], "clc_ceiling": [0.9, 0.9, 0.9, 0.5]}  # fmt: skip
    values = generation_values(each, seed=0)
    assert values["ratio_acc5"] == pytest.approx(0.5 / 0.875)
    assert values["clc_way"] == pytest.approx((0.7 - 0.2) / (0.8 - 0.2))
    assert values["clc_floor"] == pytest.approx(0.2) and "clipscore_way" not in values
    assert float(values["ratio_acc5_ci_low"]) < 0.5 / 0.875 < float(values["ratio_acc5_ci_high"])
    assert math.isnan(float(generation_values({"acc1": [0.0], "real_acc1": [0.0]}, seed=0)["ratio_acc1"]))


def test_kid_is_of_cosines() -> None:
    (row,) = evaluate_task(DrawsColors(), task(images=1), languages=["en"])
    judge, opened = color_judge(), task(images=1)
    names = opened.prompts.texts["en"]
    shown = DrawsColors().generate(names, language="en"), [one.image() for one in opened.samples]
    sides = [judge.embed_images(images) for images in shown]
    own, real = (2 * torch.nn.functional.normalize(one, dim=1).double().numpy() for one in sides)  # E = 4
    assert row["kid"] == pytest.approx(kernel_distance(own, real), abs=1e-5)


def suite(folder: Path, **more: Any) -> SuiteSpec:
    rows = []
    for number, one in enumerate(color_samples()):
        one.image().save(folder / f"{number}.png")
        split = "train" if number < 4 else "test"
        rows.append({"image": f"{number}.png", "captions": dict(one.captions), "concept": one.key, "split": split})
    table = folder / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    one = {"kind": "generation", "name": "drawn", "source": {"kind": "folder", "path": str(table)},
           "judge": {"path": "tiny"}, "num_images": 2, **more}  # fmt: skip
    return SuiteSpec.model_validate({"tasks": [one], "languages": ["en", "de"]})


def test_results_pages_and_resume(tmp_path: Path) -> None:
    spec = suite(tmp_path, combinations={"kind": "packaged"})
    painter = DrawsColors()
    first = evaluate(painter, spec, folder=tmp_path / "out", quiet=True)
    assert first.tasks == ("drawn", "drawn-combinations") and first.meta["work"]["drawn"] == 2 * (2 * 8 + 4 * 24)
    page = (tmp_path / "out" / "report-drawn.html").read_text(encoding="utf-8")
    assert "What it draws" in page and "top-5 of real images" in page and ">schwarz</span>" in page
    assert "CSS between them" in (tmp_path / "out" / "report-drawn-combinations.html").read_text(encoding="utf-8")
    assert Image.open(tmp_path / "out" / "drawn" / "drawn" / "de" / "0.png").size == (24, 24)
    assert (tmp_path / "out" / "results-generation.csv").is_file()
    assert first.meta["judges"]["drawn"].startswith("tiny (") and "prompt_sets" in first.meta
    again = DrawsColors()
    resumed = evaluate(again, spec, folder=tmp_path / "out", resume=True, quiet=True)
    assert resumed.rows == first.rows and "drawn" not in resumed.meta["work"]
    for path in (tmp_path / "out" / "rows").iterdir():
        path.unlink()
    scored = evaluate(again, spec, folder=tmp_path / "out", resume=True, quiet=True)
    assert repr(scored.rows) == repr(first.rows)
    assert {batch for _, batch in again.calls} == {("polar bear",)}  # what tells the model; all else is there


def test_groups_are_tasks_of_their_own_and_choose_the_same_concepts_each_time(tmp_path: Path) -> None:
    spec = suite(tmp_path, groups={"seen": {"split": "train", "limit": 2}, "unseen": {"split": "test"}}, candidates=3)
    seen, unseen = open_suite(spec).tasks
    assert (seen.name, unseen.name) == ("drawn-seen", "drawn-unseen")
    assert isinstance(seen, GenerationTask) and isinstance(unseen, GenerationTask)
    assert len(seen.prompts) == 2 and len(seen.prompts.names) == 3 == len(unseen.prompts)
    assert not {*seen.prompts.names} & {*unseen.prompts.names}
    assert seen.prompts.names[:2] == seen.prompts.texts["en"]
    with pytest.raises(UnknownName, match="split in the data of task drawn-seen"):
        open_suite(suite(tmp_path, groups={"seen": {"split": "trian"}}))


def test_concepts_need_names_in_all_languages_and_one_name_stands_for_one_concept() -> None:
    samples = color_samples()
    lacking = [samples[0], *(one for one in samples[1:3]), samples[1]]
    twin = [*lacking, type(samples[0])("other", samples[0].images, samples[0].captions, concept="other")]
    found = named_concepts(twin, PromptGroup(), ["de"], candidates=None, of="x")
    assert len(found.names) == 3 and found.languages == ("de",) and found.anchor == "en"
    with pytest.raises(UnknownName):
        named_concepts(samples, PromptGroup(), ["sw"], candidates=None, of="x")
    with pytest.raises(DataError, match="fewer than two concepts have an image and a name in each of de"):
        named_concepts(samples[:1], PromptGroup(), ["de"], candidates=None, of="x")


class Miscounts(DrawsColors):
    def generate(self, prompt: Any, *, language: str, seed: int = 0, num_images: int = 1, **more: Any) -> Any:
        return super().generate(prompt, language=language, seed=seed, num_images=1)


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match="gave 5 images for 5 prompts with num_images = 3; it has to give 15"):
        evaluate_task(Miscounts(), task())
    with pytest.raises(VlkitError, match="does not make images from texts, as task 'drawn' needs"):
        evaluate_task(color_judge(), task())
    with pytest.raises(VlkitError, match="does not embed images and texts, as the judge of task 'drawn' needs"):
        evaluate_task(DrawsColors(), GenerationTask("drawn", task().prompts, DrawsColors()))  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="model"):
        open_suite(suite(tmp_path, judge={"path": str(tmp_path / "nothing")}))
    for more, message in [
        ({"settings": {"seed": 1}}, "settings: seed is said by the task itself; leave it out"),
        ({"groups": {"combinations": {}}}, "combinations is what the task of `combinations` is called"),
    ]:
        with pytest.raises(ValueError, match=message):
            suite(tmp_path, **more)
    path = tmp_path / "own.yaml"
    for text, message in [
        ("a: 1", "expected a list of two or more"),
        ("[{object: hat}, {object: car}]", "entry 1: expected the keys object, color, prompts"),
        ("[{object: hat, color: red, prompts: {en: 3}}, 1]", "entry 1: object, color and each of prompts must be"),
        (2 * "- {object: hat, color: red, prompts: {en: red hat}}\n", "two entries have one prompt in en"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            color_combinations(CombinationFile(path=str(path)), None, of="x")


def test_the_packaged_table_has_every_thing_in_every_colour_in_fourteen_languages() -> None:
    table = color_combinations(PackagedCombinations(), None, of="x")
    assert len(table.languages) == 14 and {*zip(table.parts["object"], table.parts["color"], strict=True)} == {
        (thing, color) for thing in table.parts["object"] for color in ("red", "green", "blue", "yellow")
    }
    for tag in table.languages:
        assert len(set(table.texts[tag])) == len(table)  # no two prompts are alike


def test_the_shipped_suite_has_seen_and_unseen_concepts() -> None:
    (one,) = read_suite("generation_openmoji").tasks
    assert isinstance(one, GeneratedImagesSpec)
    assert {name: group.split for name, group in one.groups.items()} == {"seen": "train", "unseen": "test"}
