"""Suites from Python: what is opened, what is written, what a stopped run goes on from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vlkit
from tests.helpers.evaluate_fakes import CountingModel, picture
from tests.helpers.ranks import on_ranks
from vlkit.data.names.imagenet import english_names, openai_templates, wordnet_ids
from vlkit.distributed.collectives import Ranks
from vlkit.errors import DataError, SpecError, UnknownName, VlkitError
from vlkit.evaluation.compare.comparison import compare
from vlkit.evaluation.metrics.intervals import paired_comparison
from vlkit.evaluation.results.answers import read_answers
from vlkit.evaluation.results.results_file import Results
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import open_suite, read_suite
from vlkit.evaluation.tasks.engine import score_task
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.spec.evaluation import SuiteSpec
from vlkit.spec.load import shipped_suites

NAMES = {
    "en": ["cat", "dog", "polar bear", "cup"],
    "de": ["Katze", "Hund", "Eisbär", "Tasse"],
    "sw": ["paka", "mbwa", None, "kikombe"],
}
FOLDERS = ("cat", "dog", "polar_bear", "teacup")


def images(folder: Path, names: tuple[str, ...] = FOLDERS, *, each: int = 4) -> Path:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for one in range(each):
            picture(10 * number + one).save(folder / name / f"{one}.png")
    return folder


def labels(path: Path, names: dict[str, list[str | None]] = NAMES) -> Path:
    named = {tag: {str(n): name for n, name in enumerate(each) if name} for tag, each in names.items()}
    path.write_text(json.dumps({"labels": named}), encoding="utf-8")
    return path


def zero_shot(tmp: Path, **more: Any) -> dict[str, Any]:
    if not (tmp / "images").exists():
        images(tmp / "images")
        labels(tmp / "labels.json")
    return {
        "kind": "zero_shot",
        "name": "pets",
        "images": {"kind": "folder", "path": str(tmp / "images")},
        "labels": {"kind": "files", "paths": [str(tmp / "labels.json")]},
        **more,
    }


def retrieval(tmp: Path) -> dict[str, Any]:
    rows = [
        {"image": f"images/{name}/{n}.png", "captions": {"en": [f"{name} {n}", f"a {name} {n}"], "de": f"{name}, {n}"}}
        for name in FOLDERS
        for n in range(3)
    ]
    (tmp / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"kind": "retrieval", "name": "captions", "source": {"kind": "folder", "path": str(tmp / "table.jsonl")}}


def suite(*tasks: dict[str, Any], **more: Any) -> SuiteSpec:
    return SuiteSpec.model_validate({"tasks": tasks, **more})


@pytest.fixture
def both(tmp_path: Path) -> SuiteSpec:
    return suite(zero_shot(tmp_path), retrieval(tmp_path), batch_size=5)


class Stops(CountingModel):
    """Is interrupted at the first text of a language."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self.language = language

    def tokenize(self, texts: Any, *, language: str | None = None) -> Any:
        if language == self.language:
            raise KeyboardInterrupt
        return super().tokenize(texts, language=language)


