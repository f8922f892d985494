"""Laws of the prompts of vision-language models: tasks, slots, scripts, turns, files of one's own."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from tests.test_prompts import SCRIPT_NAMES as OF_TEMPLATES
from vlkit import image_prompts
from vlkit.errors import DataError, UnknownName
from vlkit.image_prompts import QUESTION, ImagePrompts, question_prompts
from vlkit.languages import get, normalize

PROMISED = """en es ja ko pt it fr de fa id zh ru tr ar bn cs da el fi tl he hi hr hu nl nb pl ro sv sw te th uk vi"""
SCRIPT_NAMES = OF_TEMPLATES | {
    "Armn": "ARMENIAN", "Ethi": "ETHIOPIC", "Geor": "GEORGIAN", "Gujr": "GUJARATI", "Mlym": "MALAYALAM",
}  # fmt: skip
TASKS = image_prompts._tables(None)
LISTS = [(task, tag, lines) for task, prompts in TASKS.items() for tag, lines in prompts.native.items()]


@pytest.mark.parametrize("task", ["caption", "name", "vqa", "yes_no", "presence"])
def test_promised_languages_have_prompts_of_their_own(task: str) -> None:
    assert set(PROMISED.split()) <= set(TASKS[task].native)
    assert len(TASKS[task].english) >= 3


def test_english_prompts_name_the_language_and_only_questions_have_a_place_for_one() -> None:
    for task, prompts in TASKS.items():
        assert prompts.asks == (task in ("vqa", "yes_no", "presence", "translate"))
        assert all("{language}" in one for one in prompts.english)
        assert len(set(prompts.english)) == len(prompts.english)


@pytest.mark.parametrize(("task", "tag", "lines"), LISTS, ids=[f"{task}-{tag}" for task, tag, _ in LISTS])
def test_native_prompts_are_in_the_script_of_the_language(task: str, tag: str, lines: tuple[str, ...]) -> None:
    assert normalize(tag) == tag
    assert len(set(lines)) == len(lines)
    allowed = tuple(SCRIPT_NAMES[get(tag).script].split())
    for line in lines:
        assert line == unicodedata.normalize("NFC", line).strip()
        words = line.replace(QUESTION, "") if TASKS[task].asks else line
        assert "{" not in words and "  " not in line
        assert {c for c in words if c.isalpha() and not unicodedata.name(c).startswith(allowed)} == set()


def test_prompts_name_the_language_first_then_come_those_in_it() -> None:
    english, native = question_prompts("caption", "de", wording="english"), question_prompts("caption", "Deutsch")[-3:]
    assert english[0] == "Describe the image in German."
    assert native[0] == "Beschreibe das Bild."
    assert question_prompts("caption", "deu_Latn") == english + native
    assert question_prompts("caption", "de", wording="native") == native
    assert (
        question_prompts("vqa", "zh-TW", wording="english")[0] == "{question} Answer briefly in Chinese (Traditional)."
    )


def test_a_language_without_prompts_of_its_own_is_asked_for_in_english() -> None:
    for wording in ("english", "native", "both"):
        assert question_prompts("caption", "quz", wording=wording)[0] == f"Describe the image in {get('quz').name}."


@pytest.mark.parametrize("language", ["de", "sw", "quz"])
def test_english_and_native_prompts_come_in_turn_and_each_equally_often(language: str) -> None:
    prompts = ImagePrompts("caption", "both", None)
    english, native = (question_prompts("caption", language, wording=one) for one in ("english", "native"))
    drawn = Counter(prompts.choose(language, task="", number=number) for number in range(2 * 6 * len(native)))
    assert set(drawn) == set(english + native)
    assert len({drawn[one] for one in english}) == len({drawn[one] for one in native}) == 1
    if language != "quz":
        assert sum(drawn[one] for one in english) == sum(drawn[one] for one in native)
        assert [prompts.choose(language, task="", number=number) in native for number in range(4)] == [False, True] * 2


def test_the_sample_says_what_is_asked_and_a_question_is_not_read_as_a_prompt() -> None:
    prompts = ImagePrompts("caption", "english", None)
    assert prompts.choose("fr", task="name", number=0) == "Name what the picture shows, in French."
    assert prompts.choose("fr", task="ocr", number=0) == "Read the French text in the image."
    assert prompts.choose("fr", task="colors", number=0) == "Describe the image in French."  # has none of its own
    question = "Is {language} {question} odd?"
    assert prompts.choose("fr", task="vqa", number=0, question=question) == f"{question} Answer briefly in French."
    assert prompts.asks("yes_no") and not prompts.asks("caption") and not prompts.asks("")


def test_a_file_of_ones_own_takes_the_place_of_vlkits(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("count: {native: {no: [Tell tingene.], de: [Zähle.]}}\nlook: {english: ['{autonym}: ']}\n", "utf-8")
    assert question_prompts("count", "nb", file=path) == ("Tell tingene.",)
    assert question_prompts("look", "ru", file=str(path)) == ("русский: ",)
    path.write_text("count: {native: {nb: [Tell alle.]}}", "utf-8")
    assert question_prompts("count", "nb", file=path) == ("Tell alle.",)
    with pytest.raises(
        DataError, match=r"the prompt file has none of count in fr, and no english ones that name the language"
    ):
        question_prompts("count", "fr", file=path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "must map tasks to prompts: {caption: {english: [...], native: {de: [...]}}}"),
        ("a: [", "neither JSON nor YAML: "),
        ("a: {}", "a: must have english, a list of prompts, or native, a list for each language, or both"),
        ("a: {french: [x]}", "a: must have english, a list of prompts, or native, a list for each language, or both"),
        ("a: {english: x}", "a.english: must be a list of texts, none of them blank; a: no prompts"),
        ("a: {native: [x]}", "a.native: must map language codes to lists of prompts; a: no prompts"),
        ("a: {native: {Germn: [x]}, english: [y]}", "a.native: no language 'Germn'; did you mean 'German'"),
        ("a: {native: {no: [x], nb: [y]}}", "a.native.nb: the file has nb twice"),
        ("a: {native: {de: [' ']}}", "a.native.de: must be a list of texts, none of them blank; a: no prompts"),
        ("a: {english: ['in {lang}']}", "a.english: 'in {lang}' has the slot '{lang}'; did you mean '{language}'?"),
        (
            "a: {english: ['{question} {question}']}",
            "a.english: '{question} {question}' has 2 places for a question; keep one",
        ),
        (
            "a: {english: ['{question}', 'b']}",
            "a: 'b' has no {question}, others of the task have; all need it, or none",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(DataError) as caught:
        question_prompts("a", "de", file=path)
    assert str(caught.value).startswith(f"prompt file {path}: {said}")


def test_a_missing_file_or_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"cannot read prompt file {tmp_path / 'no.yaml'}: no such file or directory"):
        question_prompts("caption", "de", file=tmp_path / "no.yaml")
    with pytest.raises(UnknownName) as caught:
        question_prompts("captions", "de")
    assert str(caught.value) == "no task with prompts 'captions'; did you mean 'caption'?"
    with pytest.raises(UnknownName):
        ImagePrompts("captoin", "both", None)
    with pytest.raises(DataError) as asked:
        ImagePrompts("vqa", "both", None)
    assert str(asked.value) == (
        "data.prompts.task: the prompts of 'vqa' ask a question, and captions answer none; give the task of samples "
        "with questions in their source (task: vqa)"
    )


def test_prompts_are_read_without_torch() -> None:
    code = "import sys, vlkit.image_prompts as p; p.question_prompts('name', 'de'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
