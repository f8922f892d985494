from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from tests.evaluation.results.test_results import row
from tests.helpers.evaluate_fakes import CountingModel, sample
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.report.gallery import Answer, GalleryItem, LanguageAnswers, default_languages, make_gallery
from vlkit.evaluation.report.page import Credit, write_report
from vlkit.evaluation.report.plots import render, training_curves
from vlkit.evaluation.results.results_file import Results
from vlkit.evaluation.tasks.engine import TaskScores, score_task
from vlkit.evaluation.tasks.zero_shot_task import openmoji_unseen

EVIL = "<script>alert('x')</script>&\"{{ 7 * 7 }}"


@pytest.fixture
def scores() -> TaskScores:
    names = [
        ("dog", "كلب", "狗"),
        ("cat", "قطة", "猫"),
        (EVIL, "سيارة", "车"),
        ("house", "بيت", "房子"),
        ("tree", "شجرة", "树"),
    ]
    samples = [sample(number, en=en, ar=ar, zh=zh) for number, (en, ar, zh) in enumerate(names)]
    return score_task(CountingModel(), openmoji_unseen(samples))


@pytest.fixture
def results() -> Results:
    rows = [row(v, tag, a) for v, a in (("<b>one</b>", 0.1), ("two", 0.2)) for tag in ("en", "ar", "zh")]
    return Results(
        {"seed": 0, "note": EVIL, "libraries": {"torch": "2"}, "seconds": 61.0, "languages": ["en", "ar"]}, tuple(rows)
    )


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "loss": 3 / (step + 1), "lr": 1e-3} for step in range(0, 300, 10)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 300, "lo')  # cut by a kill
    return path


@pytest.fixture
def page(results, scores, metrics, tmp_path) -> str:
    path = write_report(
        tmp_path / "out" / "report.html",
        results=results,
        gallery=make_gallery(scores, count=5),
        gallery_variant="two",
        metrics={"<b>one</b>": metrics, "two": metrics},
        recipe_yaml=f"description: {EVIL}",
        attribution=[Credit(EVIL, EVIL, EVIL)],
        title=EVIL,
        intro=EVIL,
        commands=[EVIL],
    )
    return path.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """All start tags, and the tags left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_well_formed_and_runs_no_script(page):
    elements = Elements(page)
    assert elements.open == []
    assert "script" not in {tag for tag, _ in elements.found}
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]


def test_everything_given_is_escaped(page):
    assert "<script" not in page and "<b>one" not in page
    assert page.count("&lt;script&gt;alert") >= 8
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert "{{ 7 * 7 }}" in page


def test_page_asks_the_network_for_nothing(page):
    for _, attributes in Elements(page).found:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert not re.search(r"https?://", page)
    assert not re.search(r"@import|url\((?!#|\"?data:)", page)


def test_scripts_are_marked_with_language_and_direction(page):
    lists = [attributes for tag, attributes in Elements(page).found if tag == "ol"]
    assert {(a["lang"], a["dir"]) for a in lists} == {("en", "ltr"), ("ar", "rtl"), ("zh", "ltr")}
    assert "العربية" in page and "قطة" in page


def test_each_answer_is_there_and_the_right_one_is_marked(page, scores):
    marked = [
        attributes for tag, attributes in Elements(page).found if tag == "li" and attributes.get("class") == "right"
    ]
    shown = make_gallery(scores, count=5)
    right = sum(answer.correct for item in shown for answers in item.answers.values() for answer in answers.best)
    assert len(marked) == right > 0
    assert page.count('class="truth"') == 5 * 3 - right


def test_numbers_are_those_of_the_results(page):
    for wanted in ("20.0", "10.0", "16.0–25.0", "60 times chance", "wall time</dt><dd>61 s"):
        assert wanted in page


def test_the_barest_report(results, tmp_path):
    page = write_report(tmp_path / "r.html", results=results).read_text()
    assert "What it answers" not in page and "Training" not in page and "Recipe" not in page
    assert Elements(page).open == []


def test_report_without_rows_or_of_an_unknown_variant(results, tmp_path):
    with pytest.raises(VlkitError, match="these results have no rows"):
        write_report(tmp_path / "r.html", results=Results({}, ()))
    with pytest.raises(UnknownName, match="no variant 'tow'; did you mean 'two'"):
        write_report(tmp_path / "r.html", results=results, gallery_variant="tow")
    assert not (tmp_path / "r.html").exists()


def test_gallery_is_fair_and_repeats(scores):
    items = make_gallery(scores, count=4)
    assert items == make_gallery(scores, count=4)
    assert len(items) == 4 == len({item.key for item in items})
    right = [sum(answers.best[0].correct for answers in item.answers.values()) for item in items]
    everything = make_gallery(scores, count=99)
    assert len(everything) == 5
    counts = sorted((sum(a.best[0].correct for a in item.answers.values()) for item in everything), reverse=True)
    assert right[:2] == counts[:2]
    assert all(item.png.startswith(b"\x89PNG") for item in items)
    assert {tag: answers.truth for tag, answers in next(i for i in everything if i.key == "key-1").answers.items()} == {
        "en": "cat",
        "ar": "قطة",
        "zh": "猫",
    }
    with pytest.raises(VlkitError, match="count = 0, k = 3: need count >= 1 and 1 <= k <= 5"):
        make_gallery(scores, count=0)


def test_first_languages_shown_differ_in_script():
    tags = ("de", "en", "es", "fr", "ru", "ar", "fa", "zh")
    assert default_languages(tags) == ("en", "ru", "ar", "zh")
    assert default_languages(("de", "fr")) == ("de", "fr")


def test_item_without_a_name_in_some_language(results, tmp_path):
    items = [
        GalleryItem("a", b"", {"en": LanguageAnswers("dog", (Answer("dog", 0.5, True),))}),
        GalleryItem("b", b"", {"ar": LanguageAnswers("كلب", (Answer("قطة", 0.5, False),))}),
    ]
    page = write_report(tmp_path / "r.html", results=results, gallery=items).read_text()
    assert "right in 1 of 1 languages" in page and "right in 0 of 1 languages" in page


def test_figures_repeat_byte_for_byte_and_leave_global_state_alone(metrics):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    assert render(training_curves({"two": metrics})) == render(training_curves({"two": metrics}))
    assert render(training_curves({"two": metrics}), kind="png").startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before


def test_metrics_with_a_broken_line_or_without_a_loss(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2: bad JSON"):
        training_curves({"one": bad})
    bad.write_text('{"step": 1}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl has no line with a loss"):
        training_curves({"one": bad})
    with pytest.raises(DataError, match=r"cannot read .*none\.jsonl: no such file or directory"):
        training_curves({"one": tmp_path / "none.jsonl"})