def figures(folder: Path) -> list[Any]:
    rows: list[Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["results"]
    return rows


def test_a_suite_gives_what_its_tasks_give(both: SuiteSpec, tmp_path: Path) -> None:
    model = CountingModel()
    results = vlkit.evaluate(model, both, name="mine", folder=tmp_path / "out", quiet=True)
    opened = open_suite(both)
    assert opened.languages == (("en", "de", "sw"), ("en", "de"))
    assert list(results.only("pets").rows) == evaluate_task(CountingModel(), opened.tasks[0], variant="mine")
    rows = evaluate_task(CountingModel(), opened.tasks[1], variant="mine")
    assert list(results.only("captions").rows) == rows
    assert model.images_seen == 16  # each image once: the 12 with captions are among the pets
    kept = Results.load(tmp_path / "out" / "results.json")
    assert [row.language for row in kept.rows] == ["en", "de", "sw", "en", "de"]
    lines = (tmp_path / "out" / "results-retrieval.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3 and lines[0].startswith("task,variant,language,")
    assert len((tmp_path / "out" / "results.csv").read_text(encoding="utf-8").splitlines()) == 4
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*.html")}
    assert set(pages) == {"report-captions.html", "report-pets.html"}
    assert "Accuracy by language" in pages["report-pets.html"] and "text to image" not in pages["report-pets.html"]
    assert "text to image" in pages["report-captions.html"] and "Accuracy by" not in pages["report-captions.html"]
    assert f"<td>{100 * rows[0]['image_retrieval_recall@5']:.1f}</td>" in pages["report-captions.html"]


@pytest.mark.parametrize("stop", ["de", "sw"])
def test_a_stopped_run_goes_on(both: SuiteSpec, tmp_path: Path, stop: str) -> None:
    whole = evaluate(CountingModel(), both, folder=tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Stops(stop), both, folder=tmp_path / "out", quiet=True)
    assert not (tmp_path / "out" / "results.json").exists()
    model = CountingModel()
    resumed = evaluate(model, both, folder=tmp_path / "out", resume=True, quiet=True)
    assert model.images_seen == 0  # the task that had not been reached looks at images of the first
    assert resumed.rows == whole.rows
    assert figures(tmp_path / "out") == figures(tmp_path / "whole")
    again = CountingModel()
    work = evaluate(again, both, folder=tmp_path / "out", resume=True, quiet=True).meta["work"]
    assert again.images_seen == work["texts_encoded"] == work["texts_asked"] == 0


@pytest.mark.parametrize("how", ["overwrite", "resume"])
def test_an_image_that_was_replaced_counts_as_it_is_now(both: SuiteSpec, tmp_path: Path, how: str) -> None:
    def run(**said: bool) -> Results:
        return evaluate(CountingModel(), both, folder=tmp_path / "out", quiet=True, **said)

    before = run()
    path = next((tmp_path / "images").rglob("*.png"))
    raw, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    picture(77).save(path)
    os.utime(path, ns=times)
    changed = run(**{how: True})
    assert changed.meta["work"]["images_encoded"] == 1
    assert changed.meta["images"]["pets"] != before.meta["images"]["pets"]
    fresh = evaluate(CountingModel(), both, quiet=True)
    assert [row.flat() for row in changed.rows] == [row.flat() for row in fresh.rows]
    path.write_bytes(raw)  # another time, the same image
    again = run(**{how: True})
    assert again.rows == before.rows and again.meta["images"] == before.meta["images"]
    assert again.meta["work"]["images_encoded"] == 0


def test_half_a_file_of_a_language_is_computed_again(both: SuiteSpec, tmp_path: Path) -> None:
    evaluate(CountingModel(), both, folder=tmp_path / "out", quiet=True)
    before = figures(tmp_path / "out")
    for path in (tmp_path / "out" / "rows").iterdir():
        path.write_bytes(path.read_bytes()[:20])
    evaluate(CountingModel(), both, folder=tmp_path / "out", resume=True, quiet=True)
    assert figures(tmp_path / "out") == before


def test_a_folder_is_never_taken_unasked(both: SuiteSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate(CountingModel(), both, folder=out, quiet=True)
    with pytest.raises(VlkitError, match="holds an evaluation; --resume goes on with it, --overwrite replaces it"):
        evaluate(CountingModel(), both, folder=out, quiet=True)
    other = suite(zero_shot(tmp_path), languages=["de"])
    with pytest.raises(VlkitError, match="an evaluation of other settings"):
        evaluate(CountingModel(), other, folder=out, resume=True, quiet=True)
    (out / "mine.txt").write_text("mine")
    model = CountingModel()
    evaluate(model, other, folder=out, overwrite=True, quiet=True)
    assert model.images_seen == 0  # embeddings are known by their digest
    assert [row["language"] for row in figures(out)] == ["de"]
    assert (out / "mine.txt").exists() and not (out / "results-retrieval.csv").exists()
    assert sorted(path.name for path in (out / "answers" / "pets").iterdir()) == ["de.npz"]
    assert [path.name for path in out.glob("*.html")] == ["report.html"]
    with pytest.raises(VlkitError, match="holds other files; --out takes a new folder"):
        evaluate(CountingModel(), other, folder=tmp_path / "images", quiet=True)


def test_answers_are_those_of_the_engine(tmp_path: Path) -> None:
    spec = suite(zero_shot(tmp_path))
    evaluate(CountingModel(), spec, folder=tmp_path / "out", quiet=True)
    scores = score_task(CountingModel(), open_suite(spec).tasks[0]).languages["sw"]
    found = read_answers(tmp_path / "out", "pets", "sw")
    assert found is not None
    assert found.image_N.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15]
    assert found.class_N.tolist() == [0] * 4 + [1] * 4 + [3] * 4  # ids of the task, not places in the language
    assert found.rank_N.tolist() == scores.rank_N.tolist()
    path = tmp_path / "out" / "answers" / "pets" / "sw.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"sw\.npz is no file of answers"):
        read_answers(tmp_path / "out", "pets", "sw")


def _evaluate_here(plain: dict[str, Any], folder: str) -> int:
    model = CountingModel()
    evaluate(model, SuiteSpec.model_validate(plain), folder=folder, ranks=Ranks.world(), quiet=True)
    return model.images_seen


def test_two_processes_write_what_one_writes(both: SuiteSpec, tmp_path: Path) -> None:
    evaluate(CountingModel(), both, folder=tmp_path / "one", quiet=True)
    seen = on_ranks(2, _evaluate_here, both.model_dump(mode="json"), str(tmp_path / "two"))
    assert sum(seen) == 16 and min(seen) > 0
    assert figures(tmp_path / "two") == figures(tmp_path / "one")
    for path in (tmp_path / "one" / "answers").rglob("*.npz"):
        assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()


class TestImages:
    def test_folder_names_are_names_where_no_file_is_given(self, tmp_path: Path) -> None:
        plain = zero_shot(tmp_path, labels={"kind": "own"})
        assert open_suite(suite(plain)).tasks[0].names == {"en": [("cat",), ("dog",), ("polar bear",), ("teacup",)]}

    def test_a_language_is_taken_from_the_first_file_that_has_it(self, tmp_path: Path) -> None:
        first = labels(tmp_path / "first.json", {"sw": ["chui", None, None, None]})
        paths = [str(first), str(tmp_path / "labels.json")]
        task = open_suite(suite(zero_shot(tmp_path, labels={"kind": "files", "paths": paths}))).tasks[0]
        assert list(task.names) == ["sw", "en", "de"]
        assert task.names["sw"] == [("chui",), None, None, None] and task.names["de"][1] == ("Hund",)

    def test_imagenet_folders_by_id_and_by_number_are_the_same_task(self, tmp_path: Path) -> None:
        places = (0, 7, 999)
        tasks = []
        for style in ("ids", "numbers"):
            names = [wordnet_ids()[place] if style == "ids" else f"{place:03}" for place in places]
            images(tmp_path / style, tuple(names), each=2)
            spec = {"kind": "imagenet", "path": str(tmp_path / style), "classes": "present"}
            task = {"kind": "zero_shot", "name": "i", "images": spec, "templates": {"kind": "packaged"}}
            tasks.append(open_suite(suite(task)).tasks[0])
        assert list(tasks[0].targets) == list(tasks[1].targets) == [0, 0, 7, 7, 999, 999]
        assert tasks[0].names == tasks[1].names and tasks[0].templates is None
        named = {number: names for number, names in enumerate(tasks[0].names["en"]) if names}
        assert named == {place: (english_names()[place],) for place in places}

    @pytest.mark.parametrize(
        ("folders", "classes", "message"),
        [
            (("n01440764", "kitten"), "present", "kitten names no ImageNet class; folders are named by WordNet id"),
            (("0", "1000"), "present", "1000 names no ImageNet class"),
            (("0", "n01440764"), "present", "the folders 0 and n01440764 are of one class"),
            (("0", "1"), "imagenet-1k", "of the 1000 classes of imagenet-1k, 998 are missing: n01484850, "),
            (("0", "1"), "imagenet-r", "199 are missing: .*; 1 are not of it: n01440764"),
        ],
    )
    def test_wrong_imagenet_folders(self, tmp_path: Path, folders: Any, classes: str, message: str) -> None:
        images(tmp_path / "images", folders, each=1)
        spec = {"kind": "imagenet", "path": str(tmp_path / "images"), "classes": classes}
        with pytest.raises(DataError, match=message):
            open_suite(suite({"kind": "zero_shot", "name": "i", "images": spec}))

    def test_babel_imagenet_as_its_authors_evaluate_it(self, tmp_path: Path) -> None:
        images(tmp_path / "val", (wordnet_ids()[0], wordnet_ids()[2]), each=2)
        babel = {"DE": [[0, 2, 5], ["Schleie", "Weisshai", "x"]], "EN": [[0], ["Tinca tinca"]], "FY": [[2], ["hai"]]}
        (tmp_path / "babel.json").write_text(json.dumps(babel))
        (tmp_path / "prompts.json").write_text(json.dumps({"DE": ["Foto  {} ."], "EN": ["English {}"]}))
        given = {"images.path": tmp_path / "val", "images.classes": "present"}
        given |= {"labels.paths": f"[{tmp_path / 'babel.json'}]", "templates.path": tmp_path / "prompts.json"}
        spec = read_suite("babel_imagenet", [f"tasks.0.{key}={value}" for key, value in given.items()])
        model = CountingModel()
        results = evaluate(model, spec, folder=tmp_path / "out", quiet=True)
        assert [(row.language, row["num_classes"], row["n_images"]) for row in results.rows] == [
            ("en", 2, 4), ("de", 2, 4),
        ]  # fmt: skip
        assert {"Foto  Schleie .", "Foto  Weisshai ."} <= set(model.texts_seen)
        tench = {template.replace("{}", "tench") for template in openai_templates()}
        assert tench <= set(model.texts_seen)
        assert not any("Tinca" in text or text.startswith("English") for text in model.texts_seen)
        said = "babel-imagenet: fy left out: one class is named, which leaves nothing to tell apart"
        assert results.meta["notes"] == [said] and "hai" not in model.texts_seen
        assert f"- {said}\n" in (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
        written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
        assert b"Schleie" not in written and b"Weisshai" not in written  # the license of the names

    def test_languages_with_nothing_to_tell_apart_are_in_no_mean(self, tmp_path: Path) -> None:
        plain = zero_shot(tmp_path)
        whole = evaluate(CountingModel(), suite(plain), quiet=True)
        labels(tmp_path / "labels.json", {**NAMES, "fy": ["kat", None, None, None], "gd": [None, None, None, "cupa"]})
        results = evaluate(CountingModel(), suite(plain, languages=["de", "fy", "en", "sw"]), quiet=True)
        assert results.mean("model")["acc1"] == whole.mean("model")["acc1"]
        assert results.mean("model").languages == 3
        assert results.meta["languages"] == ["de", "en", "sw"]
        assert results.meta["notes"] == ["pets: fy left out: one class is named, which leaves nothing to tell apart"]
        notes = open_suite(suite(plain)).notes
        assert notes == ("pets: fy, gd left out: one class is named, which leaves nothing to tell apart",)
        with pytest.raises(DataError, match="task pets: no language is left to score; fy left out: one class is named"):
            open_suite(suite(plain, languages=["fy"]))
        shared = open_suite(suite({**plain, "comparable": {"shared": True}}))  # the two leave classes to be shared
        assert [len(task.classes("de")[0]) for task in shared.tasks] == [4, 3]

    def test_captions_of_one_image_are_found_by_any_model(self, tmp_path: Path) -> None:
        zero_shot(tmp_path)
        table = retrieval(tmp_path)
        path = tmp_path / "table.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        first = json.loads(lines[0])
        first["captions"]["sw"] = ["paka", "paka mmoja"]
        path.write_text("\n".join([json.dumps(first), *lines[1:]]), encoding="utf-8")
        opened = open_suite(suite(table))
        assert opened.languages == (("en", "de"),)
        assert opened.notes == ("captions: sw left out: captions of one image, which leaves nothing to tell apart",)
        assert open_suite(suite({**table, "gallery": "all"})).languages == (("en", "de", "sw"),)


class TestBadInput:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"languages": ["de", "xx"]}, "no language 'xx'"),
            ({"languages": ["fr"]}, "no language of task pets 'fr'; there are: de, en, sw"),
            ({"images": {"kind": "folder", "path": "nowhere"}}, "nowhere: no such folder of images"),
            ({"labels": {"kind": "files", "paths": ["nowhere.json"]}}, "cannot read label file nowhere.json"),
            ({"templates": {"kind": "file", "path": "nowhere.json"}}, "cannot read template file nowhere.json"),
        ],
    )
    def test_what_is_missing(self, tmp_path: Path, more: dict[str, Any], message: str) -> None:
        with pytest.raises(VlkitError, match=message):
            evaluate(CountingModel(), suite(zero_shot(tmp_path, **more)), folder=tmp_path / "out", quiet=True)
        assert not (tmp_path / "out").exists()

    def test_label_files_of_other_classes(self, tmp_path: Path) -> None:
        plain = zero_shot(tmp_path)
        labels(tmp_path / "labels.json", {"de": ["a", "b", "c", "d", "e"]})
        with pytest.raises(DataError, match=r"de: class 4 is not in 0\.\.3"):
            open_suite(suite(plain))
        (tmp_path / "labels.json").write_text('{"DE": [[0], ["Schleie"]]}')
        with pytest.raises(DataError, match=r"is for 1000 classes, but .*images has 4"):
            open_suite(suite(plain))
        (tmp_path / "labels.json").write_text('{"DE": [[0, 1], ["Schleie"]]}')
        with pytest.raises(DataError, match="DE: 2 class numbers but 1 names"):
            open_suite(suite(plain))

    def test_a_class_without_images_and_a_template_without_a_slot(self, tmp_path: Path) -> None:
        (tmp_path / "prompts.json").write_text('{"de": ["ein Foto"]}')
        plain = zero_shot(tmp_path, templates={"kind": "file", "path": str(tmp_path / "prompts.json")})
        with pytest.raises(DataError, match="'ein Foto' has no slot"):
            open_suite(suite(plain))
        (tmp_path / "images" / "zebra").mkdir()
        with pytest.raises(DataError, match=r"zebra: has no image \(jpg, png"):
            open_suite(suite(zero_shot(tmp_path)))

    def test_an_image_that_cannot_be_read_is_named_and_costs_nothing_done(self, tmp_path: Path) -> None:
        spec = suite(zero_shot(tmp_path), batch_size=4)
        bad = tmp_path / "images" / "dog" / "3.png"
        whole = bad.read_bytes()
        bad.write_bytes(whole[:40])
        with pytest.raises(DataError, match=r"3\.png"):
            evaluate(CountingModel(), spec, folder=tmp_path / "out", quiet=True)
        bad.write_bytes(whole)
        model = CountingModel()
        evaluate(model, spec, folder=tmp_path / "out", resume=True, quiet=True)
        assert model.images_seen == 12  # the first batch was there

    def test_what_a_suite_may_say(self, tmp_path: Path) -> None:
        plain = zero_shot(tmp_path)
        for tasks, message in (
            ([plain, plain], "2 tasks are named 'pets'"),
            ([{**plain, "name": "../up"}], "name"),
            ([{**plain, "images": {"kind": "built", "name": "flags"}}], "have names of their own"),
            ([{**plain, "images": {"kind": "built", "name": "openmoji", "split": "all"}}], "several drawings"),
        ):
            with pytest.raises(ValueError, match=message):
                suite(*tasks)
        with pytest.raises(UnknownName, match="no split in the data of task captions 'dev'; there are: train"):
            open_suite(suite({**retrieval(tmp_path), "split": "dev"}))
        with pytest.raises(UnknownName, match="no suite 'openmojis'; did you mean 'openmoji'"):
            read_suite("openmojis")

    def test_shipped_suites_are_whole_or_say_what_they_need(self) -> None:
        needs = {}
        for name in shipped_suites():
            try:
                read_suite(name)
            except SpecError as error:
                needs[name] = sorted(problem.split("  ")[1].splitlines()[0] for problem in error.problems)
                assert all("missing" in problem for problem in error.problems)
        paths = ["tasks.0.images.path", "tasks.0.labels.paths"]
        source = ["tasks.0.source.images", "tasks.0.source.path"]
        assert needs == {
            "babel_imagenet": [*paths, "tasks.0.templates.path"],
            "captions": ["tasks.0.source.path"],
            "linear_probe": paths[:1],
            "omw_imagenet": paths,
            "retrieval": ["tasks.0.source.path"],
            "xflickrco": ["tasks.0.source.captions", "tasks.0.source.images"],
            **dict.fromkeys(("maxm", "marvl", "xgqa", "xm3600", "xvnli"), source),
            **dict.fromkeys(("cvqa", "kaleidoscope", "m3exam", "m5_vgr", "m5_vlod", "mtvqa", "xmmmu"), source[1:]),
        }
        assert {"openmoji", "flags"} <= set(shipped_suites())


