"""Readers of question sets: the forms of the releases become plain records; what is wrong is told with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from tests.helpers import question_sets as sets
from tests.helpers.answering_fakes import COLORS
from vlkit.data.questions.open_set import open_set
from vlkit.data.questions.question_records import ImageQuestion
from vlkit.errors import DataError
from vlkit.spec.question_sets import FORMS, QuestionSetSpec

SPEC: TypeAdapter[Any] = TypeAdapter(QuestionSetSpec)


def read(source: dict[str, Any]) -> dict[tuple[str, str], ImageQuestion]:
    """By language and key."""
    return {(one.language, one.key): one for one in open_set(SPEC.validate_python(source))}


def colors(question: ImageQuestion) -> list[str]:
    """The colours of its images."""
    pixels = [image().convert("RGB").getpixel((4, 3)) for image in question.images]
    return [min(COLORS, key=lambda name: sum(abs(a - b) for a, b in zip(COLORS[name], p, strict=True))) for p in pixels]


def test_xgqa(tmp_path: Path) -> None:
    found = read(sets.xgqa(tmp_path))
    assert len(found) == 6 and {tag for tag, _ in found} == {"en", "de"}
    one = found["de", "202158849"]
    assert (one.text, one.answers, one.answer_language) == ("Ist es rot?", ("yes",), "en")
    assert (one.group, one.category, colors(one), one.options) == ("n406334", "verify", ["red"], ())


def test_xgqa_of_iglue_and_by_a_pattern(tmp_path: Path) -> None:
    source = sets.xgqa(tmp_path)
    file = Path(source["path"]) / "testdev_balanced_questions_de.json"
    moved = tmp_path / "few_shot" / "de" / "test.json"
    moved.parent.mkdir(parents=True)
    moved.write_bytes(file.read_bytes())
    assert {tag for tag, _ in read({**source, "path": str(tmp_path / "few_shot")})} == {"de"}
    pattern = str(Path(source["path"]) / "testdev_balanced_questions_{language}.json")
    assert read({**source, "path": pattern}).keys() == read(source).keys()


def test_maxm_has_several_right_answers(tmp_path: Path) -> None:
    found = read(sets.maxm(tmp_path))
    one = found["fr", "fr_0"]
    assert (one.answers, one.answer_language, one.category) == (("vert", "vert clair"), "fr", "single")
    assert found["he", "iw_0"].answer_language == "he" and one.group == "0a9ecd0f"


def test_marvl_shows_two_images_and_groups_by_concept(tmp_path: Path) -> None:
    found = read(sets.marvl(tmp_path))
    assert list(found) == [("sw", "sw-0"), ("sw", "sw-1"), ("zh", "zh-0")]
    one = found["sw", "sw-0"]
    assert (one.answers, one.options, one.right) == (("no",), ("yes", "no"), 1)
    assert (colors(one), one.group, one.category) == (["red", "blue"], "81-Dawati", "Cognition")


def test_xvnli_leaves_out_what_annotators_do_not_agree_on(tmp_path: Path) -> None:
    found = read(sets.xvnli(tmp_path))
    assert [one.answers for (tag, _), one in found.items() if tag == "fr"] == [("no",), ("maybe",), ("yes",)]
    assert {one.group for one in found.values()} == {"759822302.jpg"}


def test_m5(tmp_path: Path) -> None:
    pairs = read(sets.m5(tmp_path / "vgr", "m5_vgr", ["True", "False"]))
    assert list(pairs) == [("am", "am-0"), ("am", "am-1"), ("zgh", "ber-0"), ("zgh", "ber-1")]
    one = pairs["am", "am-1"]
    assert (one.answers, one.text, one.category, colors(one)) == (("no",), "ሁለቱም 1", "bathrooms", ["red"])
    outliers = read(sets.m5(tmp_path / "vlod", "m5_vlod", ["C"]))
    assert outliers["zgh", "ber-0"].right == 2 and colors(outliers["zgh", "ber-0"]) == ["blue"]


def test_mtvqa(tmp_path: Path) -> None:
    found = read(sets.mtvqa(tmp_path))
    assert list(found) == [("de", "DE_1-0"), ("de", "DE_1-1"), ("ko", "KR_7-0")]  # KR is not Kanuri
    one = found["de", "DE_1-0"]
    assert (one.answers, one.group, colors(one)) == (("Auf geht's",), "DE_1", ["red"])


def test_smpqa(tmp_path: Path) -> None:
    found = read(sets.smpqa(tmp_path))
    ground, name = found["ko", "ground-0"], found["ko", "name-0"]
    assert (ground.text, ground.options, ground.right) == ('Is the bar with label "책" the biggest?', ("yes", "no"), 0)
    assert (name.answers, name.options, name.answer_language, name.category) == (("책",), (), "ko", "name")
    assert colors(name) == ["yellow"] and ground.answer_language == "en"
    assert read({"kind": "smpqa", "path": str(tmp_path / "{language}_ground.json"), "images": str(tmp_path)}) == found


def test_cvqa_in_the_language_and_in_english(tmp_path: Path) -> None:
    source = sets.cvqa(tmp_path)
    one = read(source)["id", "5964281096652575511_1"]
    assert (one.answers, one.right, one.options[0], one.text) == (("biru",), 2, "merah", "Apa warnanya?")
    assert one.category == "Indonesia: Objects / materials / clothing" and colors(one) == ["blue"]
    english = read({**source, "questions": "english"})
    assert english["en", "99_0"].answers == ("red",) and len(english) == 2


def test_kaleidoscope_with_and_without_images(tmp_path: Path) -> None:
    source = sets.kaleidoscope(tmp_path)
    (one,) = read(source).values()
    assert (one.language, one.answers, one.category, colors(one)) == ("pt", ("vermelho",), "English", ["red"])
    both = read({**source, "with_images_only": False})
    assert [len(question.images) for question in both.values()] == [1, 0]


def test_kaleidoscope_of_the_hub(tmp_path: Path) -> None:
    sets.picture(tmp_path / "data" / "exam" / "q1.png", "green")
    columns = {"language": ["de"], "question": ["Welche Farbe?"], "options": [["rot", "grün"]], "answer": [1],
               "image_png": ["q1.png"], "image": ["data/exam/q1.png"], "category_en": ["Art"]}  # fmt: skip
    path = sets.parquet(tmp_path / "hub" / "train-00000.parquet", columns)
    (one,) = read({"kind": "kaleidoscope", "path": str(path), "images": str(tmp_path)}).values()
    assert (one.answers, colors(one)) == (("grün",), ["green"])


def test_m3exam_has_images_wherever_they_are_named(tmp_path: Path) -> None:
    found = read(sets.m3exam(tmp_path))
    one = found["zh", "chinese-0"]
    assert (one.text, one.options) == ("看图 <image>\n图中是什么颜色？", ("蓝色", "<image>", "红色"))
    assert (one.right, one.category, colors(one)) == (1, "natural-science", ["red", "blue"])
    thai = found["th", "thai-0"]
    assert (thai.answers, thai.options) == (("เขียว",), ("แดง", "เขียว"))  # Thai digits before them


def test_xmmmu_has_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    found = read(sets.xmmmu(tmp_path))
    one = found["ja", "validation_Art_1"]
    assert (one.text, one.options, one.right) == ("<image> は何色？", ("<image>", "赤"), 1)
    assert colors(one) == ["yellow", "red"] and colors(found["ja", "validation_Art_2"]) == ["blue"]
    assert found["ja", "validation_Art_3"].answers == ("24", "24.0")


def test_every_kind_has_a_form() -> None:
    kinds = {one.model_fields["kind"].default for one in QuestionSetSpec.__args__[0].__args__}  # type: ignore[attr-defined]
    assert kinds == set(FORMS)


def _xgqa_without_an_answer(folder: Path) -> dict[str, Any]:
    source = sets.xgqa(folder)
    file = Path(source["path"]) / "testdev_balanced_questions_de.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["7"]["answer"]
    sets.write_json(file, content)
    return source


def _marvl_with_a_wrong_label(folder: Path) -> dict[str, Any]:
    source = sets.marvl(folder)
    file = Path(source["path"]) / "marvl-sw.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("false}", '"False"}'), encoding="utf-8")
    return source


def _marvl_without_an_image(folder: Path) -> dict[str, Any]:
    source = sets.marvl(folder)
    (folder / "images" / "zh" / "images" / "39-熊猫" / "81-11.jpg").unlink()
    return source


def _xvnli_cut(folder: Path) -> dict[str, Any]:
    source = sets.xvnli(folder)
    file = Path(source["path"]) / "fr" / "test.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    return source


def _unknown_language(folder: Path) -> dict[str, Any]:
    source = sets.maxm(folder)
    (folder / "maxm_v1_fr.json").rename(folder / "maxm_v1_xqz.json")
    return source


def _twice(folder: Path) -> dict[str, Any]:
    source = sets.smpqa(folder)
    record = json.loads((folder / "ko_ground.json").read_text(encoding="utf-8"))[0]
    sets.write_json(folder / "ko_ground.json", [{**record, "text_label": "perhaps"}])
    return source


def _exam(folder: Path, **more: Any) -> dict[str, Any]:
    source = sets.m3exam(folder)
    file = folder / "multimodal-question" / "thai-questions-image.json"
    sets.write_json(file, [{**json.loads(file.read_text(encoding="utf-8"))[0], **more}])
    return source


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_xgqa_without_an_answer, "questions_de.json: question 7: 'answer' is missing, expected a text"),
        (_marvl_with_a_wrong_label, "marvl-sw.jsonl:1: 'label' is 'False', expected true or false"),
        (_marvl_without_an_image, "marvl-zh.jsonl:1: no image {folder}/images/zh/images/39-熊猫/81-11.jpg"),
        (_xvnli_cut, "fr/test.jsonl:4: bad JSON"),
        (_unknown_language, "maxm_v1_xqz.json: no language 'xqz'"),
        (_twice, "ko_ground.json: record 1: 'text_label' is 'perhaps', expected yes or no"),
        (lambda f: _exam(f, answer_text="7"), "questions-image.json: record 1: 'answer_text' is '7', which is 0 of"),
        (lambda f: _exam(f, options=["๑. แดง"]), "record 1: 'options' is ['๑. แดง'], expected a list of 2 or more"),
        (lambda f: sets.cvqa(f, label=-1), "row 0: 'Label' is -1: the answers of this file are kept back"),
        (lambda f: sets.cvqa(f, label=4), "row 0: the right option is 4, and there are 4 (0 to 3)"),
        (lambda f: sets.m5(f, "m5_vlod", ["F"]), "am_0000: 'label_str' is 'F', expected one of A, B, C, D, E"),
        (lambda f: sets.m5(f, "m5_vgr", ["F"]), "am_0000: 'label_str' is 'F', expected one of true, false, yes, no"),
        (lambda f: {**sets.m5(f, "m5_vlod", ["A"]), "path": str(f / "no")}, "no: no such folder; give a folder with"),
        (lambda f: {**sets.xgqa(f), "path": str(f)}, "has no testdev_balanced_questions_{language}.json or"),
        (lambda f: {**sets.xgqa(f), "images": str(f / "x")}, "x: no such folder of images; images names the folder of"),
        (lambda f: {**sets.mtvqa(f), "path": str(f / "*.parquet")}, "*.parquet: no file fits; give a file, a"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(
    make: Callable[[Path], dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        read(make(tmp_path))
    assert message.replace("{folder}", str(tmp_path)) in str(caught.value)
