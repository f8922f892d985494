"""Captioning by the plain protocol: figures by definition, one look at an image, baselines, stops, processes, pages."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.answering_fakes import COLORS, NAMES, ColorTeller, colored
from tests.helpers.ranks import on_ranks
from vlkit.data.sources.classes.open_classes import open_images
from vlkit.distributed.collectives import Ranks
from vlkit.errors import DataError, MissingPackage, SpecError, UnknownName, VlkitError
from vlkit.evaluation.compare.comparison import compare
from vlkit.evaluation.metrics import ngrams
from vlkit.evaluation.metrics.fidelity import IDENTIFIERS
from vlkit.evaluation.metrics.intervals import paired_means
from vlkit.evaluation.metrics.segmentation import SEGMENTERS
from vlkit.evaluation.results.results_file import Results
from vlkit.evaluation.results.terminal_table import task_table
from vlkit.evaluation.results.written import read_written
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import open_suite, read_suite
from vlkit.evaluation.tasks import questions
from vlkit.evaluation.tasks.captioning_task import CaptioningTask
from vlkit.evaluation.tasks.controls import blank_picture
from vlkit.evaluation.tasks.questions import others
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.spec.evaluation import SuiteSpec
from vlkit.spec.language import GenerationSpec
from vlkit.types import Question, Sample

EACH = 3


def table(folder: Path, **more: Any) -> dict[str, Any]:
    """Pictures of four colours, three of each, with their names in three languages; as a source."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for color in COLORS:
        for number in range(EACH):
            sample = colored(color, number, **more)
            sample.image().save(folder / "images" / f"{sample.key}.png")
            captions = {tag: list(texts) for tag, texts in sample.captions.items()}
            rows.append({"image": f"images/{sample.key}.png", "captions": captions, "concept": color})
    path = folder / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"kind": "folder", "path": str(path)}


def suite(folder: Path, **more: Any) -> SuiteSpec:
    task = {"kind": "captioning", "name": "say", "source": table(folder), **more}
    return SuiteSpec.model_validate({"tasks": [task], "batch_size": 5})


def task(samples: list[Sample], **more: Any) -> CaptioningTask:
    return CaptioningTask("say", samples, {tag: f"Say it in {tag}: " for tag in NAMES}, **more)


SAMPLES = [colored(color, number) for color in COLORS for number in range(EACH)]


def test_figures_are_means_over_images_and_each_image_is_seen_once() -> None:
    names = {**NAMES, "de": ("rot", "grüner", "gelb", "gelb")}  # right, nearly right, wrong, right
    model = ColorTeller(names, confused={"zh": "en"})
    rows = {row.language: row for row in evaluate_task(model.train(), task(SAMPLES))}
    assert model.images_seen == len(SAMPLES) + 1 and model.training  # a grey one
    scores = [1.0, ngrams.chrf("grüner", ["grün"]), ngrams.chrf("gelb", ["blau"]), 1.0]
    assert rows["de"]["chrf"] == pytest.approx(np.mean(scores))
    assert rows["de"]["exact_match"] == 0.5 == rows["de"]["token_f1"]
    assert rows["de"]["fidelity"] == 1 and rows["de"]["fidelity_same_image"] == 0.75
    assert rows["en"]["chrf"] == rows["en"]["exact_match"] == rows["en"]["fidelity"] == 1
    assert (
        rows["zh"]["chrf"] == rows["zh"]["fidelity"] == 0 and rows["zh"]["wrong_language"] == 1
    )  # it answers in English
    assert rows["de"]["wrong_language"] == 0
    assert rows["de"]["chrf_ci_low"] < rows["de"]["chrf"] < rows["de"]["chrf_ci_high"]
    assert rows["de"]["length"] == np.mean([3, 6, 4, 4]) and rows["de"]["reference_length"] == np.mean([3, 4, 4, 4])