class TestCompare:
    @pytest.fixture
    def two(self, tmp_path: Path, both: SuiteSpec) -> tuple[Path, Path]:
        for seed, name in enumerate(("one", "two")):
            evaluate(CountingModel(seed=seed), both, name=name, folder=tmp_path / name, quiet=True)
        return tmp_path / "one", tmp_path / "two" / "results.json"

    def test_differences_are_paired(self, two: tuple[Path, Path], both: SuiteSpec) -> None:
        found = compare(*two)
        assert (found.one, found.other, found.notes) == ("one", "two", ())
        task = open_suite(both).tasks[0]
        scores = [score_task(CountingModel(seed=seed), task).languages for seed in (0, 1)]
        for row in found.rows:
            if row.task == "captions":
                assert not row.paired and row.metric == "mean_recall" and row.num_classes == 0
                continue
            one, other = (languages[row.language] for languages in scores)
            classes = np.asarray(one.classes)[one.target_N.numpy()]
            wanted = paired_comparison(one.rank_N == 1, other.rank_N == 1, classes)
            assert (row.low, row.high, row.p_value) == (wanted.low, wanted.high, wanted.p_value)
            assert row.difference == pytest.approx(wanted.difference, abs=2e-6)
            assert row.one_english == pytest.approx((one.english_N == 1).double().mean().item(), abs=1e-6)
        assert [row.language for row in found.rows if row.task == "captions"] != []
        leads = [row.difference for row in found.rows if row.task == "pets"]
        assert leads == sorted(leads, reverse=True) and len(leads) == 3

    def test_the_other_way_round_the_sign_changes(self, two: tuple[Path, Path]) -> None:
        there, back = compare(*two), compare(two[1], two[0])
        turned = {(row.task, row.language): (row.other, row.one, -row.difference) for row in back.rows}
        assert {(row.task, row.language): (row.one, row.other, row.difference) for row in there.rows} == turned
        for one, other in zip(there.means, back.means, strict=True):
            assert (one.task, one.value, one.low) == pytest.approx((other.task, -other.value, -other.high))

    def test_the_mean_draws_the_same_classes_in_every_language(self, tmp_path: Path) -> None:
        # one language written three times: its mean is as uncertain as one of them, not a third of it
        names = [f"word {number}" for number in range(20)]
        folder = images(tmp_path / "many", tuple(f"c{number:02}" for number in range(20)), each=1)
        labels(tmp_path / "many.json", {"en": names, "de": names, "sw": names})
        task = zero_shot(tmp_path, images={"kind": "folder", "path": str(folder)})
        spec = suite({**task, "labels": {"kind": "files", "paths": [str(tmp_path / "many.json")]}})
        for seed in (0, 1):
            evaluate(CountingModel(seed=seed), spec, name=f"m{seed}", folder=tmp_path / str(seed), quiet=True)
        found = compare(tmp_path / "0", tmp_path / "1")
        mean, row = found.means[0], found.rows[0]
        assert mean.resampled == "classes" and mean.value == pytest.approx(row.difference)
        assert row.high - row.low > 0
        assert (mean.low, mean.high) == pytest.approx((row.low, row.high), abs=0.06)

    def test_a_model_is_not_ahead_of_itself(self, two: tuple[Path, Path]) -> None:
        found = compare(two[0], two[0])
        assert all(row.difference == 0 and row.p_value in (1.0,) for row in found.rows if row.paired)
        assert found.ahead("pets") == (0, 0, 3) and found.one == "one/one"

    def test_without_the_same_images_there_is_no_interval(self, two: tuple[Path, Path], tmp_path: Path) -> None:
        content = json.loads(two[1].read_text())
        content["meta"]["images"]["pets"] = "other"
        two[1].write_text(json.dumps(content))
        found = compare(*two)
        assert not any(row.paired for row in found.rows)
        said = "not the same images, so that the difference has no interval; evaluate both on the same ones"
        assert found.notes == (f"pets en, de, sw: {said}",)
        content["results"][0]["num_classes"] = 3
        content["results"] = [one for one in content["results"] if (one["task"], one["language"]) != ("pets", "sw")]
        two[1].write_text(json.dumps(content))
        found = compare(*two)
        assert [row.language for row in found.rows if row.task == "pets"] == ["de"]
        assert [mean.resampled for mean in found.means] == ["languages", "languages"]
        assert found.notes[0] == "only in the first: pets sw"
        assert found.notes[1] == "pets en: 4 and 3 classes, 16 and 16 images; left out"

    @pytest.mark.parametrize(
        ("names", "notes", "kept"),
        [  # four classes in English and German, three in Swahili, as before
            ({"sw": ["paka", None, "dubu", "kikombe"]}, ["pets sw: other classes; left out"], ["de", "en"]),
            (
                {"de": ["Kater", "Hund", "Eisbär", "Tasse"]},
                ["pets de: the classes have other names"],
                ["de", "en", "sw"],
            ),
        ],
    )
    def test_the_same_number_of_other_classes_or_names(
        self, two: tuple[Path, Path], tmp_path: Path, names: Any, notes: list[str], kept: list[str]
    ) -> None:
        labels(tmp_path / "labels.json", {**NAMES, **names})
        evaluate(CountingModel(), suite(zero_shot(tmp_path)), name="three", folder=tmp_path / "three", quiet=True)
        found = compare(two[0], tmp_path / "three", task="pets")
        assert sorted(row.language for row in found.rows) == kept and all(row.paired for row in found.rows)
        assert [note for note in found.notes if note.startswith("pets")] == notes

    def test_other_prompts_images_and_captions(self, two: tuple[Path, Path], tmp_path: Path) -> None:
        spec = suite(zero_shot(tmp_path, templates={"kind": "list", "texts": ["a {}"]}))
        evaluate(CountingModel(), spec, name="three", folder=tmp_path / "three", quiet=True)
        found = compare(two[0], tmp_path / "three", task="pets")
        assert found.notes == ("pets en, de, sw: other prompts",) and all(row.paired for row in found.rows)

        table = retrieval(tmp_path)
        path = tmp_path / "table.jsonl"
        path.write_text(path.read_text(encoding="utf-8").replace("cat, 0", "Katze, 0"), encoding="utf-8")
        picture(99).save(next((tmp_path / "images").rglob("0.png")))
        spec = suite(zero_shot(tmp_path), table)
        evaluate(CountingModel(), spec, name="three", folder=tmp_path / "four", quiet=True)
        found = compare(two[0], tmp_path / "four")
        assert not any(row.paired for row in found.rows)
        assert sorted((row.task, row.language) for row in found.rows if row.task == "captions") == [("captions", "en")]
        assert [note.partition(":")[0] for note in found.notes] == ["pets en, de, sw", "captions en", "captions de"]
        assert found.notes[-1] == "captions de: other captions, or of other images; left out"

    def test_nothing_in_common_and_several_models(self, two: tuple[Path, Path], tmp_path: Path) -> None:
        content = json.loads(two[1].read_text())
        for row in content["results"]:
            row["task"] += "-2"
        content["tasks"] = {f"{task}-2": one for task, one in content["tasks"].items()} | content["tasks"]
        other = tmp_path / "other.json"
        other.write_text(json.dumps(content))
        with pytest.raises(DataError, match=r"no task and language in common.*tasks: pets, captions, and pets-2"):
            compare(two[0], other)
        content["results"] += json.loads((two[0] / "results.json").read_text())["results"]
        other.write_text(json.dumps(content))
        with pytest.raises(VlkitError, match="holds 2 models; name the two: --models two,one"):
            compare(two[0], other)
        found = compare(two[0], other, models=("one", "one"))
        assert all(row.difference == 0 and not row.paired for row in found.rows) and len(found.rows) == 5
        with pytest.raises(UnknownName, match=r"no model in .*'three'"):
            compare(two[0], other, models=("one", "three"))