def test_without_the_image_and_with_another_one_it_is_asked_the_same() -> None:
    model = ColorTeller()
    (row, *_) = evaluate_task(model, task(SAMPLES), languages=["en"])
    blank = np.mean([ngrams.chrf("red", [name]) for name in NAMES["en"]])
    assert row["chrf_no_image"] == pytest.approx(blank) and row["chrf_over_no_image"] == pytest.approx(1 - blank)
    asked = [question for question in model.asked if not question.images]
    assert len(asked) == 1 and asked[0].text == "Say it in en: " and asked[0].language == "en"
    grey = model._named(Question("", (blank_picture(),), "en"))
    assert row["chrf_blank_image"] == pytest.approx(np.mean([ngrams.chrf(grey, [name]) for name in NAMES["en"]]))
    assert row["exact_match_blank_image"] == 0.25 and row["exact_match_over_blank_image"] == 0.75
    assert row["exact_match_other_image"] == 0 and row["exact_match_over_other_image"] == 1
    concepts = np.repeat(np.arange(4), EACH)
    gap = paired_means([1.0] * 12, [ngrams.chrf("red", [name]) for name in np.repeat(NAMES["en"], EACH)], concepts)
    assert row["chrf_over_no_image_ci_low"] == pytest.approx(gap.low, abs=0.05)
    plain = evaluate_task(ColorTeller(), task(SAMPLES, controls=()), languages=["en"])[0]
    assert np.isnan(plain["chrf_no_image"]) and np.isnan(plain["chrf_over_other_image"]) and plain["chrf"] == 1


@pytest.mark.parametrize("counts", [(1, 1), (3, 1, 2), (2, 2, 2, 1), (4, 1, 1, 2)])
def test_another_image_is_of_another_concept_and_each_is_taken_once(counts: tuple[int, ...]) -> None:
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    for seed in range(5):
        found = others(classes, seed=seed)
        assert found is not None and sorted(found) == list(range(len(classes)))
        assert (classes[found] != classes).all()
    assert others([0, 0, 0, 1], seed=0) is None


def test_what_is_asked_is_what_the_suite_says(tmp_path: Path) -> None:
    more = {"template": "{language} ({autonym}): ", "prefixes": {"fr": "On voit", "ger": "Es ist "},
            "generation": {"max_tokens": 7, "beams": 3}, "languages": ["de", "en"]}  # fmt: skip
    model = ColorTeller()
    results = evaluate(model, suite(tmp_path, **more), folder=tmp_path / "out", quiet=True)
    asked = {(one.text, one.prefix) for one in model.asked if one.text != "?"}
    assert asked == {("German (Deutsch): ", "Es ist "), ("English (English): ", "")}
    assert model.generations[-1] == GenerationSpec(max_tokens=7, beams=3)
    assert all(row["exact_match"] == 1 for row in results.rows)  # the prefix is not scored
    assert results.meta["questions"]["say"] == {"de": "German (Deutsch): Es ist ", "en": "English (English): "}
    assert json.loads(results.meta["generation"]["say"]) == {"max_tokens": 7, "beams": 3}
    assert results.meta["work"] == {"images_encoded": 13, "texts_encoded": 0, "texts_asked": 0, "answers": 28}


def test_results_pages_and_comparison(tmp_path: Path) -> None:
    spec = suite(tmp_path)
    for name, confused in (("one", {}), ("other", {"zh": "en"})):
        evaluate(ColorTeller(confused=confused), spec, name=name, folder=tmp_path / name, quiet=True)
    loaded = Results.load(tmp_path / "other" / "results.json")
    assert loaded.measures("say").headline == "chrf" and loaded.rows[2].headline == (0, 0, 0)
    lines = list(csv.DictReader((tmp_path / "other" / "results-captions.csv").read_text(encoding="utf-8").splitlines()))
    assert [line["language"] for line in lines] == ["en", "de", "zh"] and lines[0]["keyword_accuracy"] == ""
    written = read_written(tmp_path / "other", "say", "zh")
    assert written is not None and len(written) == 12
    assert (written[0].answer, written[0].references, written[0].figures["fidelity"]) == ("red", ("红色",), 0)
    page = (tmp_path / "other" / "report.html").read_text(encoding="utf-8")
    assert "other makes use of what it is shown in English and German: the interval of chrF gained by" in page
    assert "What it says" in page and "红色" in page and "keyword accuracy" not in page
    assert "| group | languages | mean | 95 % interval |" in (tmp_path / "other" / "results.md").read_text()
    assert task_table(loaded).row_count == 3
    found = {row.language: row for row in compare(tmp_path / "one", tmp_path / "other").rows}
    assert (found["zh"].difference, found["zh"].low, found["zh"].high) == (1, 1, 1) and found["zh"].p_value < 0.01
    assert found["en"].state == found["de"].state == 0 and found["en"].paired
    evaluate(ColorTeller(), suite(tmp_path, languages=["en"]), folder=tmp_path / "other", overwrite=True, quiet=True)
    assert [path.name for path in (tmp_path / "other" / "written" / "say").iterdir()] == ["en.jsonl"]


class Stops(ColorTeller):
    """Is interrupted at the n-th call for answers."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def answer(self, questions: Any, **settings: Any) -> list[str]:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().answer(questions, **settings)


def test_the_page_says_so_where_nothing_shows_that_images_are_used(tmp_path: Path) -> None:
    class Blind(ColorTeller):
        def _named(self, question: Question) -> str:
            return self.names[question.language or "en"][0]

    evaluate(Blind(), suite(tmp_path), name="blind", folder=tmp_path / "out", quiet=True)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    said = "blind does not show that it uses what it is shown: no interval of chrF gained by the image lies above 0."
    assert said in page


def test_a_stopped_run_goes_on_with_the_next_answer(tmp_path: Path) -> None:
    spec = suite(tmp_path)
    whole = evaluate(ColorTeller(), spec, folder=tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Stops(6), spec, folder=tmp_path / "out", quiet=True)  # two for what the model is, four batches
    (kept,) = (tmp_path / "out" / "features").glob("answers-*/0.jsonl")
    with kept.open("ab") as stream:
        stream.write(b'{"key": "half of a li')
    model = ColorTeller()
    resumed = evaluate(model, spec, folder=tmp_path / "out", resume=True, quiet=True)
    assert resumed.rows == whole.rows
    answered = 3 * 5 + 5  # of the first five images in three languages, of the next five in one
    assert resumed.meta["work"]["answers"] == 3 * 12 + 3 + 3 - answered  # and without, and about a grey one
    assert resumed.meta["work"]["images_encoded"] == 12 - 5 + 1
    again = evaluate(ColorTeller(), spec, folder=tmp_path / "out", resume=True, quiet=True)
    assert "answers" not in again.meta["work"] and again.rows == whole.rows


def test_another_model_prompt_or_image_is_asked_anew(tmp_path: Path) -> None:
    cache, spec = tmp_path / "cache", suite(tmp_path, controls=[])

    def answers(model: ColorTeller, spec: SuiteSpec, name: str) -> int:
        return evaluate(model, spec, folder=tmp_path / name, cache=cache, quiet=True).meta["work"].get("answers", 0)

    assert answers(ColorTeller(), spec, "a") == 36 and answers(ColorTeller(), spec, "b") == 0
    assert answers(ColorTeller({**NAMES, "en": ("a", "b", "c", "d")}), spec, "c") == 36  # its words tell it apart
    assert answers(ColorTeller(), suite(tmp_path, controls=[], template="What?"), "d") == 36
    Image.new("RGB", (5, 5), (1, 2, 3)).save(tmp_path / "images" / "red-0.png")
    assert answers(ColorTeller(), spec, "e") == 3


def _rows_here(plain: dict[str, Any]) -> list[Any]:
    spec = SuiteSpec.model_validate(plain)
    return [row.flat() for row in evaluate(ColorTeller(), spec, ranks=Ranks.world(), quiet=True).rows]


def test_processes_share_the_images(tmp_path: Path) -> None:
    spec = suite(tmp_path, controls=["other_image"])
    alone = [repr(row.flat()) for row in evaluate(ColorTeller(), spec, quiet=True).rows]
    found = on_ranks(2, _rows_here, spec.model_dump(mode="json"))
    assert [[repr(row) for row in rows] for rows in found] == [alone] * 2


def test_sentences_have_bleu_and_are_told_by_an_identifier() -> None:
    said = {"en": tuple(f"this is a picture of something {color}" for color in COLORS), "haw": ("woo",) * 4}
    samples = [colored(color, **{"en": (said["en"][n],), "haw": ("woo",)}) for n, color in enumerate(COLORS)]
    spoken = CaptioningTask("say", samples, {"en": "?", "haw": "?"}, form="sentences")
    rows = {row.language: row for row in evaluate_task(ColorTeller(said), spoken)}
    assert rows["en"]["bleu"] == 1 == rows["en"]["fidelity"] and rows["en"].text("bleu_tokenizer") == "13a"
    assert rows["en"]["bleu_ci_low"] == 1 and np.isnan(rows["haw"]["fidelity"])  # a language that it does not know
    assert "fidelity_same_image" not in rows["en"].values
    assert rows["en"]["rouge_l"] == 1 and rows["en"]["bleu_coco_4"] == pytest.approx(1)
    assert rows["en"]["cider"] == pytest.approx(10) and rows["en"].text("coco_tokenizer") == "PTB"
    assert rows["en"]["cider_other_image"] == 0  # what all references share weighs nothing
    assert rows["en"]["cider_over_other_image_ci_low"] == pytest.approx(10)


def test_sentences_without_blanks_are_cut_as_the_suite_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(**more: Any) -> SuiteSpec:
        return suite(tmp_path, form="sentences", controls=[], identifier="knows nothing", **more)

    for table, name, kind in ((SEGMENTERS, "rjieba", Missing), (IDENTIFIERS, "knows nothing", KnowsNothing)):
        monkeypatch.setitem(table._entries, name, f"{kind.__module__}:{kind.__name__}")
    (opened,) = open_suite(asked()).tasks
    assert caplog.messages[-1].startswith(
        "say: captions in zh are cut into characters, as rjieba is not installed; run: pip install "
    )
    row = evaluate_task(ColorTeller(), opened, languages=["zh"])[0]
    assert row.text("coco_tokenizer") == "characters (rjieba is not installed) + PTB" and row["rouge_l"] == 1
    caplog.clear()
    (other,) = open_suite(asked(segmenters={"chi": "characters", "ja": "sudachipy"})).tasks
    assert not caplog.messages and other.digest != opened.digest
    assert evaluate_task(ColorTeller(), other, languages=["zh"])[0].text("coco_tokenizer") == "characters + PTB"
    with pytest.raises(MissingPackage, match="words needs the package 'rjieba'"):
        open_suite(asked(segmenters={"zh": "rjieba"}))
    open_suite(asked(segmenters={"zh": "rjieba"}, languages=["de"]))  # which never needs it


class Missing:
    """A segmenter whose package is not there."""

    def __init__(self) -> None:
        raise MissingPackage("rjieba", purpose="cutting texts without blanks into words", extra="segmentation")


class KnowsNothing:
    """An identifier of no language."""

    languages: frozenset[str] = frozenset()


def test_pages_and_files_say_what_words_are(tmp_path: Path) -> None:
    spec = suite(tmp_path, form="sentences", segmenters={"zh": "characters"})
    results = evaluate(ColorTeller(), spec, folder=tmp_path / "out", quiet=True)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "(13a, PTB, characters + PTB, sentences, zh)" in page and "CIDEr-D (times 100, as papers give it)" in page
    lines = list(csv.DictReader((tmp_path / "out" / "results-captions.csv").read_text(encoding="utf-8").splitlines()))
    assert [line["coco_tokenizer"] for line in lines] == ["PTB", "PTB", "characters + PTB"]
    assert float(lines[0]["cider"]) == results.rows[0]["cider"] and lines[0]["cider_ci_low"]
    assert "| CIDEr-D |" in (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    written = read_written(tmp_path / "out", "say", "en")
    assert written is not None and {"cider", "rouge_l"} <= set(written[0].figures)
    names = evaluate(ColorTeller(), suite(tmp_path), folder=tmp_path / "names", quiet=True)
    assert not {"cider", "rouge_l", "coco_tokenizer", "bleu_coco_4"} & set(names.rows[0].values)


def test_keywords_count_where_there_are_any() -> None:
    samples = [replace(one, keywords=(one.concept, "color")) for one in SAMPLES]
    row = evaluate_task(ColorTeller(), task(samples), languages=["en"])[0]
    assert row["keyword_accuracy"] == 0.5 == row["keyword_accuracy_ci_low"]


def test_names_that_may_not_be_passed_on_stand_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*spec: Any) -> Any:
        found, names = open_images(*spec)
        return found, replace(names, private=True)

    monkeypatch.setattr(questions, "open_images", opened)
    images = tmp_path / "images"
    for color, rgb in COLORS.items():
        (images / color).mkdir(parents=True)
        Image.new("RGB", (6, 6), rgb).save(images / color / "0.png")
    labels = {"labels": {"de": {str(n): f"secret{n}" for n in range(4)}}}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    source = {"kind": "classes", "images": {"kind": "folder", "path": str(images)},
              "labels": {"kind": "files", "paths": [str(tmp_path / "labels.json")]}}  # fmt: skip
    tasks = [{"kind": kind, "name": kind, "source": source} for kind in ("captioning", "choices")]
    spec = SuiteSpec.model_validate({"tasks": tasks})
    evaluate(ColorTeller(), spec, folder=tmp_path / "out", quiet=True)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) > 5 and not any(b"secret" in path.read_bytes() for path in files)


def test_what_is_wrong_is_told_before_a_model_is_asked(tmp_path: Path) -> None:
    with pytest.raises(DataError) as lacking:
        open_suite(suite(tmp_path, template={"de": "Was?"}))
    assert str(lacking.value) == (
        "task 'say': template has none for en, zh; add them, leave these languages out, or give one template with "
        "{language}"
    )
    with pytest.raises(UnknownName, match=r"split in the data of task say 'val'"):
        open_suite(suite(tmp_path, split="val"))
    with pytest.raises(UnknownName, match=r"language of task say 'fr'"):
        open_suite(suite(tmp_path, languages=["fr"]))
    with pytest.raises(UnknownName, match=r"language identifier 'fasttext'"):
        open_suite(suite(tmp_path, form="sentences", identifier="fasttext"))
    with pytest.raises(UnknownName, match=r"no segmenter 'jeiba'; did you mean 'rjieba'\?"):
        open_suite(suite(tmp_path, form="sentences", segmenters={"zh": "jeiba"}))
    for setting, message in (
        ("template='{lang}?'", "'{lang}?' has {lang}; a template may have {language} and {autonym}"),
        ("template=' '", "a blank template asks nothing; null takes vlkit's own"),
        ("source.kind=crossmodal3600 tasks.0.split=test", "split: files of kind crossmodal3600 hold one split"),
    ):
        overrides = f"tasks.0.{setting}".split(" tasks.") if "kind" in setting else [f"tasks.0.{setting}"]
        first, *more = overrides
        paths = ["tasks.0.source.path=a", "tasks.0.source.images=b"]
        with pytest.raises(SpecError) as caught:
            read_suite("captions", [first, *(f"tasks.{one}" for one in more), *paths[: 2 if more else 1]])
        assert message in str(caught.value)
    with pytest.raises(SpecError) as uncut:
        read_suite("captions", [f"tasks.0.{one}" for one in ("form=names", "segmenters.zh=rjieba", "source.path=a")])
    assert "segmenters: names are not cut into words; leave it out, or set form to sentences" in str(uncut.value)


class Short(ColorTeller):
    """Leaves an answer out."""

    def answer(self, questions: Any, **settings: Any) -> list[str]:
        return super().answer(questions, **settings)[: max(1, len(questions) - 1)]


def test_a_model_that_does_not_answer_everything_is_told() -> None:
    with pytest.raises(VlkitError, match=r"^the model gave 11 answers to 12 questions; it must give one each$"):
        evaluate_task(Short(), task(SAMPLES), languages=["en"])


def test_the_shipped_suites_are_whole(tmp_path: Path) -> None:
    assert [one.name for one in read_suite("captions_openmoji").tasks] == ["openmoji-unseen", "openmoji-trained"]
    spec = read_suite("xm3600", ["tasks.0.source.path=a", "tasks.0.source.images=b"])
    assert spec.tasks[0].model_dump()["generation"]["beams"] == 5
    source = table(tmp_path)
    opened = open_suite(read_suite("captions", [f"tasks.0.source.path={source['path']}", "tasks.0.limit=5"]))
    assert len(opened.tasks[0].samples) == 5


def test_native_texts_are_scored_by_their_keywords(tmp_path: Path) -> None:
    rows = []
    for color in COLORS:
        colored(color).image().save(tmp_path / f"{color}.png")
        said = NAMES["de"][list(COLORS).index(color)]
        rows.append(
            {"image": f"{color}.png", "lang": "de", "source": "alt", "text": f"ganz {said}", "keywords": [said]}
        )
    (tmp_path / "mella.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"kind": "native_and_translated", "path": str(tmp_path / "mella.jsonl"), "texts": "native"}
    spec = SuiteSpec.model_validate({"tasks": [{"kind": "captioning", "name": "say", "source": source}]})
    names = {"de": ("Rot!", "grün", "blaue", "gelb")}  # all but one hold their keyword as a word
    (row,) = evaluate(ColorTeller(names), spec, quiet=True).rows
    assert row["keyword_accuracy"] == 0.75 and row["exact_match"] == 0
